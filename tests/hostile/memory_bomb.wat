;; Takes all the memory that it may, writes to every page of it, and then asks for more, in every
;; way; `u` does it and traps, which must give it back.
;;
;; > upgrade => active
;; > apply "u" => trapped unreachable
;; > apply "s" => ok "1"
;; > apply "g" => ok "256"
;; > apply "s" => ok "256"
;; > apply "g" => ok "256"
;; > query "g" => ok "256"
;; > restart
;; > apply "s" => ok "256"
(data (i32.const 0) "1  256")
(func $grow
  (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
  (drop (memory.grow (i32.const 65535)))
  (drop (memory.grow (i32.const -1)))
  (drop (memory.grow (i32.const 0)))
  (memory.fill (i32.const 65536) (i32.const 7)
    (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536))))
(func $tell (result i32)
  (if (i32.eq (memory.size) (i32.const 1)) (then (call $write (i32.const 0) (i32.const 1))))
  (if (i32.eq (memory.size) (i32.const 256)) (then (call $write (i32.const 3) (i32.const 3))))
  (i32.const 0))
(func $do (result i32) (local $op i32)
  (drop (call $read (i32.const 16) (i32.const 1)))
  (local.set $op (i32.load8_u (i32.const 16)))
  (if (i32.eq (local.get $op) (i32.const 115)) (then (return (call $tell))))
  ;; Filling costs a unit for each byte: in pieces of a command, more fits.
  (call $grow)
  (if (i32.eq (local.get $op) (i32.const 117)) (then (unreachable)))
  (call $tell))
(func (export "apply") (param i32) (result i32) (call $do))
(func (export "query") (param i32) (result i32) (call $do))
