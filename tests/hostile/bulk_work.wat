;; Long fills and copies, which cost by the byte, not by the instruction.
;;
;; > upgrade => active
;; > apply "f" => trapped out_of_fuel
;; > apply "c" => trapped out_of_fuel
;; > apply "i" => trapped out_of_fuel
(memory (export "memory") 200)
(data $text "some bytes in a passive segment that is never dropped")
(func (export "apply") (param i32) (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (loop $again
    (if (i32.eq (local.get $op) (i32.const 102)) (then
      (memory.fill (i32.const 0) (i32.const 0) (i32.const 13000000))))
    (if (i32.eq (local.get $op) (i32.const 99)) (then
      (memory.copy (i32.const 1) (i32.const 0) (i32.const 13000000))))
    (if (i32.eq (local.get $op) (i32.const 105)) (then
      (memory.init $text (i32.const 0) (i32.const 0) (i32.const 50))))
    (br $again))
  (i32.const 0))
