;; Made for an ABI of the future.
;;
;; > upgrade => refused "made for another guest ABI (it exports `raft_fsm_abi_v2`)"
(module
  (func (export "raft_fsm_abi_v2"))
  (memory (export "memory") 1))
