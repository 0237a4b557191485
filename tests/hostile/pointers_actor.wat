;; Pointers and lengths out of bounds to the import that names the actor, although nobody is known, and
;; nothing would be copied. The memory has one page.
;;
;; > upgrade => active
;; > apply "!" => trapped bad_host_call
;; > apply "#" => trapped bad_host_call
;; > apply "$" => trapped bad_host_call
;; > apply "%" => trapped bad_host_call
;; > apply "&" => trapped bad_host_call
;; > apply "'" => trapped bad_host_call
;; > apply "(" => ok
;; > apply ")" => ok
(func (export "apply") (param i32) (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 33)) (then (drop (call $actor (i32.const 0x10000) (i32.const 1)))))  ;; past the end
  (if (i32.eq (local.get $op) (i32.const 35)) (then (drop (call $actor (i32.const 0xffff) (i32.const 2)))))  ;; across the end
  (if (i32.eq (local.get $op) (i32.const 36)) (then (drop (call $actor (i32.const 0xffffffff) (i32.const 2)))))  ;; wrapping around
  (if (i32.eq (local.get $op) (i32.const 37)) (then (drop (call $actor (i32.const 0) (i32.const 0xffffffff)))))  ;; everything
  (if (i32.eq (local.get $op) (i32.const 38)) (then (drop (call $actor (i32.const 0x7fffffff) (i32.const 0x7fffffff)))))  ;; far
  (if (i32.eq (local.get $op) (i32.const 39)) (then (drop (call $actor (i32.const 0) (i32.const 0x10001)))))  ;; just one too many
  (if (i32.eq (local.get $op) (i32.const 40)) (then (drop (call $actor (i32.const 0xffffffff) (i32.const 0)))))  ;; nothing, far away
  (if (i32.eq (local.get $op) (i32.const 41)) (then (drop (call $actor (i32.const 0xffff) (i32.const 1)))))  ;; the last byte
  (i32.const 0))
