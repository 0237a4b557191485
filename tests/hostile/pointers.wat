;; Pointers and lengths out of bounds to every import of the ABI, and zero lengths, which are good
;; anywhere. The memory has one page.
;;
;; > upgrade => active
;; > apply "!" => trapped bad_host_call
;; > apply "#" => trapped bad_host_call
;; > apply "$" => trapped bad_host_call
;; > apply "%" => trapped bad_host_call
;; > apply "&" => trapped bad_host_call
;; > apply "'" => trapped bad_host_call
;; > apply "(" => ok
;; > apply ")" => trapped bad_host_call
;; > apply "*" => trapped bad_host_call
;; > apply "+" => trapped bad_host_call
;; > apply "," => trapped bad_host_call
;; > apply "-" => trapped bad_host_call
;; > apply "." => trapped bad_host_call
;; > apply "/" => ok
;; > apply "0" => trapped bad_host_call
;; > apply "1" => trapped bad_host_call
;; > apply "2" => trapped bad_host_call
;; > apply "3" => trapped bad_host_call
;; > apply "4" => trapped bad_host_call
;; > apply "5" => trapped bad_host_call
;; > apply "6" => ok
;; > apply "7" => trapped bad_host_call
;; > apply "8" => trapped bad_host_call
;; > apply "9" => trapped bad_host_call
;; > apply ":" => trapped bad_host_call
;; > apply ";" => trapped bad_host_call
;; > apply "<" => trapped bad_host_call
;; > apply "=" => ok
;; > apply ">" => trapped bad_host_call
;; > apply "?" => trapped bad_host_call
;; > apply "@" => trapped bad_host_call
;; > apply "A" => trapped bad_host_call
;; > apply "B" => trapped bad_host_call
;; > apply "C" => trapped bad_host_call
;; > apply "D" => ok
;; > apply "E" => trapped bad_host_call
;; > apply "F" => trapped bad_host_call
;; > apply "G" => trapped bad_host_call
;; > apply "H" => trapped bad_host_call
;; > apply "I" => trapped bad_host_call
;; > apply "J" => trapped bad_host_call
;; > apply "K" => ok
(func (export "apply") (param i32) (result i32) (local $op i32)
  (drop (call $read (i32.const 0) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 0)))
  (if (i32.eq (local.get $op) (i32.const 33)) (then (drop (call $read (i32.const 0x10000) (i32.const 1)))))  ;; read: past the end
  (if (i32.eq (local.get $op) (i32.const 35)) (then (drop (call $read (i32.const 0xffff) (i32.const 2)))))  ;; read: across the end
  (if (i32.eq (local.get $op) (i32.const 36)) (then (drop (call $read (i32.const 0xffffffff) (i32.const 2)))))  ;; read: wrapping around
  (if (i32.eq (local.get $op) (i32.const 37)) (then (drop (call $read (i32.const 0) (i32.const 0xffffffff)))))  ;; read: everything
  (if (i32.eq (local.get $op) (i32.const 38)) (then (drop (call $read (i32.const 0x7fffffff) (i32.const 0x7fffffff)))))  ;; read: far
  (if (i32.eq (local.get $op) (i32.const 39)) (then (drop (call $read (i32.const 0) (i32.const 0x10001)))))  ;; read: just one too many
  (if (i32.eq (local.get $op) (i32.const 40)) (then (drop (call $read (i32.const 0xffffffff) (i32.const 0)))))  ;; read: nothing, far away
  (if (i32.eq (local.get $op) (i32.const 41)) (then (call $write (i32.const 0x10000) (i32.const 1))))  ;; write: past the end
  (if (i32.eq (local.get $op) (i32.const 42)) (then (call $write (i32.const 0xffff) (i32.const 2))))  ;; write: across the end
  (if (i32.eq (local.get $op) (i32.const 43)) (then (call $write (i32.const 0xffffffff) (i32.const 2))))  ;; write: wrapping around
  (if (i32.eq (local.get $op) (i32.const 44)) (then (call $write (i32.const 0) (i32.const 0xffffffff))))  ;; write: everything
  (if (i32.eq (local.get $op) (i32.const 45)) (then (call $write (i32.const 0x7fffffff) (i32.const 0x7fffffff))))  ;; write: far
  (if (i32.eq (local.get $op) (i32.const 46)) (then (call $write (i32.const 0) (i32.const 0x10001))))  ;; write: just one too many
  (if (i32.eq (local.get $op) (i32.const 47)) (then (call $write (i32.const 0xffffffff) (i32.const 0))))  ;; write: nothing, far away
  (if (i32.eq (local.get $op) (i32.const 48)) (then (call $random (i32.const 0x10000) (i32.const 1))))  ;; random: past the end
  (if (i32.eq (local.get $op) (i32.const 49)) (then (call $random (i32.const 0xffff) (i32.const 2))))  ;; random: across the end
  (if (i32.eq (local.get $op) (i32.const 50)) (then (call $random (i32.const 0xffffffff) (i32.const 2))))  ;; random: wrapping around
  (if (i32.eq (local.get $op) (i32.const 51)) (then (call $random (i32.const 0) (i32.const 0xffffffff))))  ;; random: everything
  (if (i32.eq (local.get $op) (i32.const 52)) (then (call $random (i32.const 0x7fffffff) (i32.const 0x7fffffff))))  ;; random: far
  (if (i32.eq (local.get $op) (i32.const 53)) (then (call $random (i32.const 0) (i32.const 0x10001))))  ;; random: just one too many
  (if (i32.eq (local.get $op) (i32.const 54)) (then (call $random (i32.const 0xffffffff) (i32.const 0))))  ;; random: nothing, far away
  (if (i32.eq (local.get $op) (i32.const 55)) (then (call $log (i32.const 3) (i32.const 0x10000) (i32.const 1))))  ;; log: past the end
  (if (i32.eq (local.get $op) (i32.const 56)) (then (call $log (i32.const 3) (i32.const 0xffff) (i32.const 2))))  ;; log: across the end
  (if (i32.eq (local.get $op) (i32.const 57)) (then (call $log (i32.const 3) (i32.const 0xffffffff) (i32.const 2))))  ;; log: wrapping around
  (if (i32.eq (local.get $op) (i32.const 58)) (then (call $log (i32.const 3) (i32.const 0) (i32.const 0xffffffff))))  ;; log: everything
  (if (i32.eq (local.get $op) (i32.const 59)) (then (call $log (i32.const 3) (i32.const 0x7fffffff) (i32.const 0x7fffffff))))  ;; log: far
  (if (i32.eq (local.get $op) (i32.const 60)) (then (call $log (i32.const 3) (i32.const 0) (i32.const 0x10001))))  ;; log: just one too many
  (if (i32.eq (local.get $op) (i32.const 61)) (then (call $log (i32.const 3) (i32.const 0xffffffff) (i32.const 0))))  ;; log: nothing, far away
  (if (i32.eq (local.get $op) (i32.const 62)) (then (call $emit (i32.const 0x10000) (i32.const 1) (i32.const 0) (i32.const 0))))  ;; emit topic: past the end
  (if (i32.eq (local.get $op) (i32.const 63)) (then (call $emit (i32.const 0xffff) (i32.const 2) (i32.const 0) (i32.const 0))))  ;; emit topic: across the end
  (if (i32.eq (local.get $op) (i32.const 64)) (then (call $emit (i32.const 0xffffffff) (i32.const 2) (i32.const 0) (i32.const 0))))  ;; emit topic: wrapping around
  (if (i32.eq (local.get $op) (i32.const 65)) (then (call $emit (i32.const 0) (i32.const 0xffffffff) (i32.const 0) (i32.const 0))))  ;; emit topic: everything
  (if (i32.eq (local.get $op) (i32.const 66)) (then (call $emit (i32.const 0x7fffffff) (i32.const 0x7fffffff) (i32.const 0) (i32.const 0))))  ;; emit topic: far
  (if (i32.eq (local.get $op) (i32.const 67)) (then (call $emit (i32.const 0) (i32.const 0x10001) (i32.const 0) (i32.const 0))))  ;; emit topic: just one too many
  (if (i32.eq (local.get $op) (i32.const 68)) (then (call $emit (i32.const 0xffffffff) (i32.const 0) (i32.const 0) (i32.const 0))))  ;; emit topic: nothing, far away
  (if (i32.eq (local.get $op) (i32.const 69)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0x10000) (i32.const 1))))  ;; emit data: past the end
  (if (i32.eq (local.get $op) (i32.const 70)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0xffff) (i32.const 2))))  ;; emit data: across the end
  (if (i32.eq (local.get $op) (i32.const 71)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0xffffffff) (i32.const 2))))  ;; emit data: wrapping around
  (if (i32.eq (local.get $op) (i32.const 72)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0xffffffff))))  ;; emit data: everything
  (if (i32.eq (local.get $op) (i32.const 73)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0x7fffffff) (i32.const 0x7fffffff))))  ;; emit data: far
  (if (i32.eq (local.get $op) (i32.const 74)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x10001))))  ;; emit data: just one too many
  (if (i32.eq (local.get $op) (i32.const 75)) (then (call $emit (i32.const 0) (i32.const 0) (i32.const 0xffffffff) (i32.const 0))))  ;; emit data: nothing, far away
  (i32.const 0))
