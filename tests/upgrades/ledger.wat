;; A small ledger of sixteen accounts, and the module that upgrades of it are made of: a test replaces lines that end
;; with a mark (;;@…), each by what somebody might have written there.
;;
;; A command has four bytes: what to do, an account, and an amount (little-endian).
;;   d  deposit: adds the amount, and emits it; answers the balance
;;   w  withdraw: takes it, or rejects
;;   i  interest: adds so many thousandths; answers the balance
;;   o  open: gives an account what a new one gets
;;   l  list: answers the accounts that hold something, in order
;;   c  close: gives up an account
;; A query has two bytes: b and an account.
(module
  (import "raft_fsm_v1" "read" (func $read (param i32 i32) (result i32)))
  (import "raft_fsm_v1" "write" (func $write (param i32 i32)))
  (import "raft_fsm_v1" "emit" (func $emit (param i32 i32 i32 i32)))
  ;;@import
  (memory (export "memory") 1)
  (data (i32.const 0x600) "deposit")
  (data (i32.const 0x610) "interest")
  (data (i32.const 0x620) "too little")
  (func (export "raft_fsm_abi_v1"))

  ;; Balances are at 0x400, how often the state was restored is at 0x480.
  (func $account (param $key i32) (result i32)
    (i32.add
      (i32.const 0x400)
      (i32.shl (i32.and (local.get $key) (i32.const 15)) (i32.const 3))))

  (func $tell (param $at i32) (result i32)
    (call $write (local.get $at) (i32.const 8))
    (i32.const 0))

  (func $list (result i32)
    (local $n i32) (local $key i32)
    (loop $next
      (local.set $key (local.get $n)) ;;@order
      (if (i32.eqz (i64.eqz (i64.load (call $account (local.get $key)))))
        (then
          (i32.store8 (i32.const 0x500) (local.get $key))
          (call $write (i32.const 0x500) (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 16))))
    (i32.const 0))

  (func $spin
    (local $n i32)
    (local.set $n (i32.const 2000))
    (loop $next
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $next (local.get $n))))

  (func (export "apply") (param $len i32) (result i32)
    (local $op i32) (local $at i32) (local $amount i64)
    (drop (call $read (i32.const 0) (i32.const 16)))
    (if (i32.ne (local.get $len) (i32.const 4)) (then (return (i32.const 1))))
    (local.set $op (i32.load8_u (i32.const 0)))
    (local.set $at (call $account (i32.load8_u (i32.const 1))))
    (local.set $amount (i64.load16_u (i32.const 2)))
    (nop) ;;@work
    (if (i32.eq (local.get $op) (i32.const 100)) ;; d
      (then
        (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (local.get $amount)))
        (call $emit (i32.const 0x600) (i32.const 7) (i32.const 2) (i32.const 2)) ;;@event
        (return (call $tell (local.get $at)))))
    (if (i32.eq (local.get $op) (i32.const 119)) ;; w
      (then
        (if (i64.lt_u (i64.load (local.get $at)) (local.get $amount))
          (then
            (call $write (i32.const 0x620) (i32.const 10))
            (return (i32.const 1))))
        (i64.store (local.get $at) (i64.sub (i64.load (local.get $at)) (local.get $amount)))
        (return (call $tell (local.get $at)))))
    (if (i32.eq (local.get $op) (i32.const 105)) ;; i
      (then
        (i64.store
          (local.get $at)
          (i64.add
            (i64.load (local.get $at))
            (i64.div_u
              (i64.add
                (i64.mul (i64.load (local.get $at)) (local.get $amount))
                (i64.const 0)) ;;@rounding
              (i64.const 1000))))
        (return (call $tell (local.get $at)))))
    (if (i32.eq (local.get $op) (i32.const 111)) ;; o
      (then
        (i64.store (local.get $at) (i64.const 100)) ;;@default
        (return (call $tell (local.get $at)))))
    (if (i32.eq (local.get $op) (i32.const 108)) ;; l
      (then (return (call $list))))
    (if (i32.eq (local.get $op) (i32.const 99)) ;; c
      (then
        (i64.store (local.get $at) (i64.const 0)) ;;@rare
        (return (i32.const 0))))
    (i32.const 1))

  (func (export "query") (param $len i32) (result i32)
    (drop (call $read (i32.const 0) (i32.const 16)))
    (drop (i32.const 0)) ;;@query
    (call $tell (call $account (i32.load8_u (i32.const 1)))))

  (func (export "classify") (param $len i32) (result i32)
    (local $op i32)
    (drop (call $read (i32.const 0) (i32.const 16))) ;;@classify
    (local.set $op (i32.load8_u (i32.const 0)))
    (if (i32.eq (local.get $op) (i32.const 100))
      (then (call $write (i32.const 0x600) (i32.const 7))))
    (if (i32.eq (local.get $op) (i32.const 105))
      (then (call $write (i32.const 0x610) (i32.const 8))))
    (i32.const 0))

  (func (export "check") (result i32)
    (nop) ;;@check
    (i32.const 0))

  (func (export "snapshot") (result i32)
    (call $write (i32.const 0x400) (i32.const 136)) ;;@snapshot
    (i32.const 0))

  ;;@export
  (func (export "restore") (param $len i32) (result i32)
    (drop (call $read (i32.const 0x400) (i32.const 136)))
    (nop) ;;@restore
    (i32.const 0)))
