;; Outputs, events and log lines by the million. Output and events are bounded and trap; log lines
;; beyond the bound are dropped, and cost fuel.
;;
;; > upgrade => active
;; > apply "w" => trapped output_limit
;; > apply "b" => trapped output_limit
;; > apply "e" => trapped output_limit
;; > apply "E" => trapped output_limit
;; > apply "t" => trapped output_limit
;; > apply "l" => trapped out_of_fuel
;; > apply "n" => trapped out_of_fuel
;; > query "w" => trapped output_limit
;; > query "e" => trapped output_limit
;; > query "l" => trapped out_of_fuel
;; > apply "x" => ok
(memory (export "memory") 160)
(func (export "apply") (param i32) (result i32) (call $do))
(func (export "query") (param i32) (result i32) (call $do))
(func $do (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 120)) (then (return (i32.const 0))))
  (memory.fill (i32.const 64) (i32.const 10) (i32.const 4096))
  (loop $again
    ;; Bytes, then megabytes.
    (if (i32.eq (local.get $op) (i32.const 119)) (then (call $write (i32.const 0) (i32.const 64))))
    (if (i32.eq (local.get $op) (i32.const 98)) (then (call $write (i32.const 0) (i32.const 10000000))))
    ;; Empty events, then one event of megabytes, then a topic of megabytes.
    (if (i32.eq (local.get $op) (i32.const 101)) (then
      (call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
    (if (i32.eq (local.get $op) (i32.const 69)) (then
      (call $emit (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 10000000))))
    (if (i32.eq (local.get $op) (i32.const 116)) (then
      (call $emit (i32.const 0) (i32.const 5000000) (i32.const 0) (i32.const 5000000))))
    ;; Lines, then line breaks.
    (if (i32.eq (local.get $op) (i32.const 108)) (then
      (call $log (i32.const 4) (i32.const 0) (i32.const 1))))
    (if (i32.eq (local.get $op) (i32.const 110)) (then
      (call $log (i32.const 4) (i32.const 64) (i32.const 4096))))
    (br $again))
  (i32.const 0))
