;; An export of the ABI with another signature.
;;
;; > upgrade => refused "the export `restores` is () -> (i32); it must be (i32) -> (i32)"
(func (export "restores") (result i32) (i32.const 0))
