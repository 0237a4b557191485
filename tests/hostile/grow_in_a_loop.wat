;; Asks for memory for ever, whatever the answer is.
;;
;; > upgrade => active
;; > apply "" => trapped out_of_fuel
;; > query "" => trapped out_of_fuel
(func (export "apply") (param i32) (result i32)
  (loop $again (drop (memory.grow (i32.const 1))) (br $again)) (i32.const 0))
(func (export "query") (param i32) (result i32)
  (loop $again (drop (memory.grow (i32.const 1))) (br $again)) (i32.const 0))
