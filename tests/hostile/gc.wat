;; Structures on a collected heap.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(type $s (struct (field i32)))
(func (drop (struct.new $s (i32.const 1))))
