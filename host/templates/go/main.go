// {{name}}: a counter. Commands are decimal numbers, which are added; an empty query gives the sum.
//
// Three rules make it safe to replicate:
//  1. Only the log decides: no clock, no chance and no input but those of ctx and the command.
//  2. Rejected means unchanged: check first, change after.
//  3. Snapshots are versioned: tomorrow's release must read what today's wrote.
package main

import (
	"math"
	"strconv"

	"example.com/{{name}}/raftfsm"
)

func init() { raftfsm.Register(New) }

// The host calls the machine; main has nothing to do.
func main() {}

const (
	magic = "CNT1" // The last character is the version of the format.

	errNoNumber = raftfsm.Rejection("a command is a decimal number of at most 18 digits, such as 5 or -3")
	errOverflow = raftfsm.Rejection("the counter would overflow")
	errQuestion = raftfsm.Rejection("a query of the counter is empty")
	errForeign  = raftfsm.Rejection("not a snapshot of the counter")
)

type counter struct {
	sum int64
}

// New is a counter at 0.
func New() raftfsm.Machine { return &counter{} }

// Apply answers, or returns an error, which rejects the command.
func (c *counter) Apply(ctx *raftfsm.Context, command []byte) ([]byte, error) {
	number, err := parse(string(command))
	if err != nil {
		return nil, err
	}
	if number > 0 && c.sum > math.MaxInt64-number || number < 0 && c.sum < math.MinInt64-number {
		return nil, errOverflow
	}
	c.sum += number
	return decimal(c.sum), nil
}

// Query only looks: the host undoes whatever it changes.
func (c *counter) Query(ctx *raftfsm.Context, question []byte) ([]byte, error) {
	if len(question) > 0 {
		return nil, errQuestion
	}
	return decimal(c.sum), nil
}

func (c *counter) Snapshot(ctx *raftfsm.Context, out *raftfsm.Writer) error {
	out.String(magic)
	out.Int64(c.sum)
	return nil
}

// Restore fills a new counter. The SDK rejects a snapshot that is too short or too long.
func (c *counter) Restore(ctx *raftfsm.Context, in *raftfsm.Reader) error {
	if in.String(len(magic)) != magic {
		return errForeign
	}
	c.sum = in.Int64()
	return nil
}

func parse(text string) (int64, error) {
	digits := text
	if len(text) > 0 && text[0] == '-' {
		digits = text[1:]
	}
	if len(digits) > 18 {
		return 0, errNoNumber
	}
	for _, digit := range []byte(digits) {
		if digit < '0' || digit > '9' {
			return 0, errNoNumber
		}
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errNoNumber
	}
	return number, nil
}

func decimal(number int64) []byte { return strconv.AppendInt(nil, number, 10) }
