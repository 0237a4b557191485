;; A reference in a mutable global.
;;
;; > upgrade => refused "the mutable reference global"
(global (mut funcref) (ref.null func))
