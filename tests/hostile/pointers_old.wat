;; Reads the memory of another instance where there is none, within and out of bounds of its own.
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
;; > apply "*" => ok
(func (export "apply") (param i32) (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 33)) (then (call $old_memory (i64.const 0) (i32.const 0) (i32.const 1))))  ;; the first byte
  (if (i32.eq (local.get $op) (i32.const 35)) (then (call $old_memory (i64.const -1) (i32.const 0) (i32.const 2))))  ;; wrapping around
  (if (i32.eq (local.get $op) (i32.const 36)) (then (call $old_memory (i64.const 0) (i32.const 0xffff) (i32.const 2))))  ;; across the own end
  (if (i32.eq (local.get $op) (i32.const 37)) (then (call $old_memory (i64.const -1) (i32.const -1) (i32.const -1))))  ;; everything
  (if (i32.eq (local.get $op) (i32.const 38)) (then (drop (call $old_global (i32.const 0) (i32.const 0xfff1)))))  ;; across the own end
  (if (i32.eq (local.get $op) (i32.const 39)) (then (drop (call $old_global (i32.const -1) (i32.const -1)))))  ;; wrapping around
  (if (i32.eq (local.get $op) (i32.const 40)) (then (call $old_memory (i64.const -1) (i32.const -1) (i32.const 0))))  ;; nothing, far away
  (if (i32.eq (local.get $op) (i32.const 41)) (then
    (if (i32.ne (call $old_global (i32.const -1) (i32.const 0xfff0)) (i32.const -1)) (then (unreachable)))))  ;; none
  (if (i32.eq (local.get $op) (i32.const 42)) (then
    (if (i64.ne (call $old_memory_size) (i64.const 0)) (then (unreachable)))))
  (i32.const 0))
