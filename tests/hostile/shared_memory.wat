;; Memory for threads.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(memory (export "memory") 1 1 shared)
