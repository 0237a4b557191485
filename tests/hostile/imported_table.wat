;; A table from outside.
;;
;; > upgrade => refused "the module imports the table `env.__indirect_function_table`"
(module
  (import "env" "__indirect_function_table" (table 1 funcref))
  (func (export "raft_fsm_abi_v1")))
