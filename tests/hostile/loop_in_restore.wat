;; An endless loop in `restore`.
;;
;; > upgrade => failed "`restore` of the new module ran out of fuel"
;; > restart
;; > upgrade => failed "`restore` of the new module ran out of fuel"
;; > upgrade => failed "restore_fuel is 20000000"
(func (export "restore") (param i32) (result i32) (loop $again (br $again)) (i32.const 0))
