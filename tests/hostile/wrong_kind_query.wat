;; An export of the ABI that is no function.
;;
;; > upgrade => refused "the export `query` is not a function"
(global (export "query") i32 (i32.const 1))
