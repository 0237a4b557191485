;; A `snapshot` that traps: the module cannot be left, but goes on.
;;
;; > upgrade => active
;; > leave => failed "`snapshot` of the active module executed `unreachable`"
;; > apply "" => ok
;; > abandon => active
(func (export "snapshot") (result i32) (unreachable))
