;; A memory from outside.
;;
;; > upgrade => refused "the module imports the memory `env.memory`"
(module
  (import "env" "memory" (memory 1))
  (func (export "raft_fsm_abi_v1")))
