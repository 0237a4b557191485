;; A window that begins inside of the memory and ends outside.
;;
;; > upgrade => refused "are not inside of the memory that it starts with"
(global (export "raft_fsm_window") i32 (i32.add (i32.const 0xf000) (i32.const 1)))
(func (export "apply") (param i32) (result i32) (call $window))
