;; An initialiser that wants a parameter.
;;
;; > upgrade => refused "the export `_initialize` is (i32) -> (); it must be () -> ()"
(func (export "_initialize") (param i32))
