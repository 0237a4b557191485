;; A global from outside.
;;
;; > upgrade => refused "the module imports the global `env.__stack_pointer`"
(module
  (import "env" "__stack_pointer" (global (mut i32)))
  (func (export "raft_fsm_abi_v1")))
