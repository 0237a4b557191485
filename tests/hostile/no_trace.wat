;; Changes everything that it can reach, and then traps: memory, its size, globals of every type.
;; `x` answers a digest of it all, which never changes.
;;
;; > upgrade => active
;; > apply "x" => ok "AAAA1"
;; > apply "t" => trapped unreachable
;; > apply "x" => ok "AAAA1"
;; > query "t" => trapped unreachable
;; > query "s" => ok
;; > apply "x" => ok "AAAA1"
;; > apply "t" => trapped unreachable
;; > apply "t" => trapped unreachable
;; > snapshot
;; > restart
;; > apply "x" => ok "AAAA1"
(global $a (mut i32) (i32.const 65))
(global $b (mut i64) (i64.const 65))
(global $c (mut f64) (f64.const 65))
(global $d (mut v128) (v128.const i32x4 65 0 0 0))
(func $spoil
  (global.set $a (i32.const 90)) (global.set $b (i64.const 90)) (global.set $c (f64.const 90))
  (global.set $d (v128.const i32x4 90 0 0 0))
  (drop (memory.grow (i32.const 3)))
  (memory.fill (i32.const 0) (i32.const 90) (i32.const 262144)))
(func (export "apply") (param i32) (result i32) (call $do))
(func (export "query") (param i32) (result i32) (call $do))
(func $do (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 116)) (then (call $spoil) (unreachable)))
  (if (i32.eq (local.get $op) (i32.const 115)) (then (call $spoil) (return (i32.const 0))))
  (i32.store8 (i32.const 16) (global.get $a))
  (i32.store8 (i32.const 17) (i32.wrap_i64 (global.get $b)))
  (i32.store8 (i32.const 18) (i32.trunc_f64_s (global.get $c)))
  (i32.store8 (i32.const 19) (i32x4.extract_lane 0 (global.get $d)))
  (i32.store8 (i32.const 20) (i32.add (i32.const 48) (memory.size)))
  (call $write (i32.const 16) (i32.const 5))
  (i32.const 0))
