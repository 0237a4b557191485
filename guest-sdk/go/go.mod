module raftfsm

go 1.24
