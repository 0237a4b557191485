;; A `restore` that refuses, with a reason of megabytes in control characters.
;;
;; > upgrade => failed "`restore` of the new module refused"
(memory (export "memory") 32)
(func (export "restore") (param i32) (result i32)
  (memory.fill (i32.const 0) (i32.const 27) (i32.const 2000000))
  (call $write (i32.const 0) (i32.const 2000000)) (i32.const 7))
