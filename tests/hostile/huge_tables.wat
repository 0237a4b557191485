;; Tables that are too large together only.
;;
;; > upgrade => refused "elements; at most 1048576 are allowed"
(table 400000 funcref)
(table 400000 funcref)
(table 400000 funcref)
