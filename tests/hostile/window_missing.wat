;; Wants a window and does not say where.
;;
;; > upgrade => refused "exports no `raft_fsm_window`"
(global $address i32 (i32.const 0))
(func (export "apply") (param i32) (result i32) (call $window))
