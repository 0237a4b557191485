;; A table of two million elements.
;;
;; > upgrade => refused "the module's tables have 2000000 elements"
(table 2000000 funcref)
