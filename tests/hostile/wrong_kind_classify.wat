;; An export of the ABI that is no function.
;;
;; > upgrade => refused "the export `classify` is not a function"
(global (export "classify") i32 (i32.const 1))
