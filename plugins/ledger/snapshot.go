package main

import (
	"strconv"

	"raftfsm"
)

// The snapshot is the journal: accounts, and transfers in the order of the log, without balances. Restore posts them
// again under the rules of the ledger, so that no snapshot can bring in a state that commands could not reach.

const magic = "LDG1"

const (
	flagExternal = 1
	flagClosed   = 2
	flagOwned    = 4 // The owner follows.
)

func (m *machine) Snapshot(_ *raftfsm.Context, out *raftfsm.Writer) error {
	l := m.ledger
	out.String(magic)
	out.Count(l.accounts.len())
	for i := range l.accounts.len() {
		a := l.accounts.at(uint32(i))
		out.SizedBytes(l.texts.get(a.name))
		out.SizedString(l.units[a.unit].name)
		owned := a.owner != unowned
		out.Uint8(flag(flagExternal, a.external) | flag(flagClosed, a.closed) | flag(flagOwned, owned))
		if owned {
			out.SizedBytes(l.texts.get(a.owner))
		}
	}
	out.Count(l.transfers.len())
	for i := range l.transfers.len() {
		t := l.transfers.at(uint32(i))
		out.SizedBytes(l.texts.get(t.id))
		out.Uint64(t.at.index)
		out.Uint64(t.at.timeMs)
		if t.reverses != none {
			out.Uint32(0)
			out.Uint32(t.reverses)
			continue
		}
		out.Count(int(t.moves))
		for j := range t.moves {
			e := l.entries.at(t.first + j)
			out.Uint32(e.from)
			out.Uint32(e.to)
			out.Int64(e.amount)
		}
	}
	return nil
}

// The least bytes that these take in a snapshot, their names having one byte.
const (
	leastAccount  = 5 + 5 + 1
	leastTransfer = 5 + 8 + 8 + 4 + 4
	leastMove     = 4 + 4 + 8
)

func (m *machine) Restore(_ *raftfsm.Context, in *raftfsm.Reader) error {
	if in.String(len(magic)) != magic {
		return raftfsm.Rejection("not a snapshot of the ledger, or of a later release")
	}
	l := newLedger()
	closed, err := l.restoreAccounts(in)
	if err != nil {
		return err
	}
	last := stamp{}
	for range in.Count(leastTransfer) {
		at, err := l.restoreTransfer(in, last)
		if err != nil {
			return err
		}
		last = at
	}
	for _, number := range closed {
		if l.accounts.at(number).balance != 0 {
			return raftfsm.Rejection("a closed account with a balance in the snapshot")
		}
		l.accounts.at(number).closed = true
	}
	m.ledger = l
	return nil
}

func (l *ledger) restoreAccounts(in *raftfsm.Reader) (closed []uint32, err error) {
	for range in.Count(leastAccount) {
		name, unit, flags := in.SizedString(), in.SizedString(), in.Uint8()
		if flags > flagExternal|flagClosed|flagOwned {
			return nil, raftfsm.Rejection("unknown flags of an account in the snapshot")
		}
		owner := ""
		if flags&flagOwned != 0 {
			owner = in.SizedString()
			if err := checkName("an owner", owner); err != nil {
				return nil, err
			}
		}
		number, opened, err := l.open(name, unit, owner, flags&flagExternal != 0)
		if err != nil {
			return nil, err
		}
		if !opened {
			return nil, raftfsm.Rejection("the account " + name + " is twice in the snapshot")
		}
		if flags&flagClosed != 0 {
			closed = append(closed, number)
		}
	}
	return closed, nil
}

func (l *ledger) restoreTransfer(in *raftfsm.Reader, last stamp) (stamp, error) {
	id := in.SizedString()
	at := stamp{in.Uint64(), in.Uint64()}
	if err := checkName("an id", id); err != nil {
		return at, err
	}
	if _, twice := l.findTransfer(id); twice {
		return at, raftfsm.Rejection("the transfer " + id + " is twice in the snapshot")
	}
	if at.index <= last.index || at.timeMs < last.timeMs {
		return at, raftfsm.Rejection("the transfer " + id + " is out of order in the snapshot")
	}
	count := in.Count(leastMove)
	if count == 0 {
		original := in.Uint32()
		if int(original) >= l.transfers.len() {
			return at, raftfsm.Rejection("the transfer " + id + " reverses one that is not in the snapshot")
		}
		_, err := l.reverse(id, original, at)
		return at, err
	}
	if count > maxMoves {
		return at, raftfsm.Rejection("the transfer " + id + " has " + strconv.Itoa(count) + " moves in the snapshot")
	}
	moves := make([]move, 0, maxMoves)
	for range count {
		m := move{in.Uint32(), in.Uint32(), in.Int64()}
		if int(max(m.from, m.to)) >= l.accounts.len() || m.amount < 1 || m.amount > maxAmount {
			return at, raftfsm.Rejection("the transfer " + id + " has an impossible move in the snapshot")
		}
		moves = append(moves, m)
	}
	_, err := l.post(id, moves, at, none)
	return at, err
}

func flag(bit uint8, set bool) uint8 {
	if set {
		return bit
	}
	return 0
}
