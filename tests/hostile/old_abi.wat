;; Made for an ABI before the first one.
;;
;; > upgrade => refused "made for another guest ABI (it exports `raft_fsm_abi_v0`)"
(module
  (func (export "raft_fsm_abi_v0"))
  (memory (export "memory") 1))
