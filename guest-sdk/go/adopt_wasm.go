package raftfsm

import "unsafe"

// A module that does not adopt shall not import these: they are no methods of host.

//go:wasmimport raft_fsm_v1 old_memory_size
func importOldMemorySize() uint64

//go:wasmimport raft_fsm_v1 old_memory
//go:noescape
func importOldMemory(at uint64, p unsafe.Pointer, length uint32)

//go:wasmimport raft_fsm_v1 old_global
//go:noescape
func importOldGlobal(number uint32, p unsafe.Pointer) int32

func oldMemorySize(host) uint64 { return importOldMemorySize() }

func oldMemory(_ host, at uint64, p []byte) {
	importOldMemory(at, unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p)))
}

func oldGlobal(_ host, number uint32, bits *[16]byte) int32 {
	return importOldGlobal(number, unsafe.Pointer(bits))
}

// ExportAdopt is what a program exports as `adopt`: see [Adopter].
func ExportAdopt(length uint32) int32 {
	defer trapOnPanic()
	return status(callAdopt(current(), imports{}, int(length)))
}
