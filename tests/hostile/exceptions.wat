;; Exceptions.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(tag $t)
(func (throw $t))
