// Package raftfsm is the SDK for state machines that raft-host replicates.
//
// A program registers a constructor and has an empty main:
//
//	func init() { raftfsm.Register(New) }
//	func main() {}
//
// The calls and what they promise are those of guest-sdk/ABI.md in raft-host. The package needs the standard library only.
// Natively it is for tests: see [NewNode].
package raftfsm

// Machine is a state machine. Its calls never overlap.
//
// An error is a rejection: its text is the reason that the client reads, and the machine promises that it changed
// nothing. Check first, change after. A panic is a trap: the host undoes the whole call, which is safe, but slow.
type Machine interface {
	// Apply runs one command of the log and answers. The command belongs to the machine, the answer to the SDK.
	Apply(ctx *Context, command []byte) ([]byte, error)

	// Query answers a question. What it changes is undone.
	Query(ctx *Context, question []byte) ([]byte, error)

	// Snapshot writes the whole state: a magic and a version first, then what depends on the contents only. A map
	// has another order in each range over it: sort its keys before writing them.
	Snapshot(ctx *Context, out *Writer) error

	// Restore reads what this or an older release of the machine wrote, into a machine that was just made. A
	// snapshot that is too short or that was not read to its end is rejected by the SDK.
	Restore(ctx *Context, in *Reader) error
}

// Founder is a machine with something to do once in the life of a cluster, before the first command. An error keeps
// the cluster from being founded. A machine that gets a snapshot is not founded.
type Founder interface {
	Found(ctx *Context) error
}

// Classifier is a machine whose commands are of classes, so that rights may be given for some of them: transfer, say,
// and not close-account. The program also exports it, in package main:
//
//	//go:wasmexport classify
//	func classify(length uint32) int32 { return raftfsm.ExportClassify(length) }
type Classifier interface {
	// Classify names the class of a command: 1 to 64 letters (a to z), digits and any of . _ -, or nothing. One
	// without a class may be given by those only who may give all, so say nothing of what is malformed.
	//
	// It runs where a right depends on it, in the state and the context that the command is to have. What it changes
	// is undone.
	Classify(ctx *Context, command []byte) string
}

// Checker is a machine that can tell whether its state keeps its own rules. The program also exports it, in package main:
//
//	//go:wasmexport check
//	func check() int32 { return raftfsm.ExportCheck() }
type Checker interface {
	// Check walks the state. An error says which rule is broken, and where. The host asks when an upgrade is tried on
	// the real state. What it changes is undone.
	Check(ctx *Context) error
}

// Versioner is a machine that names the format of its snapshots, so that it is never given those of a stranger. The
// program also exports it, in package main:
//
//	//go:wasmexport state_version
//	func stateVersion() int32 { return raftfsm.ExportStateVersion() }
//
//	//go:wasmexport restores
//	func restores(length uint32) int32 { return raftfsm.ExportRestores(length) }
type Versioner interface {
	// StateVersion is a constant, such as kv/2: 1 to 64 letters (a to z), digits and any of . _ - /.
	StateVersion() string

	// Restores says whether Restore takes snapshots of a format, its own one too. An error says why not.
	Restores(version string) error
}

// Rejection is an error that is a text and can be a constant. Any other error rejects as well.
type Rejection string

func (r Rejection) Error() string { return string(r) }

var construct func() Machine

// Register names the constructor of the program's machine. Call it once, in an init function of package main.
func Register(newMachine func() Machine) {
	if construct != nil {
		panic("raftfsm.Register was called twice")
	}
	construct = newMachine
}
