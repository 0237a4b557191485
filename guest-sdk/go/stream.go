package raftfsm

import (
	"io"
	"math"
	"strconv"
)

const bufferBytes = 4096

// Writer streams a snapshot to the host through four kilobytes. All numbers are little-endian. It is an [io.Writer]
// whose writes cannot fail.
type Writer struct {
	host   host
	used   int
	buffer [bufferBytes]byte
}

// Write appends p.
func (w *Writer) Write(p []byte) (int, error) {
	w.Bytes(p)
	return len(p), nil
}

// Bytes appends p, without its length.
func (w *Writer) Bytes(p []byte) {
	if len(p) >= bufferBytes {
		w.flush()
		w.host.write(p)
		return
	}
	copy(w.room(len(p)), p)
}

// String appends s, without its length.
func (w *Writer) String(s string) {
	for len(s) > 0 {
		n := min(len(s), bufferBytes)
		copy(w.room(n), s[:n])
		s = s[n:]
	}
}

// Uint8 appends one byte.
func (w *Writer) Uint8(v uint8) { w.room(1)[0] = v }

// Uint32 appends four bytes.
func (w *Writer) Uint32(v uint32) {
	p := w.room(4)
	p[0], p[1], p[2], p[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

// Uint64 appends eight bytes.
func (w *Writer) Uint64(v uint64) {
	p := w.room(8)
	p[0], p[1], p[2], p[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	p[4], p[5], p[6], p[7] = byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
}

// Int64 appends eight bytes, as two's complement.
func (w *Writer) Int64(v int64) { w.Uint64(uint64(v)) }

// Count appends a length or a number of entries as four bytes. It panics if the number does not fit.
func (w *Writer) Count(n int) {
	if n < 0 || n > math.MaxUint32 {
		panic("a count of " + strconv.Itoa(n) + " does not fit into four bytes")
	}
	w.Uint32(uint32(n))
}

// SizedBytes appends the length of p and p.
func (w *Writer) SizedBytes(p []byte) {
	w.Count(len(p))
	w.Bytes(p)
}

// SizedString appends the length of s in bytes and s.
func (w *Writer) SizedString(s string) {
	w.Count(len(s))
	w.String(s)
}

// room gives the next n bytes of the buffer, n being at most its size.
func (w *Writer) room(n int) []byte {
	if bufferBytes-w.used < n {
		w.flush()
	}
	w.used += n
	return w.buffer[w.used-n : w.used]
}

func (w *Writer) flush() {
	if w.used > 0 {
		w.host.write(w.buffer[:w.used])
		w.used = 0
	}
}

// Reader streams a snapshot from the host through four kilobytes. All numbers are little-endian.
//
// Its first failure stays: from then on every read gives zeros, and when Restore returns, the SDK rejects the
// snapshot with the failure, whatever Restore made of the zeros. So Restore reads on without looking, and loops are
// bounded by [Reader.Count].
type Reader struct {
	host host
	// What the host still has; not what is in the buffer.
	coming     int
	start, end int
	err        error
	buffer     [bufferBytes]byte
}

const errTooShort = Rejection("the snapshot is too short")

// Remaining is the number of bytes that were not read.
func (r *Reader) Remaining() int { return r.coming + r.end - r.start }

// Err is the first failure, or nil.
func (r *Reader) Err() error { return r.err }

// Read makes the reader an [io.Reader]. It gives io.EOF at the end, which is no failure.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n := min(len(p), r.Remaining())
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	r.Fill(p[:n])
	return n, r.err
}

// Fill reads exactly so many bytes as p has; zeros if they are not there.
func (r *Reader) Fill(p []byte) {
	if !r.expect(len(p)) {
		clear(p)
		return
	}
	for len(p) > 0 {
		if r.start == r.end && len(p) >= bufferBytes {
			n := r.host.read(p)
			if !r.took(n) {
				clear(p)
				return
			}
			p = p[n:]
			continue
		}
		if r.start == r.end {
			n := r.host.read(r.buffer[:])
			if !r.took(n) {
				clear(p)
				return
			}
			r.start, r.end = 0, n
		}
		n := copy(p, r.buffer[r.start:r.end])
		r.start += n
		p = p[n:]
	}
}

// Bytes reads n bytes. It allocates no more than the snapshot has.
func (r *Reader) Bytes(n int) []byte {
	if !r.expect(n) {
		return nil
	}
	p := make([]byte, n)
	r.Fill(p)
	return p
}

// String reads n bytes as a string.
func (r *Reader) String(n int) string { return string(r.Bytes(n)) }

// Uint8 reads one byte.
func (r *Reader) Uint8() uint8 {
	var p [1]byte
	r.small(p[:])
	return p[0]
}

// Uint32 reads four bytes.
func (r *Reader) Uint32() uint32 {
	var p [4]byte
	r.small(p[:])
	return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
}

// Uint64 reads eight bytes.
func (r *Reader) Uint64() uint64 {
	var p [8]byte
	r.small(p[:])
	return getUint64(p[:])
}

// Int64 reads eight bytes, as two's complement.
func (r *Reader) Int64() int64 { return int64(r.Uint64()) }

// Count reads a number of entries (four bytes) of which each has at least minBytes bytes in the snapshot. A number
// that the rest of the snapshot cannot hold is a failure and gives 0, so it is safe to allocate for it.
func (r *Reader) Count(minBytes int) int {
	n := int(r.Uint32())
	if minBytes > 0 && n > r.Remaining()/minBytes {
		r.fail(errTooShort)
		return 0
	}
	return n
}

// SizedBytes reads a length (four bytes) and so many bytes.
func (r *Reader) SizedBytes() []byte { return r.Bytes(r.Count(1)) }

// SizedString reads a length (four bytes) and so many bytes as a string.
func (r *Reader) SizedString() string { return string(r.SizedBytes()) }

// small reads what is no longer than eight bytes. Mostly it lies in the buffer; p does not escape then.
func (r *Reader) small(p []byte) {
	if r.err == nil && r.end-r.start >= len(p) {
		copy(p, r.buffer[r.start:])
		r.start += len(p)
		return
	}
	var whole [8]byte
	r.slow(&whole, len(p))
	copy(p, whole[:])
}

//go:noinline
func (r *Reader) slow(whole *[8]byte, n int) {
	taken := make([]byte, n)
	r.Fill(taken)
	copy(whole[:], taken)
}

func (r *Reader) expect(n int) bool {
	if r.err == nil && (n < 0 || n > r.Remaining()) {
		r.fail(errTooShort)
	}
	return r.err == nil
}

// took notes what the host gave. It gives nothing only if the input is shorter than it said.
func (r *Reader) took(n int) bool {
	if n <= 0 || n > r.coming {
		r.fail(errTooShort)
		return false
	}
	r.coming -= n
	return true
}

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// finish is the verdict on a restore that returned err.
func (r *Reader) finish(err error) error {
	if r.err != nil {
		return r.err
	}
	if err == nil && r.Remaining() > 0 {
		return Rejection("the snapshot has " + strconv.Itoa(r.Remaining()) + " bytes too many")
	}
	return err
}

func getUint64(p []byte) uint64 {
	return uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16 | uint64(p[3])<<24 |
		uint64(p[4])<<32 | uint64(p[5])<<40 | uint64(p[6])<<48 | uint64(p[7])<<56
}
