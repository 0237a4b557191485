;; Two memories.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(memory $second 1)
