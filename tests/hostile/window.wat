;; A window whose guest writes into its first eight bytes whatever it likes. What they name when the call
;; returns is the output, or a fault of the guest. The memory has one page, and the window is the end of it.
;;
;; > upgrade => active
;; > apply "!nothing" => ok ""
;; > apply "0itself" => ok "itself"
;; > apply "#past the end" => trapped bad_host_call
;; > apply "$across the end" => trapped bad_host_call
;; > apply "%wrapping around" => trapped bad_host_call
;; > apply "&everything" => trapped bad_host_call
;; > apply "'far, but nothing" => ok ""
;; > apply "(just one too many" => trapped bad_host_call
;; > apply ")all of the memory" => ok
;; > apply "*named, then trapped" => trapped unreachable
;; > apply "!nothing" => ok ""
;; > apply "+named, with a bad status" => trapped bad_status
;; > apply "!nothing" => ok ""
;; > apply ",named, and rejected" => rejected "named, and rejected"
;; > apply "-no longer in the window" => trapped bad_host_call
;; > apply "/nothing was read" => ok ""
;; > query "0itself" => ok "itself"
;; > query "#past the end" => trapped bad_host_call
;; > query ")all of the memory" => ok
;; > apply ".past the end of memory that has grown" => ok
;; > query "#past what was the end" => ok
;; > snapshot
;; > restart
;; > apply "!nothing" => ok ""
(global (export "raft_fsm_window") i32 (i32.const 0xf000))
(func $name (param $ptr i32) (param $len i32)
  (i32.store (i32.const 0xf000) (local.get $ptr))
  (i32.store (i32.const 0xf004) (local.get $len)))
(func $do (param $len i32) (result i32) (local $op i32)
  ;; What the last call named is gone.
  (if (i64.ne (i64.load (i32.const 0xf000)) (i64.const 0)) (then (unreachable)))
  (if (i32.ne (call $window) (local.get $len)) (then (unreachable)))
  (local.set $op (i32.load8_u (i32.const 0xf008)))
  (if (i32.eq (local.get $op) (i32.const 48)) (then
    (call $name (i32.const 0xf009) (i32.sub (local.get $len) (i32.const 1)))))
  (if (i32.eq (local.get $op) (i32.const 35)) (then (call $name (i32.const 0x10000) (i32.const 1))))
  (if (i32.eq (local.get $op) (i32.const 36)) (then (call $name (i32.const 0xffff) (i32.const 2))))
  (if (i32.eq (local.get $op) (i32.const 37)) (then (call $name (i32.const 0xffffffff) (i32.const 2))))
  (if (i32.eq (local.get $op) (i32.const 38)) (then (call $name (i32.const 0) (i32.const 0xffffffff))))
  (if (i32.eq (local.get $op) (i32.const 39)) (then (call $name (i32.const 0xffffffff) (i32.const 0))))
  (if (i32.eq (local.get $op) (i32.const 40)) (then (call $name (i32.const 0) (i32.const 0x10001))))
  (if (i32.eq (local.get $op) (i32.const 41)) (then (call $name (i32.const 0) (i32.const 0x10000))))
  (if (i32.eq (local.get $op) (i32.const 42)) (then
    (call $name (i32.const 0) (i32.const 9)) (unreachable)))
  (if (i32.eq (local.get $op) (i32.const 43)) (then
    (call $name (i32.const 0) (i32.const 9)) (return (i32.const -1))))
  (if (i32.eq (local.get $op) (i32.const 44)) (then
    (call $name (i32.const 0xf009) (i32.sub (local.get $len) (i32.const 1)))
    (return (i32.const 1))))
  (if (i32.eq (local.get $op) (i32.const 45)) (then
    (memory.fill (i32.const 0xf000) (i32.const 255) (i32.const 4096))))
  (if (i32.eq (local.get $op) (i32.const 46)) (then
    (drop (memory.grow (i32.const 1)))
    (call $name (i32.const 0x10000) (i32.const 1))))
  (if (i32.eq (local.get $op) (i32.const 47)) (then
    (if (call $read (i32.const 0) (i32.const 9)) (then (unreachable)))))
  (i32.const 0))
(func (export "apply") (param i32) (result i32) (call $do (local.get 0)))
(func (export "query") (param i32) (result i32) (call $do (local.get 0)))
