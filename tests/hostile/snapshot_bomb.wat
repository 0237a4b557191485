;; A `snapshot` that never ends and is ever larger.
;;
;; > upgrade => active
;; > leave => failed "`snapshot` of the active module ran out of fuel"
;; > apply "" => ok
(memory (export "memory") 200)
(func (export "snapshot") (result i32)
  (loop $again (call $write (i32.const 0) (i32.const 1000000)) (br $again)) (i32.const 0))
