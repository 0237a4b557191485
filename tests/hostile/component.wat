;; A component.
;;
;; > upgrade => refused "this is a WebAssembly component"
(component)
