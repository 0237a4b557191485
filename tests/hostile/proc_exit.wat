;; Ends the program, as far as it knows: in a command, and in a question.
;;
;; > upgrade => active
;; > apply "" => trapped exit
;; > query "" => trapped exit
;; > apply "" => trapped exit
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1)
  (func (export "apply") (param i32) (result i32) (call $exit (i32.const 0)) (i32.const 0))
  (func (export "query") (param i32) (result i32) (call $exit (i32.const 1)) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0)))
