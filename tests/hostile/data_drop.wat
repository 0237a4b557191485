;; A passive data segment that is dropped: which ones are, no image can tell.
;;
;; > upgrade => refused "`data.drop` in function"
(data $d "x")
(func $f (data.drop $d))
