;; Names that could be the host's own, for globals and functions of the guest's.
;;
;; > upgrade => active
;; > apply "" => ok
(global $a (export "raft_host:global_0") (mut i32) (i32.const 1))
(global $b (export "raft_host::global_1") (mut i64) (i64.const 2))
(func (export "raft_host:start"))
(func (export "raft_host:::start") (unreachable))
(start $begin)
(func $begin (global.set $a (i32.const 5)))
