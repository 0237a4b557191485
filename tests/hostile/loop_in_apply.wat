;; An endless loop in `apply`, and in `query`.
;;
;; > upgrade => active
;; > apply "" => trapped out_of_fuel
;; > query "" => trapped out_of_fuel
;; > apply "" => trapped out_of_fuel
(func (export "apply") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
(func (export "query") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
