package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// pile keeps what it is told, in order. Some commands make it break a promise.
type pile struct {
	founded bool
	texts   []string
}

func newPile() Machine { return &pile{} }

func (p *pile) Found(*Context) error {
	p.founded = true
	return nil
}

func (p *pile) Apply(ctx *Context, command []byte) ([]byte, error) {
	switch text := string(command); text {
	case "":
		return nil, Rejection("nothing to keep")
	case "cheat":
		p.texts = append(p.texts, "stolen")
		return nil, errors.New("caught")
	case "position":
		return fmt.Appendf(nil, "%d %d", ctx.Index(), ctx.TimeMs()), nil
	case "chance":
		return fmt.Appendf(nil, "%d", rand.New(ctx).IntN(1000)), nil
	case "tell", "tell and refuse":
		ctx.Log(LevelInfo, "telling")
		ctx.Emit("told", command)
		if text != "tell" {
			return nil, Rejection("no")
		}
		return nil, nil
	default:
		p.texts = append(p.texts, text)
		return command, nil
	}
}

func (p *pile) Query(_ *Context, question []byte) ([]byte, error) {
	if string(question) == "cheat" {
		p.texts = nil
	}
	return fmt.Appendf(nil, "%v %s", p.founded, strings.Join(p.texts, ",")), nil
}

func (p *pile) Snapshot(_ *Context, out *Writer) error {
	out.String("PIL1")
	out.Uint8(map[bool]uint8{true: 1}[p.founded])
	out.Count(len(p.texts))
	for _, text := range p.texts {
		out.SizedString(text)
	}
	return nil
}

func (p *pile) Restore(_ *Context, in *Reader) error {
	if in.String(4) != "PIL1" {
		return Rejection("not a pile")
	}
	p.founded = in.Uint8() == 1
	for range in.Count(4) {
		p.texts = append(p.texts, in.SizedString())
	}
	return nil
}

// failures plays the part of *testing.T where a test must fail.
type failures struct{ texts []string }

func (f *failures) Helper() {}

func (f *failures) Fatalf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func TestAMachineIsFoundedAndAnswers(t *testing.T) {
	node := NewNode(t, newPile)
	node.ExpectApply("one", "one")
	node.ExpectApply("two", "two")
	node.ExpectReject("", "nothing to keep")
	node.ExpectQuery("", "true one,two")
	node.Renew()
	node.ExpectQuery("", "true one,two")
}

func TestPositionAndTimeComeFromTheLog(t *testing.T) {
	node := NewNode(t, newPile)
	node.ExpectApply("position", "2 1700000000000")
	node.Advance(1500)
	node.ExpectApply("position", "3 1700000001500")
}

func TestChanceIsTheSameOnAllReplicas(t *testing.T) {
	one, two := NewNode(t, newPile), NewNode(t, newPile)
	var last string
	for range 5 {
		answer, err := one.Apply("chance")
		if err != nil {
			t.Fatal(err)
		}
		two.ExpectApply("chance", answer)
		if answer == last {
			t.Fatal("the next entry has the same chance")
		}
		last = answer
	}
}

func TestEventsCountOnlyIfTheCommandIsAccepted(t *testing.T) {
	node := NewNode(t, newPile)
	node.ExpectApply("tell", "")
	if want := []Event{{"told", "tell"}}; !slices.Equal(node.Events, want) {
		t.Fatalf("events: %v", node.Events)
	}
	if want := []Line{{LevelInfo, "telling"}}; !slices.Equal(node.Lines, want) {
		t.Fatalf("lines: %v", node.Lines)
	}
	node.ExpectReject("tell and refuse", "no")
	if len(node.Events) > 0 {
		t.Fatalf("events of a rejected command: %v", node.Events)
	}
}

func TestBrokenPromisesAndWrongAnswersFailTheTest(t *testing.T) {
	for want, play := range map[string]func(*Node){
		`the rejected command "cheat" changed the state`:             func(n *Node) { n.Apply("cheat") },
		`the question "cheat" changed the state`:                     func(n *Node) { n.Query("cheat") },
		`apply "x": answered "x", not "y"`:                           func(n *Node) { n.ExpectApply("x", "y") },
		`apply "": rejected with "nothing to keep", not answered`:    func(n *Node) { n.ExpectApply("", "y") },
		`apply "x": accepted with "x", not rejected with "no"`:       func(n *Node) { n.ExpectReject("x", "no") },
		`apply "": rejected with "nothing to keep", not "something"`: func(n *Node) { n.ExpectReject("", "something") },
	} {
		found := &failures{}
		node := NewNode(found, newPile)
		if _, err := node.Apply("first"); err != nil {
			t.Fatal(err)
		}
		play(node)
		if !slices.ContainsFunc(found.texts, func(text string) bool { return strings.HasPrefix(text, want) }) {
			t.Errorf("%q is missing in %q", want, found.texts)
		}
	}
}

func TestARenewalIsCheckedCommandByCommand(t *testing.T) {
	CheckRenewal(t, newPile, []string{"a", "", "b", "chance", "position", "tell"})
	found := &failures{}
	CheckRenewal(found, func() Machine { return &forgetful{} }, []string{"a", "b"})
	if len(found.texts) == 0 {
		t.Fatal("a machine that forgets passes")
	}
}

// forgetful leaves its number out of the snapshot.
type forgetful struct{ number int }

func (f *forgetful) Apply(*Context, []byte) ([]byte, error) {
	f.number++
	return fmt.Appendf(nil, "%d", f.number), nil
}
func (f *forgetful) Query(*Context, []byte) ([]byte, error)     { return nil, nil }
func (f *forgetful) Snapshot(_ *Context, out *Writer) error     { return nil }
func (f *forgetful) Restore(_ *Context, in *Reader) (err error) { return nil }

func TestEveryCutSnapshotAndATrailingByteAreRejected(t *testing.T) {
	node := NewNode(t, newPile)
	node.ExpectApply("one", "one")
	node.ExpectApply("three", "three")
	whole := node.Snapshot()
	for cut := range whole {
		if err := node.Restore(whole[:cut]); err != errTooShort {
			t.Fatalf("cut to %d bytes: %v", cut, err)
		}
	}
	if err := node.Restore(append(slices.Clone(whole), 0)); text(err) != "the snapshot has 1 bytes too many" {
		t.Fatalf("a trailing byte: %v", err)
	}
	if err := node.Restore([]byte("PIL2.....")); text(err) != "not a pile" {
		t.Fatalf("another magic: %v", err)
	}
	node.ExpectQuery("", "true one,three")
}

// memory is a host that gives and takes bytes, the former in pieces of a size.
type memory struct {
	in, out []byte
	piece   int
}

func (m *memory) read(p []byte) int {
	n := copy(p[:min(len(p), m.piece)], m.in)
	m.in = m.in[n:]
	return n
}
func (m *memory) write(p []byte)      { m.out = append(m.out, p...) }
func (m *memory) index() uint64       { return 0 }
func (m *memory) timeMs() uint64      { return 0 }
func (m *memory) random([]byte)       {}
func (m *memory) emit(string, []byte) {}
func (m *memory) log(Level, string)   {}
func (m *memory) reader() *Reader     { return &Reader{host: m, coming: len(m.in)} }

func TestAStreamReadsWhatItWroteWhateverThePieces(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 1000)
	target := &memory{}
	w := &Writer{host: target}
	for i := range uint64(2000) {
		w.Uint8(uint8(i))
		w.Uint32(uint32(i) * 0x01020304)
		w.Uint64(i * 0x0102030405060708)
		w.Int64(-int64(i))
		w.SizedString("text")
	}
	w.SizedBytes(long)
	w.SizedString(string(long))
	w.flush()

	for _, piece := range []int{1, 7, bufferBytes, 1 << 20} {
		source := &memory{in: target.out, piece: piece}
		r := source.reader()
		for i := range uint64(2000) {
			if r.Uint8() != uint8(i) || r.Uint32() != uint32(i)*0x01020304 || r.Uint64() != i*0x0102030405060708 ||
				r.Int64() != -int64(i) || r.SizedString() != "text" {
				t.Fatalf("pieces of %d: entry %d differs: %v", piece, i, r.Err())
			}
		}
		if !bytes.Equal(r.SizedBytes(), long) || r.SizedString() != string(long) || r.finish(nil) != nil {
			t.Fatalf("pieces of %d: the long texts differ: %v", piece, r.Err())
		}
	}
}

func TestALengthThatTheSnapshotCannotHoldAllocatesNothing(t *testing.T) {
	for name, read := range map[string]func(*Reader){
		"sized bytes": func(r *Reader) { r.SizedBytes() },
		"bytes":       func(r *Reader) { r.Bytes(int(r.Uint32())) },
		"count":       func(r *Reader) { _ = make([]uint64, r.Count(8)) },
	} {
		source := &memory{in: []byte{0xff, 0xff, 0xff, 0x7f, 1, 2, 3}, piece: 100}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read((&memory{in: source.in, piece: 100}).reader())
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 3*bufferBytes {
			t.Errorf("%s: %d bytes were allocated", name, allocated)
		}
		r := source.reader()
		if read(r); r.Err() != errTooShort {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
}

func TestAfterAFailureAReaderGivesZeros(t *testing.T) {
	r := (&memory{in: []byte{1, 2, 3}, piece: 100}).reader()
	if r.Uint32() != 0 || r.Uint8() != 0 || r.Count(1) != 0 || r.SizedString() != "" || r.Bytes(1) != nil {
		t.Fatal("something was read")
	}
	if err := r.finish(errors.New("nonsense")); err != errTooShort {
		t.Fatalf("the verdict is %v", err)
	}
	r = (&memory{in: []byte{1, 2, 3}, piece: 100}).reader()
	if r.Bytes(-1); r.Err() != errTooShort {
		t.Fatal("a negative length is taken")
	}
}

func TestAHostThatHasLessThanItSaidIsNoEndlessLoop(t *testing.T) {
	r := &Reader{host: &memory{in: []byte("abc"), piece: 2}, coming: 10}
	if r.Bytes(10); r.Err() != errTooShort {
		t.Fatalf("the failure is %v", r.Err())
	}
	if got := input(&memory{in: []byte("abc"), piece: 2}, 10); string(got) != "abc" {
		t.Fatalf("the input is %q", got)
	}
}

func TestStreamsWorkWithTheStandardLibrary(t *testing.T) {
	target := &memory{}
	w := &Writer{host: target}
	fmt.Fprintf(w, "%s-%d", strings.Repeat("x", 9000), 7)
	w.flush()
	got, err := io.ReadAll((&memory{in: target.out, piece: 1000}).reader())
	if err != nil || string(got) != strings.Repeat("x", 9000)+"-7" {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// heir takes the pile of another module over: at 8 the address of a text, at 12 its length.
type heir struct{ pile }

func (h *heir) Adopt(_ *Context, old *OldInstance) error {
	if module := old.Module(); module[0] != 1 {
		return Rejection("a stranger's memory")
	}
	if top, ok := old.Global(0); !ok || top.Type != GlobalI32 || uint64(top.Uint32()) != old.Size() {
		return Rejection("another layout")
	}
	h.texts = append(h.texts, old.String(uint64(old.Uint32(8)), int(old.Uint32(12))))
	if old.Uint8(0) != 0 || old.Uint64(0) != 0 {
		return Rejection("it does not begin with zeros")
	}
	return nil
}

func TestAMachineAdoptsTheMemoryOfAnotherModule(t *testing.T) {
	memory := append(make([]byte, 8), 16, 0, 0, 0, 5, 0, 0, 0)
	memory = append(memory, "texts"...)
	top := Global{Type: GlobalI32, Bits: [16]byte{byte(len(memory))}}
	node := NewNode(t, func() Machine { return &heir{} })
	node.ExpectApply("mine", "mine")
	for want, adopt := range map[string]func() error{
		"a stranger's memory": func() error { return node.Adopt([32]byte{2}, memory, top) },
		"another layout":      func() error { return node.Adopt([32]byte{1}, memory) },
		"the old memory ends before 4 bytes at 0x8": func() error {
			return node.Adopt([32]byte{1}, memory[:10], Global{Bits: [16]byte{10}})
		},
	} {
		if err := adopt(); text(err) != want {
			t.Errorf("%v instead of %q", err, want)
		}
	}
	memory[12] = 6
	if err := node.Adopt([32]byte{1}, memory, top); text(err) != "the old memory ends before 6 bytes at 0x10" {
		t.Errorf("a length beyond the end: %v", err)
	}
	node.ExpectQuery("", "true mine")
	memory[12] = 5
	if err := node.Adopt([32]byte{1}, memory, top); err != nil {
		t.Fatal(err)
	}
	node.ExpectQuery("", "false texts")
	if err := NewNode(t, newPile).Adopt([32]byte{1}, memory, top); err == nil {
		t.Error("a machine without the method adopts")
	}
}

func TestACountBeyondFourBytesPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	(&Writer{host: &memory{}}).Count(1 << 32)
}
