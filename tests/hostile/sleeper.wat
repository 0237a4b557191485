;; Sleeps for years, several times, and longer than there are nanoseconds. No time passes but the
;; guest's: `y` answers whether its clock has moved by more than a century and never went back.
;;
;; > upgrade => active
;; > apply "" => ok "y"
;; > query "" => ok "y"
;; > apply "" => ok "y"
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1)
  ;; 0: a subscription. 64: an event. 128: the clock. 136: the clock before.
  (func $sleep (param $ns i64)
    (i64.store (i32.const 24) (local.get $ns))
    (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 120)) (then (unreachable)))
    (if (i32.ne (i32.load (i32.const 120)) (i32.const 1)) (then (unreachable)))
    (i64.store (i32.const 136) (i64.load (i32.const 128)))
    (call $now)
    (if (i64.lt_u (i64.load (i32.const 128)) (i64.load (i32.const 136))) (then (unreachable))))
  (func $now
    (if (call $clock (i32.const 0) (i64.const 1) (i32.const 128)) (then (unreachable)))
    (if (i64.eqz (i64.load (i32.const 128))) (then (unreachable))))
  (func $do (result i32) (local $before i64)
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 256))
    (call $now)
    (local.set $before (i64.load (i32.const 128)))
    (call $sleep (i64.const 3600000000000000000))
    (if (i64.lt_u (i64.sub (i64.load (i32.const 128)) (local.get $before))
                  (i64.const 3600000000000000000)) (then (unreachable)))
    (call $sleep (i64.const -1))
    (call $sleep (i64.const -1))
    (call $sleep (i64.const 1))
    (i32.store8 (i32.const 0) (i32.const 121))
    (call $write (i32.const 0) (i32.const 1))
    (i32.const 0))
  (func (export "apply") (param i32) (result i32) (call $do))
  (func (export "query") (param i32) (result i32) (call $do))
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0)))
