;; An import that nobody offers.
;;
;; > upgrade => refused "`env.launch_missiles` (an undefined symbol"
(module
  (import "env" "launch_missiles" (func))
  (func (export "raft_fsm_abi_v1")))
