;; A window that could wander while the guest runs.
;;
;; > upgrade => refused "not an immutable global of type i32"
(global (export "raft_fsm_window") (mut i32) (i32.const 0))
(func (export "apply") (param i32) (result i32) (call $window))
