module probe

go 1.24

require raftfsm v0.0.0

replace raftfsm => ../
