;; The simulator's own guest: 32 registers, and commands that do what guests should not.
;;
;; A command is one byte that says what to do, one byte that names a register, and numbers
;; (i64, little-endian). An answer is the register: one byte (whether it is set), its value,
;; and what this version of the module answers otherwise than others, which the host's side of
;; the simulator writes over the `V` below; over the `N` it writes which version it is. What an image and a snapshot must hold is spread over memory, a mutable global
;; that is not exported, and the size of the memory.
(module
  (import "raft_fsm_v1" "read" (func $read (param $ptr i32) (param $cap i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param $ptr i32) (param $len i32)))
  (import "raft_fsm_v1" "time_ms" (func $time_ms (result i64)))
  (import "raft_fsm_v1" "random" (func $random (param $ptr i32) (param $len i32)))
  (import "raft_fsm_v1" "emit"
    (func $emit (param $topic i32) (param $topic_len i32) (param $ptr i32) (param $len i32)))

  ;; 0..64: input. 64..80: answer. 128: what answers end with. 144: version. 256: "SIM1". 1024..: the state that a snapshot
  ;; holds: clock, random, count, pages, then the registers (set i64, value i64).
  (memory (export "memory") 1 24)
  (data (i32.const 128) "V")
  (data (i32.const 144) "N")
  (data (i32.const 192) "no such command, or not enough memory")
  (data (i32.const 256) "SIM1")

  (global $count (mut i64) (i64.const 0))

  (func (export "raft_fsm_abi_v1"))

  (func $register (param $key i32) (result i32)
    (i32.add (i32.const 1056)
      (i32.mul (i32.and (local.get $key) (i32.const 31)) (i32.const 16))))

  (func $answer (param $set i64) (param $value i64) (result i32)
    (i64.store8 (i32.const 64) (local.get $set))
    (i64.store (i32.const 65) (local.get $value))
    (i32.store8 (i32.const 73) (i32.load8_u (i32.const 128)))
    (call $write (i32.const 64) (i32.const 10))
    (i32.const 0))

  (func $set (param $register i32) (param $value i64)
    (i64.store (local.get $register) (i64.const 1))
    (i64.store offset=8 (local.get $register) (local.get $value)))

  ;; Whatever undoing a trap has to undo.
  (func $spoil (param $register i32)
    (call $set (local.get $register) (i64.const -7))
    (global.set $count (i64.add (global.get $count) (i64.const 1000000)))
    (drop (memory.grow (i32.const 1)))
    (i32.store (i32.const 65000) (i32.const 77))
    (call $emit (i32.const 256) (i32.const 4) (i32.const 0) (i32.const 4)))

  (func (export "apply") (param $len i32) (result i32)
    (local $register i32)
    (local $op i32)
    (local $value i64)
    (if (i32.or (i32.gt_u (local.get $len) (i32.const 64)) (i32.lt_u (local.get $len) (i32.const 2)))
      (then (return (call $reject))))
    (drop (call $read (i32.const 0) (i32.const 64)))
    (local.set $op (i32.load8_u (i32.const 0)))
    (local.set $register (call $register (i32.load8_u (i32.const 1))))
    (local.set $value (i64.load (i32.const 2)))
    ;; 9: refuse, changing nothing
    (if (i32.eq (local.get $op) (i32.const 9)) (then (return (call $reject))))
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    ;; 1: set
    (if (i32.eq (local.get $op) (i32.const 1))
      (then
        (call $set (local.get $register) (local.get $value))
        (call $emit (i32.const 256) (i32.const 4) (i32.const 1) (i32.const 9))
        (return (call $answer (i64.const 1) (local.get $value)))))
    ;; 2: delete; answers whether it was set
    (if (i32.eq (local.get $op) (i32.const 2))
      (then
        (local.set $value (i64.load (local.get $register)))
        (i64.store (local.get $register) (i64.const 0))
        (i64.store offset=8 (local.get $register) (i64.const 0))
        (return (call $answer (local.get $value) (i64.const 0)))))
    ;; 3: compare and set: expected set (as i64), expected value, new value
    (if (i32.eq (local.get $op) (i32.const 3))
      (then
        (if (i32.and
              (i64.eq (i64.load (local.get $register)) (local.get $value))
              (i64.eq (i64.load offset=8 (local.get $register)) (i64.load (i32.const 10))))
          (then
            (call $set (local.get $register) (i64.load (i32.const 18)))
            (return (call $answer (i64.const 1) (i64.const 0)))))
        (return (call $answer (i64.const 0) (i64.const 0)))))
    ;; 4: add
    (if (i32.eq (local.get $op) (i32.const 4))
      (then
        (local.set $value (i64.add (i64.load offset=8 (local.get $register)) (local.get $value)))
        (call $set (local.get $register) (local.get $value))
        (return (call $answer (i64.const 1) (local.get $value)))))
    ;; 5: read
    (if (i32.eq (local.get $op) (i32.const 5))
      (then
        (return (call $answer (i64.load (local.get $register))
                              (i64.load offset=8 (local.get $register))))))
    ;; 6: spoil what there is, then trap
    (if (i32.eq (local.get $op) (i32.const 6))
      (then (call $spoil (local.get $register)) (unreachable)))
    ;; 7: spoil what there is, then run out of fuel
    (if (i32.eq (local.get $op) (i32.const 7))
      (then (call $spoil (local.get $register)) (loop $forever (br $forever))))
    ;; 8: grow the memory, and write where it was not before
    (if (i32.eq (local.get $op) (i32.const 8))
      (then
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1))
          (then (return (call $answer (i64.const 0) (i64.extend_i32_u (memory.size))))))
        (i64.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 16))
                   (global.get $count))
        (return (call $answer (i64.const 1) (i64.extend_i32_u (memory.size))))))
    ;; 10: note the time
    (if (i32.eq (local.get $op) (i32.const 10))
      (then
        (i64.store (i32.const 1024) (call $time_ms))
        (return (call $answer (i64.const 1) (i64.load (i32.const 1024))))))
    ;; 11: note something random
    (if (i32.eq (local.get $op) (i32.const 11))
      (then
        (call $random (i32.const 1032) (i32.const 8))
        (return (call $answer (i64.const 1) (i64.load (i32.const 1032))))))
    (call $reject))

  (func $reject (result i32)
    (call $write (i32.const 192) (i32.const 37))
    (i32.const 1))

  ;; One byte: the register. It writes to memory, which must not show.
  (func (export "query") (param $len i32) (result i32)
    (local $register i32)
    (drop (call $read (i32.const 0) (i32.const 64)))
    (local.set $register (call $register (i32.load8_u (i32.const 0))))
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (call $answer (i64.load (local.get $register)) (i64.load offset=8 (local.get $register))))

  (func (export "snapshot") (result i32)
    (i64.store (i32.const 1040) (global.get $count))
    (i64.store (i32.const 1048) (i64.extend_i32_u (memory.size)))
    (call $write (i32.const 256) (i32.const 4))
    (call $write (i32.const 1024) (i32.const 544))
    (i32.const 0))

  (func (export "restore") (param $len i32) (result i32)
    (if (i32.ne (local.get $len) (i32.const 548)) (then (return (call $reject))))
    (drop (call $read (i32.const 0) (i32.const 4)))
    (if (i32.ne (i32.load (i32.const 0)) (i32.load (i32.const 256)))
      (then (return (call $reject))))
    (drop (call $read (i32.const 1024) (i32.const 544)))
    (global.set $count (i64.load (i32.const 1040)))
    (drop (memory.grow (i32.sub (i32.wrap_i64 (i64.load (i32.const 1048))) (memory.size))))
    (i32.const 0)))
