;; A memory that starts with 4 GiB.
;;
;; > upgrade => refused "the module's memory starts with 4294967296 bytes"
(memory (export "memory") 65536)
