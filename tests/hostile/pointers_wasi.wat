;; Pointers and lengths out of bounds to every function of WASI that takes some. The memory has one
;; page; at 64 lies a list with a bad buffer, at 80 one with a good one.
;;
;; > upgrade => active
;; > apply "!" => trapped bad_host_call
;; > apply "#" => trapped bad_host_call
;; > apply "$" => trapped bad_host_call
;; > apply "%" => trapped bad_host_call
;; > apply "&" => ok
;; > apply "'" => ok
;; > apply "(" => trapped bad_host_call
;; > apply ")" => ok
;; > apply "*" => trapped bad_host_call
;; > apply "+" => ok
;; > apply "," => trapped bad_host_call
;; > apply "-" => trapped bad_host_call
;; > apply "." => ok
;; > apply "/" => trapped bad_host_call
;; > apply "0" => trapped bad_host_call
;; > apply "1" => trapped bad_host_call
;; > apply "2" => trapped bad_host_call
;; > apply "3" => ok
;; > apply "4" => ok
;; > apply "5" => trapped bad_host_call
;; > apply "6" => trapped bad_host_call
;; > apply "7" => trapped bad_host_call
;; > apply "8" => trapped bad_host_call
;; > apply "9" => trapped bad_host_call
;; > apply ":" => trapped bad_host_call
;; > apply ";" => ok
(module
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_res_get" (func $clock_res_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (func (export "raft_fsm_abi_v1"))
  (memory (export "memory") 1)
  (data (i32.const 64) "\f0\ff\ff\ff\20\00\00\00")
  (data (i32.const 80) "\00\00\00\00\10\00\00\00")
  (func (export "snapshot") (result i32) (i32.const 0))
  (func (export "restore") (param i32) (result i32) (i32.const 0))
  (func (export "apply") (param i32) (result i32) (local $op i32)
    (drop (call $read (i32.const 0) (i32.const 1)))
    (local.set $op (i32.load8_u (i32.const 0)))
    (if (i32.eq (local.get $op) (i32.const 33)) (then (drop (call $args_sizes_get (i32.const 0xfffffff0) (i32.const 0)))))  ;; args_sizes_get: first pointer
    (if (i32.eq (local.get $op) (i32.const 35)) (then (drop (call $args_sizes_get (i32.const 0) (i32.const 0xffff)))))  ;; args_sizes_get: second pointer
    (if (i32.eq (local.get $op) (i32.const 36)) (then (drop (call $environ_sizes_get (i32.const 0xfffffff0) (i32.const 0)))))  ;; environ_sizes_get: first pointer
    (if (i32.eq (local.get $op) (i32.const 37)) (then (drop (call $environ_sizes_get (i32.const 0) (i32.const 0xffff)))))  ;; environ_sizes_get: second pointer
    (if (i32.eq (local.get $op) (i32.const 38)) (then (drop (call $args_get (i32.const 0xfffffff0) (i32.const 0xfffffff0)))))  ;; args_get: writes nothing
    (if (i32.eq (local.get $op) (i32.const 39)) (then (drop (call $environ_get (i32.const 0xfffffff0) (i32.const 0xfffffff0)))))  ;; environ_get: writes nothing
    (if (i32.eq (local.get $op) (i32.const 40)) (then (drop (call $clock_res_get (i32.const 0) (i32.const 0xfffffff0)))))  ;; clock_res_get: pointer
    (if (i32.eq (local.get $op) (i32.const 41)) (then (drop (call $clock_res_get (i32.const 99) (i32.const 0xfffffff0)))))  ;; clock_res_get: a clock that is none
    (if (i32.eq (local.get $op) (i32.const 42)) (then (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0xffff)))))  ;; clock_time_get: pointer across the end
    (if (i32.eq (local.get $op) (i32.const 43)) (then (drop (call $clock_time_get (i32.const -1) (i64.const -1) (i32.const 0xfffffff0)))))  ;; clock_time_get: a clock that is none
    (if (i32.eq (local.get $op) (i32.const 44)) (then (drop (call $random_get (i32.const 0xfffffff0) (i32.const 0x20)))))  ;; random_get: wrapping around
    (if (i32.eq (local.get $op) (i32.const 45)) (then (drop (call $random_get (i32.const 0) (i32.const -1)))))  ;; random_get: everything
    (if (i32.eq (local.get $op) (i32.const 46)) (then (drop (call $random_get (i32.const 0xfffffff0) (i32.const 0)))))  ;; random_get: nothing
    (if (i32.eq (local.get $op) (i32.const 47)) (then (drop (call $fd_write (i32.const 1) (i32.const 0xfffffff0) (i32.const 1) (i32.const 0)))))  ;; fd_write: the list
    (if (i32.eq (local.get $op) (i32.const 48)) (then (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0)))))  ;; fd_write: a list of four billion
    (if (i32.eq (local.get $op) (i32.const 49)) (then (drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0)))))  ;; fd_write: a buffer in the list
    (if (i32.eq (local.get $op) (i32.const 50)) (then (drop (call $fd_write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 0xfffffff0)))))  ;; fd_write: where to tell the number
    (if (i32.eq (local.get $op) (i32.const 51)) (then (drop (call $fd_write (i32.const 7) (i32.const 64) (i32.const 1) (i32.const 0)))))  ;; fd_write: a descriptor that is none
    (if (i32.eq (local.get $op) (i32.const 52)) (then (drop (call $fd_write (i32.const 1) (i32.const 0x1000) (i32.const 0x1000) (i32.const 0)))))  ;; fd_write: thousands of empty buffers
    (if (i32.eq (local.get $op) (i32.const 53)) (then (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0xfffffff0)))))  ;; fd_read: where to tell the number
    (if (i32.eq (local.get $op) (i32.const 54)) (then (drop (call $fd_fdstat_get (i32.const 1) (i32.const 0xffff)))))  ;; fd_fdstat_get: pointer
    (if (i32.eq (local.get $op) (i32.const 55)) (then (drop (call $poll_oneoff (i32.const 0xfffffff0) (i32.const 0) (i32.const 1) (i32.const 0)))))  ;; poll_oneoff: subscriptions
    (if (i32.eq (local.get $op) (i32.const 56)) (then (drop (call $poll_oneoff (i32.const 0) (i32.const 0xfffffff0) (i32.const 1) (i32.const 0)))))  ;; poll_oneoff: events
    (if (i32.eq (local.get $op) (i32.const 57)) (then (drop (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)))))  ;; poll_oneoff: four billion
    (if (i32.eq (local.get $op) (i32.const 58)) (then (drop (call $poll_oneoff (i32.const 0x100) (i32.const 0x200) (i32.const 1) (i32.const 0xfffffff0)))))  ;; poll_oneoff: where to tell the number
    (if (i32.eq (local.get $op) (i32.const 59)) (then (drop (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))  ;; poll_oneoff: none at all
    (i32.const 0)))
