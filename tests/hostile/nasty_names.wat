;; Names that would confuse a terminal.
;;
;; > upgrade => refused "`env.\u{1b}[2Jall is well"
(module
  (import "env" "\1b[2Jall is well\0aWARN" (func))
  (func (export "raft_fsm_abi_v1")))
