package main

import (
	"testing"

	"example.com/{{name}}/raftfsm"
)

func TestNumbersAddUp(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	node.ExpectApply("5", "5")
	node.ExpectApply("-3", "2")
	node.ExpectQuery("", "2")
}

// The node fails the test by itself if a rejected command changes the state.
func TestWhatIsNoNumberIsRejected(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	for _, wrong := range []string{"", "-", "five", "+5", "5 ", "--5", "1.5", "1234567890123456789"} {
		node.ExpectReject(wrong, string(errNoNumber))
	}
	node.ExpectQuery("", "0")
}

func TestTheSumStaysInItsRange(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	for range 9 {
		if _, err := node.Apply("-999999999999999999"); err != nil {
			t.Fatal(err)
		}
	}
	node.ExpectApply("-223372036854775817", "-9223372036854775808")
	node.ExpectReject("-1", string(errOverflow))
}

func TestTheSumSurvivesAnUpgrade(t *testing.T) {
	raftfsm.CheckRenewal(t, New, []string{"7", "nonsense", "-48", "1"})
	node := raftfsm.NewNode(t, New)
	node.ExpectApply("-41", "-41")
	node.Renew()
	node.ExpectQuery("", "-41")
}

func TestAForeignSnapshotIsRejected(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	for _, wrong := range []string{"", "CNT1", "CNT1short", "CNT2........", "CNT1........more"} {
		if err := node.Restore([]byte(wrong)); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
