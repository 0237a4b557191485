;; An endless loop in `_initialize`.
;;
;; > upgrade => failed "its initialiser ran out of fuel"
(func (export "_initialize") (loop $again (br $again)))
