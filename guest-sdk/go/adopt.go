package raftfsm

import "strconv"

// Adopter is a machine that can take over the exact memory of another module's instance, whose snapshot can never
// succeed. The program also exports it, in package main:
//
//	//go:wasmexport adopt
//	func adopt(length uint32) int32 { return raftfsm.ExportAdopt(length) }
type Adopter interface {
	// Adopt builds the state, in a machine that was just made, from what the old instance's memory holds. An error
	// rejects: refuse every module but those whose layout you know.
	Adopt(ctx *Context, old *OldInstance) error
}

// GlobalType is the type of a global.
type GlobalType int32

// The types of the ABI.
const (
	GlobalI32  GlobalType = 0
	GlobalI64  GlobalType = 1
	GlobalF32  GlobalType = 2
	GlobalF64  GlobalType = 3
	GlobalV128 GlobalType = 4
)

// Global is a mutable global: its type, and its bits as a little-endian number.
type Global struct {
	Type GlobalType
	Bits [16]byte
}

// Uint32 is the number in a global of 32 bits: an address, say. Of a float the bits.
func (g Global) Uint32() uint32 { return uint32(g.Uint64()) }

// Uint64 is the number in a global of 64 bits, or less. Of a float the bits.
func (g Global) Uint64() uint64 { return getUint64(g.Bits[:]) }

// OldInstance is the memory of the instance that [Adopter] takes over. All numbers are little-endian.
//
// Its first failure stays: from then on every read gives zeros, and when Adopt returns, the SDK rejects with the
// failure, whatever Adopt made of the zeros.
type OldInstance struct {
	host   host
	module [32]byte
	size   uint64
	err    error
}

// Module is the SHA-256 of its module.
func (o *OldInstance) Module() [32]byte { return o.module }

// Size is that of its memory in bytes.
func (o *OldInstance) Size() uint64 { return o.size }

// Err is the first failure, or nil.
func (o *OldInstance) Err() error { return o.err }

// Fill reads exactly so many bytes as p has, from an address on; zeros if they are not there.
func (o *OldInstance) Fill(at uint64, p []byte) {
	if !o.expect(at, uint64(len(p))) {
		clear(p)
		return
	}
	oldMemory(o.host, at, p)
}

// Bytes reads n bytes from an address on. It allocates nothing if they are not there.
func (o *OldInstance) Bytes(at uint64, n int) []byte {
	if n < 0 || !o.expect(at, uint64(n)) {
		o.fail(at, n)
		return nil
	}
	p := make([]byte, n)
	oldMemory(o.host, at, p)
	return p
}

// String reads n bytes from an address on as a string.
func (o *OldInstance) String(at uint64, n int) string { return string(o.Bytes(at, n)) }

// Uint8 reads one byte.
func (o *OldInstance) Uint8(at uint64) uint8 { return uint8(o.number(at, 1)) }

// Uint32 reads four bytes: a pointer or a length, say.
func (o *OldInstance) Uint32(at uint64) uint32 { return uint32(o.number(at, 4)) }

// Uint64 reads eight bytes.
func (o *OldInstance) Uint64(at uint64) uint64 { return o.number(at, 8) }

// Global gives the n-th mutable global, from 0 on, in the order of the module's indices; false if there are not so
// many.
func (o *OldInstance) Global(n uint32) (Global, bool) {
	var g Global
	ty := oldGlobal(o.host, n, &g.Bits)
	if ty < 0 {
		return Global{}, false
	}
	g.Type = GlobalType(ty)
	return g, true
}

func (o *OldInstance) number(at uint64, n int) uint64 {
	var p [8]byte
	o.Fill(at, p[:n])
	return getUint64(p[:])
}

func (o *OldInstance) expect(at, n uint64) bool {
	if o.err == nil && (at > o.size || n > o.size-at) {
		o.fail(at, int(n))
	}
	return o.err == nil
}

func (o *OldInstance) fail(at uint64, n int) {
	if o.err == nil {
		o.err = Rejection("the old memory ends before " + strconv.Itoa(n) + " bytes at 0x" + strconv.FormatUint(at, 16))
	}
}

func callAdopt(m Machine, h host, length int) error {
	adopter, ok := m.(Adopter)
	if !ok {
		return Rejection("the machine has no method Adopt")
	}
	old := &OldInstance{host: h, size: oldMemorySize(h)}
	copy(old.module[:], input(h, length))
	err := adopter.Adopt(&Context{h}, old)
	if old.err != nil {
		return old.err
	}
	return err
}
