;; An export of the ABI with another signature.
;;
;; > upgrade => refused "the export `classify` is (i32) -> (i64); it must be (i32) -> (i32)"
(func (export "classify") (param i32) (result i64) (i64.const 0))
