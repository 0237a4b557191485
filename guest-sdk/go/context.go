package raftfsm

// Level says how much a line of the log matters.
type Level int32

// The levels of the ABI.
const (
	LevelError Level = 1
	LevelWarn  Level = 2
	LevelInfo  Level = 3
	LevelDebug Level = 4
)

// host is what the ABI's imports offer: the real ones in a wasm module, those of [Node] in tests.
type host interface {
	read(p []byte) int
	write(p []byte)
	index() uint64
	timeMs() uint64
	random(p []byte)
	emit(topic string, payload []byte)
	log(level Level, line string)
}

// Context is what a call sees of the log. It is the only source of time and chance that is the same on all
// replicas, and good for one call only.
type Context struct {
	host host
}

// Index is the index of the entry that is being applied; in other calls, of the last one that was. It never goes
// back from command to command, but an entry may hold several commands: see Ordinal.
func (c *Context) Index() uint64 { return c.host.index() }

// Ordinal is which of its entry's commands is being applied, from 0 on: no other has the same index and ordinal.
func (c *Context) Ordinal() uint32 { return ordinal() }

// TimeMs is the log's clock in milliseconds since the Unix epoch. It never goes back, and stands still during a call.
func (c *Context) TimeMs() uint64 { return c.host.timeMs() }

// Actor is who gave the command, as the cluster knows him; empty if nobody is known, and in calls that are about no
// command. The command itself has no say in it.
func (c *Context) Actor() string { return actor(c.host) }

// RandomBytes fills p. Whoever reads the log can compute these bytes: they are not for secrets.
func (c *Context) RandomBytes(p []byte) { c.host.random(p) }

// Uint64 makes the context a source for math/rand/v2: rand.New(ctx).
func (c *Context) Uint64() uint64 {
	var p [8]byte
	c.host.random(p[:])
	return getUint64(p[:])
}

// Emit publishes an event. It counts if the command is accepted.
func (c *Context) Emit(topic string, payload []byte) { c.host.emit(topic, payload) }

// Log writes a line to the log of this node. It never changes an outcome.
func (c *Context) Log(level Level, line string) { c.host.log(level, line) }
