;; A `restore` that changes everything and traps.
;;
;; > upgrade => failed "`restore` of the new module executed `unreachable`"
(func (export "restore") (param i32) (result i32)
  (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (unreachable))
