// A ledger: double-entry transfers between accounts that cannot go negative, each done once however often it is sent.
package main

import (
	"strings"

	"raftfsm"
)

func init() { raftfsm.Register(New) }

func main() {}

// Longer than any command or question can be.
const maxInputBytes = 2048

const (
	errInputTooLong    = raftfsm.Rejection("a command or question has at most 2048 bytes")
	errUnknownCommand  = raftfsm.Rejection("unknown command: there are open, close, transfer and reverse")
	errUnknownQuestion = raftfsm.Rejection("unknown question: there are account, accounts, transfer, history and audit")
)

type machine struct {
	ledger *ledger
}

// New is a machine with an empty ledger.
func New() raftfsm.Machine { return &machine{newLedger()} }

func (m *machine) Apply(ctx *raftfsm.Context, command []byte) ([]byte, error) {
	if len(command) > maxInputBytes {
		return nil, errInputTooLong
	}
	words := strings.Split(string(command), " ")
	arguments := words[1:]
	switch words[0] {
	case "open":
		return m.open(ctx, arguments)
	case "close":
		return m.close(ctx, arguments)
	case "transfer":
		return m.transfer(ctx, arguments)
	case "reverse":
		return m.reverse(ctx, arguments)
	}
	return nil, errUnknownCommand
}

//go:wasmexport classify
func classify(length uint32) int32 { return raftfsm.ExportClassify(length) }

// Classify goes by the word that Apply goes by: whether the rest is in order changes nothing.
func (m *machine) Classify(_ *raftfsm.Context, command []byte) string {
	if len(command) > maxInputBytes {
		return ""
	}
	word, _, _ := strings.Cut(string(command), " ")
	switch word {
	case "open", "close":
		return word + "-account"
	case "transfer", "reverse":
		return word
	}
	return ""
}

//go:wasmexport check
func check() int32 { return raftfsm.ExportCheck() }

// Check adds all moves up anew and looks at the rules of the books.
func (m *machine) Check(*raftfsm.Context) error { return m.ledger.check() }

//go:wasmexport state_version
func stateVersion() int32 { return raftfsm.ExportStateVersion() }

//go:wasmexport restores
func restores(length uint32) int32 { return raftfsm.ExportRestores(length) }

const stateVersionName = "ledger/1"

func (m *machine) StateVersion() string { return stateVersionName }

func (m *machine) Restores(version string) error {
	if version != stateVersionName {
		return raftfsm.Rejection("the ledger restores " + stateVersionName + ", and not " + version)
	}
	return nil
}

func (m *machine) Query(_ *raftfsm.Context, question []byte) ([]byte, error) {
	if len(question) > maxInputBytes {
		return nil, errInputTooLong
	}
	words := strings.Split(string(question), " ")
	arguments := words[1:]
	switch words[0] {
	case "account":
		return m.ledger.tellAccount(arguments)
	case "accounts":
		return m.ledger.tellAccounts(arguments)
	case "transfer":
		return m.ledger.tellTransfer(arguments)
	case "history":
		return m.ledger.tellHistory(arguments)
	case "audit":
		return m.ledger.tellAudit(arguments)
	}
	return nil, errUnknownQuestion
}
