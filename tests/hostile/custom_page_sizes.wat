;; Memory in other pages.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(module
  (memory (export "memory") 1 (pagesize 1)))
