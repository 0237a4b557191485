;; An empty module.
;;
;; > upgrade => refused "does not say which guest ABI it speaks"
(module)
