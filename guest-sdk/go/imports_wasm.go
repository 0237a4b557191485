package raftfsm

import "unsafe"

// imports is the host of a wasm module.
type imports struct{}

//go:wasmimport raft_fsm_v1 read
//go:noescape
func importRead(p unsafe.Pointer, capacity uint32) uint32

//go:wasmimport raft_fsm_v1 write
//go:noescape
func importWrite(p unsafe.Pointer, length uint32)

//go:wasmimport raft_fsm_v1 index
func importIndex() uint64

//go:wasmimport raft_fsm_v1 ordinal
func importOrdinal() uint32

//go:wasmimport raft_fsm_v1 time_ms
func importTimeMs() uint64

//go:wasmimport raft_fsm_v1 actor
//go:noescape
func importActor(p unsafe.Pointer, capacity uint32) uint32

//go:wasmimport raft_fsm_v1 random
//go:noescape
func importRandom(p unsafe.Pointer, length uint32)

//go:wasmimport raft_fsm_v1 emit
//go:noescape
func importEmit(topic unsafe.Pointer, topicLength uint32, p unsafe.Pointer, length uint32)

//go:wasmimport raft_fsm_v1 log
//go:noescape
func importLog(level int32, p unsafe.Pointer, length uint32)

func (imports) read(p []byte) int {
	return int(importRead(unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p))))
}

func (imports) write(p []byte) {
	importWrite(unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p)))
}

func (imports) index() uint64 { return importIndex() }

// ordinal is no method: a module that does not ask for it shall not import it.
func ordinal() uint32 { return importOrdinal() }

// actor is no method of host for the same reason.
func actor(host) string {
	var name [64]byte // None is longer.
	length := importActor(unsafe.Pointer(&name), uint32(len(name)))
	return string(name[:length])
}

func (imports) timeMs() uint64 { return importTimeMs() }

func (imports) random(p []byte) {
	importRandom(unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p)))
}

func (imports) emit(topic string, payload []byte) {
	importEmit(unsafe.Pointer(unsafe.StringData(topic)), uint32(len(topic)),
		unsafe.Pointer(unsafe.SliceData(payload)), uint32(len(payload)))
}

func (imports) log(level Level, line string) {
	importLog(int32(level), unsafe.Pointer(unsafe.StringData(line)), uint32(len(line)))
}
