package main

import (
	"testing"

	"raftfsm"
)

func TestTheMemoryOfAnotherModuleIsAdopted(t *testing.T) {
	node := raftfsm.NewNode(t, New)
	node.ExpectApply("set mine", "4")
	module := [32]byte{7}
	if err := node.Adopt(module, []byte("too short")); err == nil ||
		err.Error() != "the old memory ends before 16 bytes at 0x0" {
		t.Fatalf("a short memory: %v", err)
	}
	node.ExpectQuery("get", "mine")
	global := raftfsm.Global{Type: raftfsm.GlobalI64, Bits: [16]byte{9, 1}}
	if err := node.Adopt(module, []byte("a memory of 20 bytes"), global); err != nil {
		t.Fatalf("adopt: %v", err)
	}
	zeros := func(n int) string { return string(make([]byte, n)) }
	node.ExpectQuery("get", "\x07"+zeros(31)+"\x14"+zeros(7)+"a memory of 20 b"+"\x01\x09\x01"+zeros(14)+"\xff"+zeros(16))
	node.Renew()
	node.ExpectApply("set new", "3")
}

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
	if version := node.StateVersion(); version != "probe/1" || node.Restores(version) != nil {
		t.Fatalf("the format %q", version)
	}
	if err := node.Restores("kv/1"); err == nil || err.Error() != "not a format of the probe: kv/1" {
		t.Fatalf("kv/1: %v", err)
	}
	if err := node.Check(); err != nil {
		t.Fatalf("check: %v", err)
	}
	node.ExpectApply("set broken", "6")
	if err := node.Check(); err == nil || err.Error() != "the state is broken" {
		t.Fatalf("check: %v", err)
	}
	if err := node.Restore([]byte("PRB1\xff\xff\xff\xff")); err == nil {
		t.Fatal("a length without its bytes is taken")
	}
}
