//go:build !wasm

package raftfsm

// oldInstance is what [Node.Adopt] takes over.
type oldInstance struct {
	memory  []byte
	globals []Global
}

// Adopt has a new machine take over the memory and the mutable globals of an instance of the module with this
// SHA-256. It replaces the machine if it accepts them.
func (n *Node) Adopt(module [32]byte, memory []byte, globals ...Global) error {
	next := n.create()
	n.begin(module[:], 9)
	n.old = oldInstance{memory, globals}
	defer func() { n.old = oldInstance{} }()
	if err := callAdopt(next, testHost{n}, len(module)); err != nil {
		return err
	}
	n.machine = next
	return nil
}

func oldMemorySize(h host) uint64 { return uint64(len(h.(testHost).node.old.memory)) }

func oldMemory(h host, at uint64, p []byte) { copy(p, h.(testHost).node.old.memory[at:]) }

func oldGlobal(h host, number uint32, bits *[16]byte) int32 {
	globals := h.(testHost).node.old.globals
	if number >= uint32(len(globals)) {
		return -1
	}
	*bits = globals[number].Bits
	return int32(globals[number].Type)
}

// ExportAdopt is for wasm modules: see [Adopter].
func ExportAdopt(uint32) int32 { panic("only a module exports: in tests call Node.Adopt") }
