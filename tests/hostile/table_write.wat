;; A table that is written while the guest runs.
;;
;; > upgrade => refused "`table.set` in function"
(table 1 funcref)
(func $f (table.set 0 (i32.const 0) (ref.null func)))
