;; An import of the ABI with another signature.
;;
;; > upgrade => refused "`raft_fsm_v1.read` is declared as (i64) -> (); it is (i32, i32) -> (i32)"
(module
  (import "raft_fsm_v1" "read" (func (param i64)))
  (func (export "raft_fsm_abi_v1")))
