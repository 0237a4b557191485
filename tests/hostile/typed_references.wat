;; Typed references to functions.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(type $f (func))
(func (param (ref null $f)) (call_ref $f (local.get 0)))
