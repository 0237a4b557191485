;; A counter in 150 lines of WebAssembly text: the whole guest ABI without a compiler.
;;
;; Commands are decimal numbers, such as `5` or `-3`, which are added. Answers and queries
;; give the sum. `README.md` is the user's page.
(module
  (import "raft_fsm_v1" "read" (func $read (param $ptr i32) (param $cap i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param $ptr i32) (param $len i32)))

  ;; 0..64: input, 64..96: decimal output (written from its end), 128..: constants.
  (memory (export "memory") 1 1)
  (data (i32.const 128) "CNT1")
  (data (i32.const 132) "a command is a decimal number of at most 18 digits, such as 5 or -3")
  (data (i32.const 256) "the counter would overflow")
  (data (i32.const 320) "this is no snapshot of the counter plugin")

  (global $count (mut i64) (i64.const 0))

  ;; Marks version 1 of the ABI. Never called.
  (func (export "raft_fsm_abi_v1"))

  (func (export "apply") (param $len i32) (result i32)
    (local $number i64)
    (local $sum i64)
    (local $at i32)
    (local $digit i32)
    (local $negative i32)
    ;; Too long to be a sign and 18 digits, and perhaps too long for the buffer.
    (if (i32.gt_u (local.get $len) (i32.const 19)) (then (return (call $malformed))))
    (drop (call $read (i32.const 0) (i32.const 64)))
    (if (i32.and (i32.gt_u (local.get $len) (i32.const 0))
                 (i32.eq (i32.load8_u (i32.const 0)) (i32.const 45 (; '-' ;))))
      (then
        (local.set $negative (i32.const 1))
        (local.set $at (i32.const 1))))
    ;; At least one digit and at most 18, which cannot overflow.
    (if (i32.gt_u (i32.sub (i32.sub (local.get $len) (local.get $at)) (i32.const 1))
                  (i32.const 17))
      (then (return (call $malformed))))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48 (; '0' ;))))
      (if (i32.gt_u (local.get $digit) (i32.const 9)) (then (return (call $malformed))))
      (local.set $number
        (i64.add (i64.mul (local.get $number) (i64.const 10))
                 (i64.extend_i32_u (local.get $digit))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $len))))
    (if (local.get $negative)
      (then (local.set $number (i64.sub (i64.const 0) (local.get $number)))))
    (local.set $sum (i64.add (global.get $count) (local.get $number)))
    ;; The sum overflowed if its sign differs from the signs of both operands.
    (if (i64.lt_s (i64.and (i64.xor (local.get $sum) (global.get $count))
                           (i64.xor (local.get $sum) (local.get $number)))
                  (i64.const 0))
      (then
        (call $write (i32.const 256) (i32.const 26))
        (return (i32.const 1))))
    (global.set $count (local.get $sum))
    (call $write_count)
    (i32.const 0))

  (func (export "query") (param $len i32) (result i32)
    (if (local.get $len) (then (return (call $malformed_query))))
    (call $write_count)
    (i32.const 0))

  ;; Magic and the number, little-endian.
  (func (export "snapshot") (result i32)
    (i64.store (i32.const 64) (global.get $count))
    (call $write (i32.const 128) (i32.const 4))
    (call $write (i32.const 64) (i32.const 8))
    (i32.const 0))

  (func (export "restore") (param $len i32) (result i32)
    (if (i32.eq (local.get $len) (i32.const 12))
      (then
        (drop (call $read (i32.const 0) (i32.const 12)))
        (if (i32.eq (i32.load (i32.const 0)) (i32.load (i32.const 128)))
          (then
            (global.set $count (i64.load (i32.const 4)))
            (return (i32.const 0))))))
    (call $write (i32.const 320) (i32.const 41))
    (i32.const 1))

  (func $malformed (result i32)
    (call $write (i32.const 132) (i32.const 67))
    (i32.const 1))

  (data (i32.const 384) "a query of the counter is empty")
  (func $malformed_query (result i32)
    (call $write (i32.const 384) (i32.const 31))
    (i32.const 1))

  ;; Writes the count in decimal.
  (func $write_count
    (local $left i64)
    (local $at i32)
    (local.set $at (i32.const 96))
    (local.set $left (global.get $count))
    (if (i64.lt_s (local.get $left) (i64.const 0))
      (then (local.set $left (i64.sub (i64.const 0) (local.get $left)))))
    ;; Unsigned from here on: the magnitude of the least number has no signed form.
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $left) (i64.const 10)))))
      (local.set $left (i64.div_u (local.get $left) (i64.const 10)))
      (br_if $next (i64.ne (local.get $left) (i64.const 0))))
    (if (i64.lt_s (global.get $count) (i64.const 0))
      (then
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at) (i32.const 45 (; '-' ;)))))
    (call $write (local.get $at) (i32.sub (i32.const 96) (local.get $at)))))
