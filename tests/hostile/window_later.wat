;; A window in memory that is only there once it has grown.
;;
;; > upgrade => refused "are not inside of the memory that it starts with"
(memory (export "memory") 1)
(global (export "raft_fsm_window") i32 (i32.const 0x10000))
(func (export "_initialize") (drop (memory.grow (i32.const 1))))
(func (export "apply") (param i32) (result i32) (call $window))
