;; A program rather than a reactor: `_start` ends with `proc_exit`.
;;
;; > upgrade => failed "its initialiser called proc_exit"
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 0)))
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0)))
