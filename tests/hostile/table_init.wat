;; A table that is filled while the guest runs.
;;
;; > upgrade => refused "`table.init` in function"
(table 1 funcref)
(elem $e func)
(func $f (table.init 0 $e (i32.const 0) (i32.const 0) (i32.const 0)))
