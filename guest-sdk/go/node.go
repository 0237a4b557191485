//go:build !wasm

package raftfsm

import (
	"bytes"
	"math/rand/v2"
	"strconv"
)

// T is the part of *testing.T that a [Node] uses.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Event is what a machine emitted.
type Event struct {
	Topic   string
	Payload string
}

// Line is what a machine logged.
type Line struct {
	Level Level
	Text  string
}

// Node plays the host for unit tests: it runs one machine natively, without limits. A panic of the machine is a panic
// of the test.
//
// It also checks the machine's promises: a rejected command or a question that changes the snapshot fails the test.
type Node struct {
	// Trusting leaves these checks out: with a large state they take long.
	Trusting bool
	// Actor gives the commands from now on. Empty: nobody that is known.
	Actor string
	// Events are those of the last accepted command.
	Events []Event
	// Lines are those of the last call.
	Lines []Line

	t       T
	create  func() Machine
	machine Machine
	now     position
	input   []byte
	output  []byte
	pending []Event
	chance  *rand.ChaCha8
	// actor is Actor during calls that are about a command.
	actor string
	// old is what is there during an Adopt.
	old oldInstance
}

type position struct {
	index, timeMs uint64
}

// NewNode founds a machine at index 1.
func NewNode(t T, newMachine func() Machine) *Node {
	t.Helper()
	n := &Node{t: t, create: newMachine, machine: newMachine(), now: position{1, 1_700_000_000_000}}
	n.begin(nil, 0)
	if err := callFound(n.machine, testHost{n}); err != nil {
		t.Fatalf("the machine was not founded: %v", err)
	}
	return n
}

// Apply runs a command at the next index.
func (n *Node) Apply(command string) (string, error) {
	n.t.Helper()
	before := n.witness()
	n.now.index++
	n.begin([]byte(command), 1)
	n.actor = n.Actor
	err := callApply(n.machine, testHost{n}, len(command))
	answer := string(n.output)
	lines := n.Lines
	n.Events = n.pending
	if err != nil {
		n.Events = nil
		n.unchanged(before, "the rejected command", command)
	}
	n.Lines = lines
	if err != nil {
		return "", err
	}
	return answer, nil
}

// Classify asks for the class of a command, as if it came next. Empty: it has none.
func (n *Node) Classify(command string) string {
	n.t.Helper()
	before := n.witness()
	n.now.index++
	n.begin([]byte(command), 5)
	n.actor = n.Actor
	if err := callClassify(n.machine, testHost{n}, len(command)); err != nil {
		n.t.Fatalf("classify %s: %v", shorten(command), err)
	}
	n.now.index--
	class := string(n.output)
	n.unchanged(before, "the classification of", command)
	return class
}

// Check checks the rules of the state. The error says which is broken.
func (n *Node) Check() error {
	n.t.Helper()
	before := n.witness()
	n.begin(nil, 6)
	err := callCheck(n.machine, testHost{n})
	n.unchanged(before, "the", "check")
	return err
}

// StateVersion is the name of the format of the machine's snapshots. Empty: it has none.
func (n *Node) StateVersion() string {
	n.t.Helper()
	n.begin(nil, 7)
	if err := callStateVersion(n.machine, testHost{n}); err != nil {
		n.t.Fatalf("state_version: %v", err)
	}
	return string(n.output)
}

// Restores asks a new machine whether it takes snapshots of a format. The error says why not.
func (n *Node) Restores(version string) error {
	n.begin([]byte(version), 8)
	return callRestores(n.create(), testHost{n}, len(version))
}

// Query asks a question.
func (n *Node) Query(question string) (string, error) {
	n.t.Helper()
	before := n.witness()
	n.begin([]byte(question), 2)
	err := callQuery(n.machine, testHost{n}, len(question))
	answer := string(n.output)
	lines := n.Lines
	n.unchanged(before, "the question", question)
	n.Lines = lines
	if err != nil {
		return "", err
	}
	return answer, nil
}

// ExpectApply fails the test unless the command is accepted with this answer.
func (n *Node) ExpectApply(command, answer string) {
	n.t.Helper()
	n.expect("apply", command, answer, n.Apply)
}

// ExpectQuery fails the test unless the question has this answer.
func (n *Node) ExpectQuery(question, answer string) {
	n.t.Helper()
	n.expect("query", question, answer, n.Query)
}

// ExpectReject fails the test unless the command is rejected for this reason.
func (n *Node) ExpectReject(command, reason string) {
	n.t.Helper()
	answer, err := n.Apply(command)
	if err == nil {
		n.t.Fatalf("apply %s: accepted with %q, not rejected with %q", shorten(command), answer, reason)
	} else if err.Error() != reason {
		n.t.Fatalf("apply %s: rejected with %q, not %q", shorten(command), err.Error(), reason)
	}
}

// Snapshot takes a snapshot.
func (n *Node) Snapshot() []byte {
	n.t.Helper()
	n.begin(nil, 3)
	if err := callSnapshot(n.machine, testHost{n}); err != nil {
		n.t.Fatalf("the snapshot was rejected: %v", err)
	}
	return n.output
}

// Restore reads a snapshot into a new machine, which takes over if it accepts it.
func (n *Node) Restore(snapshot []byte) error {
	next := n.create()
	n.begin(snapshot, 4)
	if err := callRestore(next, testHost{n}, len(snapshot)); err != nil {
		return err
	}
	n.machine = next
	return nil
}

// Renew does what an upgrade does: a new machine takes over the snapshot of this one. It must write the same.
func (n *Node) Renew() {
	n.t.Helper()
	snapshot := n.Snapshot()
	if err := n.Restore(snapshot); err != nil {
		n.t.Fatalf("the machine rejects its own snapshot: %v", err)
	}
	if again := n.Snapshot(); !bytes.Equal(snapshot, again) {
		n.t.Fatalf("after a restore the snapshot is another: %d bytes, then %d", len(snapshot), len(again))
	}
}

// Advance lets the log's clock go on. The next command sees it.
func (n *Node) Advance(ms uint64) { n.now.timeMs += ms }

// CheckRenewal plays commands on two machines, of which one is renewed before each command, and fails the test unless
// both answer the same: restore(snapshot(s)) must behave as s.
func CheckRenewal(t T, newMachine func() Machine, commands []string) {
	t.Helper()
	plain, renewed := NewNode(t, newMachine), NewNode(t, newMachine)
	for _, command := range commands {
		renewed.Renew()
		one, oneErr := plain.Apply(command)
		two, twoErr := renewed.Apply(command)
		if one != two || text(oneErr) != text(twoErr) {
			t.Fatalf("apply %s: %q (%v), but after a renewal %q (%v)", shorten(command), one, oneErr, two, twoErr)
		}
	}
	if !bytes.Equal(plain.Snapshot(), renewed.Snapshot()) {
		t.Fatalf("after %d commands the renewed machine has another snapshot", len(commands))
	}
}

func (n *Node) expect(kind, input, answer string, call func(string) (string, error)) {
	n.t.Helper()
	got, err := call(input)
	if err != nil {
		n.t.Fatalf("%s %s: rejected with %q, not answered with %q", kind, shorten(input), err.Error(), answer)
	} else if got != answer {
		n.t.Fatalf("%s %s: answered %q, not %q", kind, shorten(input), got, answer)
	}
}

func (n *Node) begin(input []byte, kind byte) {
	n.input, n.output, n.pending, n.Lines = input, nil, nil, nil
	n.actor = ""
	seed := [32]byte{kind}
	for i := range 8 {
		seed[8+i] = byte(n.now.index >> (8 * i))
	}
	n.chance = rand.NewChaCha8(seed)
}

// witness is the state before a call, to compare with after it.
func (n *Node) witness() []byte {
	n.t.Helper()
	if n.Trusting {
		return nil
	}
	return n.Snapshot()
}

func (n *Node) unchanged(before []byte, what, input string) {
	n.t.Helper()
	if !n.Trusting && !bytes.Equal(before, n.Snapshot()) {
		n.t.Fatalf("%s %s changed the state", what, shorten(input))
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func shorten(input string) string {
	if len(input) > 80 {
		return strconv.Quote(input[:80]) + "…"
	}
	return strconv.Quote(input)
}

// testHost keeps the imports out of the methods of [Node].
type testHost struct{ node *Node }

func (h testHost) read(p []byte) int {
	n := copy(p, h.node.input)
	h.node.input = h.node.input[n:]
	return n
}

func (h testHost) write(p []byte) { h.node.output = append(h.node.output, p...) }

func (h testHost) index() uint64 { return h.node.now.index }

// ordinal is 0: every command is an entry of its own here.
func ordinal() uint32 { return 0 }

// actor is no method of host: a module that does not ask for it shall not import it.
func actor(h host) string { return h.(testHost).node.actor }

// ExportClassify is for wasm modules: see [Classifier].
func ExportClassify(uint32) int32 { panic("only a module exports: in tests call Node.Classify") }

// ExportCheck is for wasm modules: see [Checker].
func ExportCheck() int32 { panic("only a module exports: in tests call Node.Check") }

// ExportStateVersion is for wasm modules: see [Versioner].
func ExportStateVersion() int32 { panic("only a module exports: in tests call Node.StateVersion") }

// ExportRestores is for wasm modules: see [Versioner].
func ExportRestores(uint32) int32 { panic("only a module exports: in tests call Node.Restores") }

func (h testHost) timeMs() uint64 { return h.node.now.timeMs }

func (h testHost) random(p []byte) {
	// ChaCha8.Read never fails.
	_, _ = h.node.chance.Read(p)
}

func (h testHost) emit(topic string, payload []byte) {
	h.node.pending = append(h.node.pending, Event{topic, string(payload)})
}

func (h testHost) log(level Level, line string) {
	h.node.Lines = append(h.node.Lines, Line{level, line})
}
