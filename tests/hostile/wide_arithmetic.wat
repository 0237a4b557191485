;; Arithmetic with 128 bits.
;;
;; > upgrade => refused "WebAssembly feature that is off"
(func (result i64 i64) (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))
