;; An endless loop in `_start`.
;;
;; > upgrade => failed "its initialiser ran out of fuel"
(func (export "_start") (loop $again (br $again)))
