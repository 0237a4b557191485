;; An endless loop without a loop and without a stack: two functions that end in each other.
;;
;; > upgrade => active
;; > apply "" => trapped out_of_fuel
(func $ping (param i32) (result i32) (return_call $pong (local.get 0)))
(func $pong (param i32) (result i32) (return_call $ping (local.get 0)))
(func (export "apply") (param i32) (result i32) (call $ping (local.get 0)))
