// The probe of guest-sdk/conformance/PROBE.md.
package main

import (
	"hash/fnv"
	"strconv"
	"strings"

	"raftfsm"
)

func init() { raftfsm.Register(New) }

func main() {}

const (
	magic     = "PRB1"
	maxNumber = 16_777_216
	maxRandom = 1024
)

var levels = map[string]raftfsm.Level{
	"error": raftfsm.LevelError,
	"warn":  raftfsm.LevelWarn,
	"info":  raftfsm.LevelInfo,
	"debug": raftfsm.LevelDebug,
}

type probe struct {
	state []byte
}

// New is the probe with an empty state.
func New() raftfsm.Machine { return &probe{} }

func (p *probe) Apply(ctx *raftfsm.Context, command []byte) ([]byte, error) {
	word, text, given := strings.Cut(string(command), " ")
	switch word {
	case "emit", "emit-reject":
		topic, payload, both := strings.Cut(text, " ")
		if !both {
			return nil, raftfsm.Rejection("emit needs a topic and a text")
		}
		ctx.Emit(topic, []byte(payload))
		if word == "emit-reject" {
			return nil, raftfsm.Rejection("no")
		}
		return nil, nil
	case "log":
		name, line, both := strings.Cut(text, " ")
		level, known := levels[name]
		if !both || !known {
			return nil, raftfsm.Rejection("log needs a level (error, warn, info or debug) and a text")
		}
		ctx.Log(level, line)
		return nil, nil
	case "set":
		p.state = []byte(text)
		return decimal(len(p.state)), nil
	case "fill":
		count, err := number(text, maxNumber)
		if err != nil {
			return nil, err
		}
		p.state = make([]byte, count)
		for i := range p.state {
			p.state[i] = byte(i % 251)
		}
		return decimal(count), nil
	}
	return common(ctx, word, text, given)
}

func (p *probe) Query(ctx *raftfsm.Context, question []byte) ([]byte, error) {
	word, text, given := strings.Cut(string(question), " ")
	if !given {
		switch word {
		case "get":
			return p.state, nil
		case "length":
			return decimal(len(p.state)), nil
		case "checksum":
			hash := fnv.New32a()
			hash.Write(p.state)
			return decimal(int(hash.Sum32())), nil
		}
	}
	return common(ctx, word, text, given)
}

//go:wasmexport classify
func classify(length uint32) int32 { return raftfsm.ExportClassify(length) }

var commands = []string{
	"echo", "reject", "trap", "index", "time", "random", "emit", "emit-reject", "log", "set", "fill", "actor",
}

func (p *probe) Classify(_ *raftfsm.Context, command []byte) string {
	word, _, _ := strings.Cut(string(command), " ")
	for _, known := range commands {
		if word == known {
			return known
		}
	}
	return ""
}

//go:wasmexport check
func check() int32 { return raftfsm.ExportCheck() }

func (p *probe) Check(*raftfsm.Context) error {
	if string(p.state) == "broken" {
		return raftfsm.Rejection("the state is broken")
	}
	return nil
}

//go:wasmexport state_version
func stateVersion() int32 { return raftfsm.ExportStateVersion() }

//go:wasmexport restores
func restores(length uint32) int32 { return raftfsm.ExportRestores(length) }

func (p *probe) StateVersion() string { return "probe/1" }

func (p *probe) Restores(version string) error {
	if version != p.StateVersion() {
		return raftfsm.Rejection("not a format of the probe: " + version)
	}
	return nil
}

//go:wasmexport adopt
func adopt(length uint32) int32 { return raftfsm.ExportAdopt(length) }

// Adopt keeps what there is of the old instance: see PROBE.md.
func (p *probe) Adopt(_ *raftfsm.Context, old *raftfsm.OldInstance) error {
	module := old.Module()
	p.state = append(p.state, module[:]...)
	for i := range 8 {
		p.state = append(p.state, byte(old.Size()>>(8*i)))
	}
	p.state = append(p.state, old.Bytes(0, 16)...)
	for number := range uint32(2) {
		global, there := old.Global(number)
		kind := byte(255)
		if there {
			kind = byte(global.Type)
		}
		p.state = append(p.state, kind)
		p.state = append(p.state, global.Bits[:]...)
	}
	return nil
}

func (p *probe) Snapshot(_ *raftfsm.Context, out *raftfsm.Writer) error {
	out.String(magic)
	out.SizedBytes(p.state)
	return nil
}

func (p *probe) Restore(_ *raftfsm.Context, in *raftfsm.Reader) error {
	if in.String(len(magic)) != magic {
		return raftfsm.Rejection("not a snapshot of the probe")
	}
	p.state = in.SizedBytes()
	return nil
}

// common has what commands and questions share.
func common(ctx *raftfsm.Context, word, text string, given bool) ([]byte, error) {
	switch {
	case word == "echo":
		return []byte(text), nil
	case word == "reject":
		return nil, raftfsm.Rejection(text)
	case word == "trap" && !given:
		panic("the probe was asked to trap")
	case word == "index" && !given:
		return strconv.AppendUint(nil, ctx.Index(), 10), nil
	case word == "actor" && !given:
		return []byte(ctx.Actor()), nil
	case word == "time" && !given:
		return strconv.AppendUint(nil, ctx.TimeMs(), 10), nil
	case word == "random":
		count, err := number(text, maxRandom)
		if err != nil {
			return nil, err
		}
		random := make([]byte, count)
		ctx.RandomBytes(random)
		return hexadecimal(random), nil
	}
	return nil, raftfsm.Rejection("unknown: " + word)
}

func number(text string, most int) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > uint64(most) {
		return 0, raftfsm.Rejection("N must be a decimal number from 0 to " + strconv.Itoa(most))
	}
	return int(n), nil
}

// hexadecimal does without encoding/hex, which brings fmt into the module: 150 kilobytes.
func hexadecimal(p []byte) []byte {
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 2*len(p))
	for _, b := range p {
		text = append(text, digits[b>>4], digits[b&15])
	}
	return text
}

func decimal(n int) []byte { return strconv.AppendInt(nil, int64(n), 10) }
