;; A table that grows.
;;
;; > upgrade => refused "`table.grow` in function"
(table 1 funcref)
(func $f (drop (table.grow 0 (ref.null func) (i32.const 1))))
