package main

import "raftfsm"

// check says which of the rules of the books is broken, if one is. Commands keep them, so it finds mistakes of the
// program, of an upgrade and of the hardware.
func (l *ledger) check() error {
	balances, err := l.balances()
	if err != nil {
		return err
	}
	held, sums, accounts := make([]int64, len(l.units)), make([]int64, len(l.units)), make([]int, len(l.units))
	for i := range l.accounts.len() {
		number := uint32(i)
		a := l.accounts.at(number)
		switch {
		case int(a.unit) >= len(l.units):
			return raftfsm.Rejection("the account " + l.nameOf(number) + " is in no unit")
		case a.balance != balances[i]:
			return raftfsm.Rejection("the account " + l.nameOf(number) + " has " + l.sum(a.balance, a.unit) +
				", and its moves add up to " + l.sum(balances[i], a.unit))
		case a.balance < 0 && !a.external:
			return raftfsm.Rejection("the account " + l.nameOf(number) + " has " + l.sum(a.balance, a.unit))
		case a.balance != 0 && a.closed:
			return raftfsm.Rejection("the closed account " + l.nameOf(number) + " has " + l.sum(a.balance, a.unit))
		}
		held[a.unit] += max(a.balance, 0)
		sums[a.unit] += a.balance
		accounts[a.unit]++
	}
	for i, u := range l.units {
		switch {
		case sums[i] != 0:
			return raftfsm.Rejection("the accounts in " + u.name + " add up to " + l.sum(sums[i], uint32(i)))
		case held[i] != u.held || held[i] > maxAmount:
			return raftfsm.Rejection("the accounts in " + u.name + " hold " + l.sum(held[i], uint32(i)) + ", and the ledger says " +
				l.sum(u.held, uint32(i)))
		case accounts[i] != u.accounts:
			return raftfsm.Rejection("the number of accounts in " + u.name + " is wrong")
		}
	}
	return nil
}

// balances adds up the moves of each account, and looks at each move.
func (l *ledger) balances() ([]int64, error) {
	balances := make([]int64, l.accounts.len())
	moves := uint32(0)
	for i := range l.transfers.len() {
		number := uint32(i)
		t := l.transfers.at(number)
		if t.first != moves || t.moves < 1 || t.moves > maxMoves {
			return nil, raftfsm.Rejection("the moves of the transfer " + l.idOf(number) + " are not where they should be")
		}
		for range t.moves {
			e := l.entries.at(moves)
			from, to := l.accounts.at(e.from), l.accounts.at(e.to)
			if e.transfer != number || e.amount < 1 || e.amount > maxAmount || e.from == e.to || from.unit != to.unit {
				return nil, raftfsm.Rejection("the transfer " + l.idOf(number) + " has an impossible move")
			}
			balances[e.from] -= e.amount
			balances[e.to] += e.amount
			moves++
		}
	}
	if int(moves) != l.entries.len() {
		return nil, raftfsm.Rejection("there are moves of no transfer")
	}
	return balances, nil
}
