;; A data segment that lies outside of the memory: found when the module is instantiated.
;;
;; > upgrade => failed "it cannot start"
(data (i32.const 65530) "more than six bytes")
