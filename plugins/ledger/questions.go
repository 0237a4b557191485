package main

import (
	"strconv"
	"strings"

	"raftfsm"
)

// Answers are JSON, written by hand: names need no escapes, and encoding/json would double the module.

const pageLength = 100

const (
	errAccountUsage  = raftfsm.Rejection("usage: account ACCOUNT")
	errAccountsUsage = raftfsm.Rejection("usage: accounts [PREFIX [AFTER]], with * for any prefix")
	errTransferAsk   = raftfsm.Rejection("usage: transfer ID")
	errHistoryUsage  = raftfsm.Rejection("usage: history ACCOUNT [BEFORE], with the number of a move of the account")
	errAuditUsage    = raftfsm.Rejection("usage: audit")
)

func (l *ledger) tellAccount(words []string) ([]byte, error) {
	if len(words) != 1 {
		return nil, errAccountUsage
	}
	number, err := l.mustFind(words[0])
	if err != nil {
		return nil, err
	}
	return l.appendAccount(nil, number), nil
}

func (l *ledger) tellAccounts(words []string) ([]byte, error) {
	if len(words) > 2 {
		return nil, errAccountsUsage
	}
	prefix, after := "", ""
	if len(words) > 0 && words[0] != "*" {
		prefix = words[0]
	}
	if len(words) > 1 {
		after = words[1]
	}
	out := []byte(`{"accounts":[`)
	told, more := 0, false
	l.byName.from(max(prefix, after), func(number uint32) bool {
		name := l.nameOf(number)
		switch {
		case name == after:
			return true
		case !strings.HasPrefix(name, prefix):
			return false
		case told == pageLength:
			more = true
			return false
		}
		out = l.appendAccount(comma(out, told), number)
		told++
		return true
	})
	out = append(out, `],"more":`...)
	return append(strconv.AppendBool(out, more), '}'), nil
}

func (l *ledger) tellTransfer(words []string) ([]byte, error) {
	if len(words) != 1 {
		return nil, errTransferAsk
	}
	number, found := l.findTransfer(words[0])
	if !found {
		return nil, raftfsm.Rejection("there is no transfer of this id")
	}
	t := l.transfers.at(number)
	out := l.appendReceipt(nil, number)
	out = append(out[:len(out)-1], `,"moves":[`...)
	for i := range t.moves {
		e := l.entries.at(t.first + i)
		out = comma(out, int(i))
		out = appendText(out, `{"from":`, l.nameOf(e.from))
		out = appendText(out, `,"to":`, l.nameOf(e.to))
		out = appendNumber(out, `,"amount":`, e.amount)
		out = appendText(out, `,"unit":`, l.units[l.accounts.at(e.from).unit].name)
		out = append(out, '}')
	}
	out = append(out, ']')
	if t.reverses != none {
		out = appendText(out, `,"reverses":`, l.idOf(t.reverses))
	}
	if t.reversedBy != none {
		out = appendText(out, `,"reversed_by":`, l.idOf(t.reversedBy))
	}
	return append(out, '}'), nil
}

// tellHistory tells the moves of an account, the newest first. Moves are numbered from 1 in the order of the log.
func (l *ledger) tellHistory(words []string) ([]byte, error) {
	if len(words) < 1 || len(words) > 2 {
		return nil, errHistoryUsage
	}
	number, err := l.mustFind(words[0])
	if err != nil {
		return nil, err
	}
	next := l.accounts.at(number).newest
	if len(words) == 2 {
		before, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil || before < 1 || before > uint64(l.entries.len()) {
			return nil, errHistoryUsage
		}
		e := l.entries.at(uint32(before - 1))
		if e.from != number && e.to != number {
			return nil, errHistoryUsage
		}
		next = e.older(number)
	}
	out := appendText(nil, `{"account":`, words[0])
	out = append(out, `,"moves":[`...)
	for told := 0; told < pageLength && next != none; told++ {
		e := l.entries.at(next)
		with, amount := e.to, -e.amount
		if e.to == number {
			with, amount = e.from, e.amount
		}
		t := l.transfers.at(e.transfer)
		out = comma(out, told)
		out = appendNumber(out, `{"move":`, int64(next)+1)
		out = appendText(out, `,"transfer":`, l.idOf(e.transfer))
		out = appendText(out, `,"with":`, l.nameOf(with))
		out = appendNumber(out, `,"amount":`, amount)
		out = appendNumber(out, `,"time_ms":`, int64(t.at.timeMs))
		out = append(out, '}')
		next = e.older(number)
	}
	out = append(out, `],"more":`...)
	return append(strconv.AppendBool(out, next != none), '}'), nil
}

// older is the move of an account before this one.
func (e *entry) older(account uint32) uint32 {
	if e.from == account {
		return e.olderFrom
	}
	return e.olderTo
}

// tellAudit adds everything up anew.
func (l *ledger) tellAudit(words []string) ([]byte, error) {
	if len(words) != 0 {
		return nil, errAuditUsage
	}
	positive, negative := make([]int64, len(l.units)), make([]int64, len(l.units))
	for i := range l.accounts.len() {
		a := l.accounts.at(uint32(i))
		positive[a.unit] += max(a.balance, 0)
		negative[a.unit] += min(a.balance, 0)
	}
	balanced := true
	out := appendNumber(nil, `{"accounts":`, int64(l.accounts.len()))
	out = appendNumber(out, `,"transfers":`, int64(l.transfers.len()))
	out = appendNumber(out, `,"moves":`, int64(l.entries.len()))
	out = append(out, `,"units":[`...)
	for i, u := range l.units {
		balanced = balanced && positive[i] == -negative[i] && positive[i] == u.held
		out = comma(out, i)
		out = appendText(out, `{"unit":`, u.name)
		out = appendNumber(out, `,"accounts":`, int64(u.accounts))
		out = appendNumber(out, `,"positive":`, positive[i])
		out = appendNumber(out, `,"negative":`, negative[i])
		out = append(out, '}')
	}
	out = append(out, `],"balanced":`...)
	return append(strconv.AppendBool(out, balanced), '}'), nil
}

func (l *ledger) appendAccount(out []byte, number uint32) []byte {
	a := l.accounts.at(number)
	out = appendText(out, `{"account":`, l.nameOf(number))
	out = appendText(out, `,"unit":`, l.units[a.unit].name)
	out = appendNumber(out, `,"balance":`, a.balance)
	out = strconv.AppendBool(append(out, `,"external":`...), a.external)
	out = strconv.AppendBool(append(out, `,"closed":`...), a.closed)
	if owner := l.ownerOf(number); owner != "" {
		out = appendText(out, `,"owner":`, owner)
	}
	return append(out, '}')
}

// appendReceipt is what a transfer is answered with, the first time and whenever it is sent again.
func (l *ledger) appendReceipt(out []byte, number uint32) []byte {
	t := l.transfers.at(number)
	out = appendText(out, `{"transfer":`, l.idOf(number))
	out = appendNumber(out, `,"index":`, int64(t.at.index))
	out = appendNumber(out, `,"time_ms":`, int64(t.at.timeMs))
	return append(out, '}')
}

// appendWords tells a transfer in the words of its command.
func (l *ledger) appendWords(out []byte, number uint32) []byte {
	t := l.transfers.at(number)
	out = append(out, l.byID.key(number)...)
	for i := range t.moves {
		e := l.entries.at(t.first + i)
		out = append(append(out, ' '), l.byName.key(e.from)...)
		out = append(append(out, ' '), l.byName.key(e.to)...)
		out = strconv.AppendInt(append(out, ' '), e.amount, 10)
	}
	return out
}

func appendText(out []byte, field, value string) []byte {
	out = append(append(out, field...), '"')
	return append(append(out, value...), '"')
}

func appendNumber(out []byte, field string, value int64) []byte {
	return strconv.AppendInt(append(out, field...), value, 10)
}

func comma(out []byte, told int) []byte {
	if told > 0 {
		out = append(out, ',')
	}
	return out
}
