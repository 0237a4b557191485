package main

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// journal writes a snapshot by hand: bank (external), alice, and what the transfers say.
func journal(flags byte, transfers ...[]byte) []byte {
	out := []byte("LDG1\x02\x00\x00\x00")
	out = append(out, "\x04\x00\x00\x00bank\x03\x00\x00\x00EUR\x01"...)
	out = append(append(out, "\x05\x00\x00\x00alice\x03\x00\x00\x00EUR"...), flags)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(transfers)))
	return append(out, bytes.Join(transfers, nil)...)
}

func moved(id string, index uint64, from, to uint32, amount int64) []byte {
	out := begun(id, index, 1)
	out = binary.LittleEndian.AppendUint32(out, from)
	out = binary.LittleEndian.AppendUint32(out, to)
	return binary.LittleEndian.AppendUint64(out, uint64(amount))
}

func reversed(id string, index uint64, original uint32) []byte {
	return binary.LittleEndian.AppendUint32(begun(id, index, 0), original)
}

func begun(id string, index uint64, moves uint32) []byte {
	out := append(binary.LittleEndian.AppendUint32(nil, uint32(len(id))), id...)
	out = binary.LittleEndian.AppendUint64(out, index)
	out = binary.LittleEndian.AppendUint64(out, 1000)
	return binary.LittleEndian.AppendUint32(out, moves)
}

func TestASnapshotIsTheJournal(t *testing.T) {
	node := bankOf(t)
	written := journal(0, moved("a", 5, 0, 1, 100), moved("b", 6, 1, 0, 40), reversed("c", 9, 1))
	if err := node.Restore(written); err != nil {
		t.Fatal(err)
	}
	balance(t, node, "alice", 100)
	if !slices.Equal(node.Snapshot(), written) {
		t.Fatal("the ledger writes another snapshot than it read")
	}
}

func TestASnapshotKeepsOwners(t *testing.T) {
	node := bankOf(t)
	written := []byte("LDG1\x01\x00\x00\x00\x04\x00\x00\x00bank\x03\x00\x00\x00EUR\x05\x03\x00\x00\x00a@b\x00\x00\x00\x00")
	if err := node.Restore(written); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(node.Snapshot(), written) {
		t.Fatal("the ledger writes another snapshot than it read")
	}
	if err := node.Restore(bytes.Replace(written, []byte("a@b"), []byte("a b"), 1)); err == nil {
		t.Fatal("an owner that is no name is taken")
	}
}

func TestASnapshotThatBreaksTheRulesIsRejected(t *testing.T) {
	node := bankOf(t)
	for want, snapshot := range map[string][]byte{
		"alice has 0 EUR and lacks": journal(0, moved("a", 5, 1, 0, 100)),
		"a is out of order":         journal(0, moved("x", 5, 0, 1, 1), moved("a", 5, 0, 1, 1)),
		"a is twice":                journal(0, moved("a", 5, 0, 1, 1), moved("a", 6, 0, 1, 1)),
		"an impossible move":        journal(0, moved("a", 5, 0, 2, 1)),
		"a has an impossible move":  journal(0, moved("a", 5, 0, 1, -1)),
		"closed account with a":     journal(flagClosed, moved("a", 5, 0, 1, 1)),
		"unknown flags":             journal(8),
		"reverses one that is not":  journal(0, reversed("a", 5, 0)),
		"was reversed by b":         journal(0, moved("a", 5, 0, 1, 1), reversed("b", 6, 0), reversed("c", 7, 0)),
		"an id has 1 to 64":         journal(0, moved("a b", 5, 0, 1, 1)),
		"too short":                 journal(0, begun("a", 5, 1_000_000_000)),
		"has 12 moves":              journal(0, begun("a", 5, 12), make([]byte, 12*leastMove)),
		"bytes too many":            append(journal(0), 0),
		"not a snapshot of":         []byte("LDG2\x00\x00\x00\x00\x00\x00\x00\x00"),
	} {
		err := node.Restore(snapshot)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	balance(t, node, "alice", 100)
}

func TestEveryCutSnapshotIsRejected(t *testing.T) {
	node := bankOf(t)
	must(t, node, "transfer a alice bob 60 bob bank 10")
	must(t, node, "reverse b a")
	whole := node.Snapshot()
	for cut := range whole {
		if node.Restore(whole[:cut]) == nil {
			t.Fatalf("cut to %d bytes it is taken", cut)
		}
	}
}
