;; A marker that is no function.
;;
;; > upgrade => refused "the export `raft_fsm_abi_v1` must be a function"
(module
  (global (export "raft_fsm_abi_v1") i32 (i32.const 1))
  (memory (export "memory") 1))
