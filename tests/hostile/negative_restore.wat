;; A `restore` with a status that means nothing.
;;
;; > upgrade => failed "`restore` of the new module returned a negative status"
(func (export "restore") (param i32) (result i32) (i32.const -1))
