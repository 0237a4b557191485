;; A passive element segment that is dropped.
;;
;; > upgrade => refused "`elem.drop` in function"
(elem $e func)
(func $f (elem.drop $e))
