package main

import (
	"testing"

	"raftfsm"
)

func TestTheStateSurvivesARenewal(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	node.ExpectApply("fill 100000", "100000")
	node.Renew()
	node.ExpectQuery("length", "100000")
	node.ExpectReject("dance now", "unknown: dance")
	node.ExpectReject("emit-reject topic text", "no")
	if class := node.Classify("set this"); class != "set" {
		t.Fatalf("set is of the class %q", class)
	}
	if class := node.Classify("dance now"); class != "" {
		t.Fatalf("an unknown command is of the class %q", class)
	}
	node.ExpectApply("actor", "")
	node.Actor = "alice@example.org"
	node.ExpectApply("actor", "alice@example.org")
	node.ExpectQuery("actor", "")
	node.ExpectApply("emit topic text", "")
	if len(node.Events) != 1 || node.Events[0] != (raftfsm.Event{Topic: "topic", Payload: "text"}) {
		t.Fatalf("events: %v", node.Events)
	}
	if err := node.Restore([]byte("PRB1\xff\xff\xff\xff")); err == nil {
		t.Fatal("a length without its bytes is taken")
	}
}
