;; Runaway recursion: direct, mutual, through a table, and in frames of many live values.
;;
;; > upgrade => active
;; > apply "d" => trapped stack_overflow
;; > apply "m" => trapped stack_overflow
;; > apply "i" => trapped stack_overflow
;; > apply "l" => trapped stack_overflow
;; > query "d" => trapped stack_overflow
;; > apply "x" => ok
(type $number (func (param i32) (result i32)))
(table 1 funcref)
(elem (i32.const 0) $indirect)
(func $direct (param i32) (result i32)
  (i32.add (call $direct (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
(func $even (param i32) (result i32)
  (i32.add (call $odd (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
(func $odd (param i32) (result i32)
  (i32.add (call $even (i32.add (local.get 0) (i32.const 1))) (i32.const 2)))
(func $indirect (param i32) (result i32)
  (i32.add (call_indirect (type $number) (local.get 0) (i32.const 0)) (i32.const 1)))
(func $large (param v128 v128 v128 v128 v128 v128 v128 v128) (result v128)
  (i64x2.add (local.get 0) (i64x2.add (local.get 1) (i64x2.add (local.get 2)
    (i64x2.add (local.get 3) (i64x2.add (local.get 4) (i64x2.add (local.get 5)
    (i64x2.add (local.get 6) (i64x2.add (local.get 7)
      (call $large (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)
        (local.get 6) (local.get 7) (local.get 0)))))))))))
(func (export "apply") (param i32) (result i32) (call $do))
(func (export "query") (param i32) (result i32) (call $do))
(func $do (result i32) (local $op i32) (local $zero v128)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 100)) (then (drop (call $direct (i32.const 0)))))
  (if (i32.eq (local.get $op) (i32.const 109)) (then (drop (call $even (i32.const 0)))))
  (if (i32.eq (local.get $op) (i32.const 105)) (then (drop (call $indirect (i32.const 0)))))
  (if (i32.eq (local.get $op) (i32.const 108)) (then
    (drop (call $large (local.get $zero) (local.get $zero) (local.get $zero) (local.get $zero)
      (local.get $zero) (local.get $zero) (local.get $zero) (local.get $zero)))))
  (i32.const 0))
