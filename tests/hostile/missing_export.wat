;; No `restore`.
;;
;; > upgrade => refused "does not export the required function `restore`"
(module
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1)
  (func (export "apply") (param i32) (result i32) (i32.const 0))
  (func (export "snapshot") (result i32) (i32.const 0)))
