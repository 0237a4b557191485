;; An export of the ABI with another signature.
;;
;; > upgrade => refused "the export `state_version` is () -> (i64); it must be () -> (i32)"
(func (export "state_version") (result i64) (i64.const 0))
