;; Every way to trap by an instruction. None leaves a trace: `x` answers what was counted.
;;
;; > upgrade => active
;; > apply "u" => trapped unreachable
;; > apply "0" => trapped arithmetic
;; > apply "r" => trapped arithmetic
;; > apply "m" => trapped arithmetic
;; > apply "M" => trapped arithmetic
;; > apply "f" => trapped arithmetic
;; > apply "n" => trapped arithmetic
;; > apply "i" => trapped arithmetic
;; > apply "z" => trapped bad_call
;; > apply "t" => trapped bad_call
;; > apply "o" => trapped out_of_bounds
;; > apply "l" => trapped out_of_bounds
;; > apply "s" => trapped out_of_bounds
;; > apply "c" => trapped out_of_bounds
;; > apply "F" => trapped out_of_bounds
;; > apply "p" => trapped out_of_bounds
;; > apply "-" => trapped bad_status
;; > apply "+" => rejected
;; > query "u" => trapped unreachable
;; > query "z" => trapped bad_call
;; > query "-" => trapped bad_status
;; > apply "x" => ok "2"
(type $nothing (func))
(type $number (func (param i64) (result i64)))
(table 3 funcref)
(elem (i32.const 1) $number)
(data $text "text")
(global $count (mut i32) (i32.const 48))
(func $number (param i64) (result i64) (local.get 0))
(func (export "apply") (param i32) (result i32) (call $do))
(func (export "query") (param i32) (result i32) (call $do))
(func $do (result i32) (local $op i32) (local $nan f64)
  (global.set $count (i32.add (global.get $count) (i32.const 1)))
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (local.set $nan (f64.div (f64.const 0) (f64.const 0)))
  (if (i32.eq (local.get $op) (i32.const 117)) (then (unreachable)))
  (if (i32.eq (local.get $op) (i32.const 48)) (then (drop (i32.div_s (i32.const 1) (i32.const 0)))))
  (if (i32.eq (local.get $op) (i32.const 114)) (then (drop (i64.rem_u (i64.const 1) (i64.const 0)))))
  (if (i32.eq (local.get $op) (i32.const 109)) (then
    (drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))))
  (if (i32.eq (local.get $op) (i32.const 77)) (then
    (drop (i64.div_s (i64.const 0x8000000000000000) (i64.const -1)))))
  (if (i32.eq (local.get $op) (i32.const 102)) (then (drop (i32.trunc_f64_s (f64.const 1e300)))))
  (if (i32.eq (local.get $op) (i32.const 110)) (then (drop (i64.trunc_f64_u (local.get $nan)))))
  (if (i32.eq (local.get $op) (i32.const 105)) (then (drop (i32.trunc_f32_u (f32.const -inf)))))
  (if (i32.eq (local.get $op) (i32.const 122)) (then (call_indirect (type $nothing) (i32.const 0))))
  (if (i32.eq (local.get $op) (i32.const 116)) (then (call_indirect (type $nothing) (i32.const 1))))
  (if (i32.eq (local.get $op) (i32.const 111)) (then (call_indirect (type $nothing) (i32.const -1))))
  (if (i32.eq (local.get $op) (i32.const 108)) (then
    (drop (i64.load offset=0xffffffff (i32.const -1)))))
  (if (i32.eq (local.get $op) (i32.const 115)) (then (i32.store (i32.const 65533) (i32.const 1))))
  (if (i32.eq (local.get $op) (i32.const 99)) (then
    (memory.copy (i32.const 0) (i32.const 65530) (i32.const 7))))
  (if (i32.eq (local.get $op) (i32.const 70)) (then
    (memory.fill (i32.const -1) (i32.const 0) (i32.const 2))))
  (if (i32.eq (local.get $op) (i32.const 112)) (then
    (memory.init $text (i32.const 0) (i32.const 1) (i32.const 4))))
  (if (i32.eq (local.get $op) (i32.const 45)) (then (return (i32.const 0x80000000))))
  (if (i32.eq (local.get $op) (i32.const 43)) (then (return (i32.const 0x7fffffff))))
  (i32.store8 (i32.const 8) (global.get $count))
  (call $write (i32.const 8) (i32.const 1))
  (i32.const 0))
