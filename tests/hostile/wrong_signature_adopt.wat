;; An export of the ABI with another signature.
;;
;; > upgrade => refused "the export `adopt` is (i64) -> (i32); it must be (i32) -> (i32)"
(func (export "adopt") (param i64) (result i32) (i32.const 0))
