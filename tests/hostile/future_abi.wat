;; Made for an ABI of the future, imports and all.
;;
;; > upgrade => refused "`raft_fsm_v7.teleport` (another version of the guest ABI; this host speaks version 1)"
(module
  (import "raft_fsm_v7" "teleport" (func))
  (func (export "raft_fsm_abi_v7"))
  (memory (export "memory") 1))
