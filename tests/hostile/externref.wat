;; References to things of the host's.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(table 1 externref)
