package main

import (
	"slices"
	"strconv"

	"raftfsm"
)

// The state and its rules:
//   - every move takes from one account what it gives to another, so the balances of a unit add up to 0;
//   - no account is below 0, but for those that were opened as external: where a unit enters and leaves;
//   - from an account that somebody owns, nobody else takes;
//   - what is above 0 in a unit adds up to at most maxAmount. So no balance overflows, and all are exact in JSON.
//
// Records hold numbers, not pointers: the garbage collector marks them without a look inside.

const (
	maxNameBytes = 64
	maxMoves     = 8 // In one transfer.
	maxAmount    = 1<<53 - 1
	maxUnits     = 256
)

// Beyond these the ledger is full. A full one has 380 MiB alive, which the collector may let double. They are variables for the tests.
var (
	maxAccounts  = 500_000
	maxTransfers = 2_000_000
	maxAllMoves  = 4_000_000
)

// none stands for no transfer and for no move.
const none = ^uint32(0)

type unit struct {
	name     string
	accounts int
	// What is above 0 in the accounts of this unit, in sum: at most maxAmount.
	held int64
}

type account struct {
	balance  int64
	name     text
	unit     uint32
	newest   uint32 // The last move of this account, or none.
	owner    text   // Who opened it, or unowned.
	external bool
	closed   bool // Then the balance is 0.
}

// unowned stands for no owner. No owner's text is the first of all: the name of an account is.
const unowned text = 0

type transfer struct {
	at         stamp
	id         text
	first      uint32 // Its first move; the others follow.
	moves      uint32
	reverses   uint32 // A transfer, or none.
	reversedBy uint32 // A transfer, or none.
}

// stamp is the log entry of a transfer.
type stamp struct {
	index, timeMs uint64
}

type move struct {
	from, to uint32
	amount   int64 // 1 to maxAmount.
}

// entry is a move in the books, with links to the moves of both accounts before it.
type entry struct {
	move
	transfer  uint32
	olderFrom uint32
	olderTo   uint32
}

type ledger struct {
	texts     texts
	units     []unit
	accounts  list[account]
	transfers list[transfer]
	entries   list[entry]
	byName    sorted
	byID      sorted
}

func newLedger() *ledger {
	l := &ledger{}
	l.byName.key = func(number uint32) []byte { return l.texts.get(l.accounts.at(number).name) }
	l.byID.key = func(number uint32) []byte { return l.texts.get(l.transfers.at(number).id) }
	return l
}

// open opens an account for its owner (empty: for nobody in particular), or finds that it is open.
func (l *ledger) open(name, unitName, owner string, external bool) (number uint32, opened bool, err error) {
	if err := checkName("an account", name); err != nil {
		return 0, false, err
	}
	if err := checkName("a unit", unitName); err != nil {
		return 0, false, err
	}
	if number, found := l.byName.find(name); found {
		known := l.accounts.at(number)
		if known.closed {
			return 0, false, raftfsm.Rejection("the account " + name + " is closed")
		}
		other := owner != "" && l.ownerOf(number) != owner
		if l.units[known.unit].name != unitName || known.external != external || other {
			return 0, false, raftfsm.Rejection("the account " + name + " was opened before, and is another")
		}
		return number, false, nil
	}
	if l.accounts.len() >= maxAccounts {
		return 0, false, raftfsm.Rejection("the ledger is full: it has " + strconv.Itoa(maxAccounts) + " accounts")
	}
	unitNumber := slices.IndexFunc(l.units, func(u unit) bool { return u.name == unitName })
	if unitNumber < 0 {
		if len(l.units) >= maxUnits {
			return 0, false, raftfsm.Rejection("the ledger is full: it has " + strconv.Itoa(maxUnits) + " units")
		}
		unitNumber = len(l.units)
		// The name is cloned: it is a part of the command, which would be kept with it.
		l.units = append(l.units, unit{name: string([]byte(unitName))})
	}
	l.units[unitNumber].accounts++
	number = l.accounts.add(account{
		name: l.texts.add(name), unit: uint32(unitNumber), newest: none, external: external,
	})
	if owner != "" {
		l.accounts.at(number).owner = l.texts.add(owner)
	}
	l.byName.add(number)
	return number, true, nil
}

// close closes an account for good, or finds that it is closed.
func (l *ledger) close(number uint32) (closed bool, err error) {
	a := l.accounts.at(number)
	if a.balance != 0 {
		return false, raftfsm.Rejection("the account " + l.nameOf(number) + " has " + l.sum(a.balance, a.unit) + ", not 0")
	}
	closed = !a.closed
	a.closed = true
	return closed, nil
}

// reverse moves back all that a transfer moved.
func (l *ledger) reverse(id string, original uint32, at stamp) (uint32, error) {
	t := l.transfers.at(original)
	if t.reverses != none {
		return 0, raftfsm.Rejection("the transfer " + l.idOf(original) + " is itself a reversal")
	}
	if t.reversedBy != none {
		return 0, raftfsm.Rejection("the transfer " + l.idOf(original) + " was reversed by " + l.idOf(t.reversedBy))
	}
	return l.post(id, l.movesBack(original), at, original)
}

func (l *ledger) movesBack(original uint32) []move {
	t := l.transfers.at(original)
	moves := make([]move, 0, maxMoves)
	for i := range t.moves {
		e := l.entries.at(t.first + i)
		moves = append(moves, move{e.to, e.from, e.amount})
	}
	return moves
}

// post does a transfer of a new id: all of its moves, or none.
func (l *ledger) post(id string, moves []move, at stamp, reverses uint32) (uint32, error) {
	if l.transfers.len() >= maxTransfers || l.entries.len()+len(moves) > maxAllMoves {
		return 0, raftfsm.Rejection("the ledger is full: it has " + strconv.Itoa(l.transfers.len()) + " transfers with " +
			strconv.Itoa(l.entries.len()) + " moves")
	}
	changes, err := l.changes(moves)
	if err != nil {
		return 0, err
	}
	if err := l.checkHeld(changes); err != nil {
		return 0, err
	}
	// From here on nothing can fail.
	for _, c := range changes {
		a := l.accounts.at(c.account)
		l.units[a.unit].held += c.heldMore
		a.balance = c.balance
	}
	number := l.transfers.add(transfer{
		at: at, id: l.texts.add(id), first: uint32(l.entries.len()), moves: uint32(len(moves)),
		reverses: reverses, reversedBy: none,
	})
	l.byID.add(number)
	if reverses != none {
		l.transfers.at(reverses).reversedBy = number
	}
	for _, m := range moves {
		from, to := l.accounts.at(m.from), l.accounts.at(m.to)
		entryNumber := l.entries.add(entry{m, number, from.newest, to.newest})
		from.newest, to.newest = entryNumber, entryNumber
	}
	return number, nil
}

// change is what a transfer makes of an account.
type change struct {
	account  uint32
	balance  int64
	heldMore int64 // How much more of the balance is above 0 than before.
}

// changes adds the moves up, account by account, and checks each account. Only what is there at the end of the
// transfer counts: a transfer may pass money on.
func (l *ledger) changes(moves []move) ([]change, error) {
	changes := make([]change, 0, 2*maxMoves)
	add := func(number uint32, amount int64) {
		for i := range changes {
			if changes[i].account == number {
				changes[i].balance += amount
				return
			}
		}
		changes = append(changes, change{account: number, balance: l.accounts.at(number).balance + amount})
	}
	for _, m := range moves {
		from, to := l.accounts.at(m.from), l.accounts.at(m.to)
		switch {
		case m.from == m.to:
			return nil, raftfsm.Rejection("a move needs two accounts, not " + l.nameOf(m.from) + " twice")
		case from.unit != to.unit:
			return nil, raftfsm.Rejection(l.nameOf(m.from) + " is in " + l.units[from.unit].name + ", but " +
				l.nameOf(m.to) + " in " + l.units[to.unit].name)
		}
		add(m.from, -m.amount)
		add(m.to, m.amount)
	}
	for i := range changes {
		c := &changes[i]
		a := l.accounts.at(c.account)
		if a.closed {
			return nil, raftfsm.Rejection("the account " + l.nameOf(c.account) + " is closed")
		}
		if c.balance < 0 && !a.external {
			return nil, raftfsm.Rejection("the account " + l.nameOf(c.account) + " has " + l.sum(a.balance, a.unit) +
				" and lacks " + l.sum(-c.balance, a.unit))
		}
		c.heldMore = max(c.balance, 0) - max(a.balance, 0)
	}
	return changes, nil
}

// checkHeld keeps what is above 0 in each unit within maxAmount.
func (l *ledger) checkHeld(changes []change) error {
	for _, c := range changes {
		number := l.accounts.at(c.account).unit
		held := l.units[number].held
		for _, other := range changes {
			if l.accounts.at(other.account).unit == number {
				held += other.heldMore
			}
		}
		if held > maxAmount {
			return raftfsm.Rejection("there would be more than " + l.sum(maxAmount, number))
		}
	}
	return nil
}

// sameMoves says whether a transfer is one of these moves, and no reversal.
func (l *ledger) sameMoves(number uint32, moves []move) bool {
	t := l.transfers.at(number)
	if t.reverses != none || int(t.moves) != len(moves) {
		return false
	}
	for i, m := range moves {
		if l.entries.at(t.first+uint32(i)).move != m {
			return false
		}
	}
	return true
}

func (l *ledger) findTransfer(id string) (uint32, bool) { return l.byID.find(id) }

func (l *ledger) mustFind(name string) (uint32, error) {
	if err := checkName("an account", name); err != nil {
		return 0, err
	}
	number, found := l.byName.find(name)
	if !found {
		return 0, raftfsm.Rejection("there is no account " + name)
	}
	return number, nil
}

// mustOwn says whether somebody may take from an account. Where a cluster does not know who acts, everybody may.
func (l *ledger) mustOwn(number uint32, actor string) error {
	owner := l.ownerOf(number)
	if actor == "" || owner == "" || actor == owner {
		return nil
	}
	return raftfsm.Rejection("the account " + l.nameOf(number) + " is not of " + actor)
}

func (l *ledger) mustOwnSources(moves []move, actor string) error {
	for _, m := range moves {
		if err := l.mustOwn(m.from, actor); err != nil {
			return err
		}
	}
	return nil
}

// ownerOf is empty for an account that nobody owns.
func (l *ledger) ownerOf(account uint32) string {
	owner := l.accounts.at(account).owner
	if owner == unowned {
		return ""
	}
	return string(l.texts.get(owner))
}

func (l *ledger) nameOf(account uint32) string { return string(l.byName.key(account)) }

func (l *ledger) idOf(transfer uint32) string { return string(l.byID.key(transfer)) }

func (l *ledger) sum(amount int64, unit uint32) string {
	return strconv.FormatInt(amount, 10) + " " + l.units[unit].name
}
