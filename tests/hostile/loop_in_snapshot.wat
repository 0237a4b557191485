;; An endless loop in `snapshot`: the module cannot be left by way of its own snapshot, but it
;; goes on, and the node with it, until its state is given up.
;;
;; > upgrade => active
;; > leave => failed "`snapshot` of the active module ran out of fuel"
;; > apply "" => ok
;; > restart
;; > leave => failed "`snapshot` of the active module ran out of fuel"
;; > query "" => ok
;; > leave => failed "snapshot_fuel is 20000000"
;; > leave => failed "upgrade --discard-state"
;; > abandon => active
;; > restart
(func (export "snapshot") (result i32) (loop $again (br $again)) (i32.const 0))
