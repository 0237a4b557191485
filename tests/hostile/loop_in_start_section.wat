;; An endless loop in the function of the start section.
;;
;; > upgrade => failed "its initialiser ran out of fuel"
(start $begin)
(func $begin (loop $again (br $again)))
