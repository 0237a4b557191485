;; Runaway recursion before there is any command.
;;
;; > upgrade => failed "its initialiser overflowed its stack"
(func $direct (param i32) (result i32)
  (i32.add (call $direct (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
(func (export "_initialize") (drop (call $direct (i32.const 0))))
