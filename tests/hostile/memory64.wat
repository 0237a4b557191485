;; A memory with 64-bit addresses.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(memory (export "memory") i64 1)
