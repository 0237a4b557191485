;; An export of the ABI with another signature.
;;
;; > upgrade => refused "the export `check` is (i32) -> (i32); it must be () -> (i32)"
(func (export "check") (param i32) (result i32) (i32.const 0))
