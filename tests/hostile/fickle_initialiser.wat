;; An initialiser that goes well at one index and traps at every later one. A node that starts
;; from a snapshot must not need it again.
;;
;; > upgrade => active
;; > apply "" => ok
;; > snapshot
;; > restart
;; > apply "" => ok
(global $seen (mut i64) (i64.const 0))
(func (export "_initialize")
  (if (i64.gt_u (call $index) (i64.const 7)) (then (unreachable))))
