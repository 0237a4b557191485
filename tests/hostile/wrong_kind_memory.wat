;; An export named memory that is none.
;;
;; > upgrade => refused "`memory` is not a memory"
(memory 1)
(func (export "memory"))
