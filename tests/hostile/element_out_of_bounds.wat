;; An element segment that lies outside of its table.
;;
;; > upgrade => failed "it cannot start"
(table 1 funcref)
(elem (i32.const 1) $f)
(func $f)
