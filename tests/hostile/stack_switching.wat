;; Continuations.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(type $f (func))
(type $c (cont $f))
