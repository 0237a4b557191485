;; Atomic instructions.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(func (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))
