package main

import (
	"strconv"

	"raftfsm"
)

// Most answers and events fit; what grows from nothing is allocated five times.
const roomForAnswer = 160

// The commands: words into moves, events and answers. What is allowed is the ledger's to say.

const (
	errOpenUsage     = raftfsm.Rejection("usage: open ACCOUNT UNIT [external]")
	errCloseUsage    = raftfsm.Rejection("usage: close ACCOUNT")
	errTransferUsage = raftfsm.Rejection("usage: transfer ID FROM TO AMOUNT, and up to seven more FROM TO AMOUNT")
	errReverseUsage  = raftfsm.Rejection("usage: reverse ID TRANSFER")
	errAmount        = raftfsm.Rejection("an amount is a whole number from 1 to 9007199254740991, in the unit's smallest part")
)

func (m *machine) open(ctx *raftfsm.Context, words []string) ([]byte, error) {
	if len(words) < 2 || len(words) > 3 || len(words) == 3 && words[2] != "external" {
		return nil, errOpenUsage
	}
	number, opened, err := m.ledger.open(words[0], words[1], ctx.Actor(), len(words) == 3)
	if err != nil {
		return nil, err
	}
	if opened {
		ctx.Emit("opened", []byte(words[0]+" "+words[1]))
	}
	return m.ledger.appendAccount(make([]byte, 0, roomForAnswer), number), nil
}

func (m *machine) close(ctx *raftfsm.Context, words []string) ([]byte, error) {
	if len(words) != 1 {
		return nil, errCloseUsage
	}
	number, err := m.ledger.mustFind(words[0])
	if err != nil {
		return nil, err
	}
	if err := m.ledger.mustOwn(number, ctx.Actor()); err != nil {
		return nil, err
	}
	closed, err := m.ledger.close(number)
	if err != nil {
		return nil, err
	}
	if closed {
		ctx.Emit("closed", []byte(words[0]))
	}
	return m.ledger.appendAccount(make([]byte, 0, roomForAnswer), number), nil
}

func (m *machine) transfer(ctx *raftfsm.Context, words []string) ([]byte, error) {
	if len(words) < 4 || (len(words)-1)%3 != 0 || (len(words)-1)/3 > maxMoves {
		return nil, errTransferUsage
	}
	id := words[0]
	if err := checkName("an id", id); err != nil {
		return nil, err
	}
	// An id that is known is looked at first: its accounts may be closed by now.
	known, repeated := m.ledger.findTransfer(id)
	moves := make([]move, 0, maxMoves)
	for words := words[1:]; len(words) > 0; words = words[3:] {
		next, err := m.ledger.readMove(words[0], words[1], words[2])
		if err != nil {
			return nil, err
		}
		moves = append(moves, next)
	}
	if err := m.ledger.mustOwnSources(moves, ctx.Actor()); err != nil {
		return nil, err
	}
	if repeated {
		return m.repeat(known, m.ledger.sameMoves(known, moves))
	}
	number, err := m.ledger.post(id, moves, stamp{ctx.Index(), ctx.TimeMs()}, none)
	if err != nil {
		return nil, err
	}
	ctx.Emit("transferred", m.ledger.appendWords(make([]byte, 0, roomForAnswer), number))
	return m.ledger.appendReceipt(make([]byte, 0, roomForAnswer), number), nil
}

func (m *machine) reverse(ctx *raftfsm.Context, words []string) ([]byte, error) {
	if len(words) != 2 {
		return nil, errReverseUsage
	}
	id := words[0]
	if err := checkName("an id", id); err != nil {
		return nil, err
	}
	original, found := m.ledger.findTransfer(words[1])
	if !found {
		return nil, raftfsm.Rejection("there is no transfer of this id to reverse")
	}
	// What it takes it takes from those who got it.
	if err := m.ledger.mustOwnSources(m.ledger.movesBack(original), ctx.Actor()); err != nil {
		return nil, err
	}
	if known, repeated := m.ledger.findTransfer(id); repeated {
		return m.repeat(known, m.ledger.transfers.at(known).reverses == original)
	}
	number, err := m.ledger.reverse(id, original, stamp{ctx.Index(), ctx.TimeMs()})
	if err != nil {
		return nil, err
	}
	ctx.Emit("reversed", []byte(id+" "+words[1]))
	return m.ledger.appendReceipt(make([]byte, 0, roomForAnswer), number), nil
}

// repeat answers a transfer that was done before as it was answered then, byte for byte.
func (m *machine) repeat(known uint32, same bool) ([]byte, error) {
	if !same {
		return nil, raftfsm.Rejection("the id " + m.ledger.idOf(known) + " was used for another transfer")
	}
	return m.ledger.appendReceipt(make([]byte, 0, roomForAnswer), known), nil
}

// readMove makes a move of three words.
func (l *ledger) readMove(from, to, amount string) (move, error) {
	value, err := strconv.ParseUint(amount, 10, 64)
	if err != nil || value == 0 || value > maxAmount {
		return move{}, errAmount
	}
	source, err := l.mustFind(from)
	if err != nil {
		return move{}, err
	}
	target, err := l.mustFind(to)
	if err != nil {
		return move{}, err
	}
	return move{source, target, int64(value)}, nil
}

// nameBytes says which bytes a name may have. Such names need no escapes in JSON.
var nameBytes = func() (table [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@-") {
		table[c] = true
	}
	return table
}()

// checkName says whether a text can be a name.
func checkName(what, name string) error {
	good := len(name) >= 1 && len(name) <= maxNameBytes
	for i := 0; good && i < len(name); i++ {
		good = nameBytes[name[i]]
	}
	if !good {
		return raftfsm.Rejection(what + " has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -")
	}
	return nil
}
