package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"raftfsm"
)

// bankOf is a node with an external account and two people, of whom alice has 100.
func bankOf(t *testing.T) *raftfsm.Node {
	t.Helper()
	node := raftfsm.NewNode(t, New)
	for _, command := range []string{
		"open bank EUR external", "open alice EUR", "open bob EUR", "transfer pay bank alice 100",
	} {
		must(t, node, command)
	}
	return node
}

func must(t *testing.T, node *raftfsm.Node, command string) string {
	t.Helper()
	answer, err := node.Apply(command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return answer
}

func balance(t *testing.T, node *raftfsm.Node, account string, want int64) {
	t.Helper()
	answer, err := node.Query("account " + account)
	if err != nil || !strings.Contains(answer, fmt.Sprintf(`"balance":%d,`, want)) {
		t.Fatalf("%s should have %d: %s, %v", account, want, answer, err)
	}
}

func TestAnAccountCannotGoNegative(t *testing.T) {
	node := bankOf(t)
	node.ExpectReject("transfer a alice bob 101", "the account alice has 100 EUR and lacks 1 EUR")
	must(t, node, "transfer a alice bob 100")
	node.ExpectReject("transfer b alice bob 1", "the account alice has 0 EUR and lacks 1 EUR")
	balance(t, node, "bank", -100)
	balance(t, node, "bob", 100)
}

func TestFromAnOwnedAccountOnlyItsOwnerTakes(t *testing.T) {
	node := bankOf(t)
	node.Actor = "carol"
	node.ExpectApply("open carol EUR",
		`{"account":"carol","unit":"EUR","balance":0,"external":false,"closed":false,"owner":"carol"}`)
	// Nobody owns the others: who may use them the cluster says.
	must(t, node, "transfer a alice carol 50")
	node.Renew()
	node.Actor = "mallory"
	node.ExpectReject("transfer b carol bob 1", "the account carol is not of mallory")
	node.ExpectReject("transfer b alice bob 1 carol bob 1", "the account carol is not of mallory")
	node.ExpectReject("reverse c a", "the account carol is not of mallory")
	node.ExpectReject("close carol", "the account carol is not of mallory")
	node.ExpectReject("open carol EUR", "the account carol was opened before, and is another")
	must(t, node, "transfer d alice carol 1")
	node.Actor = "carol"
	must(t, node, "open carol EUR")
	must(t, node, "transfer b carol bob 1")
	must(t, node, "reverse c a")
	balance(t, node, "carol", 0)
	// Who is not known is not asked, as where a cluster has no rights.
	node.Actor = ""
	must(t, node, "close carol")
}

func TestTheBooksAreChecked(t *testing.T) {
	good := func() *raftfsm.Node {
		node := bankOf(t)
		must(t, node, "transfer a alice bob 30")
		must(t, node, "open usd USD external")
		must(t, node, "reverse b a")
		return node
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(l *ledger){
		"the account alice has 101 EUR, and its moves add up to 100": func(l *ledger) { l.accounts.at(1).balance++ },
		"the account bank has -100 EUR":                              func(l *ledger) { l.accounts.at(0).external = false },
		"the closed account alice has 100 EUR":                       func(l *ledger) { l.accounts.at(1).closed = true },
		"and the ledger says 99 EUR":                                 func(l *ledger) { l.units[0].held-- },
		"the number of accounts in USD is wrong":                     func(l *ledger) { l.units[1].accounts++ },
		"the transfer a has an impossible move":                      func(l *ledger) { l.entries.at(1).amount = 0 },
		"the moves of the transfer b are not where":                  func(l *ledger) { l.transfers.at(2).first = 0 },
	} {
		l := newLedger()
		made := &machine{l}
		node := raftfsm.NewNode(t, func() raftfsm.Machine { return made })
		if err := node.Restore(good().Snapshot()); err != nil {
			t.Fatal(err)
		}
		spoil(made.ledger)
		node.Trusting = true
		if err := node.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %s", err, want)
		}
	}
}

func TestTheLedgerTakesItsOwnFormatOnly(t *testing.T) {
	node := bankOf(t)
	if version := node.StateVersion(); version != "ledger/1" || node.Restores(version) != nil {
		t.Fatalf("the format %q", version)
	}
	if err := node.Restores("kv/1"); err == nil {
		t.Fatal("the ledger takes the state of a key-value store")
	}
}

func TestACommandIsOfTheClassOfItsWord(t *testing.T) {
	node := bankOf(t)
	for command, want := range map[string]string{
		"open x EUR": "open-account", "close x": "close-account", "transfer": "transfer", "reverse a b c": "reverse",
		"": "", "steal alice": "", "transfers": "", " transfer": "",
	} {
		if class := node.Classify(command); class != want {
			t.Errorf("%q is of the class %q, not %q", command, class, want)
		}
	}
}

func TestATransferIsDoneOnceHoweverOftenItIsSent(t *testing.T) {
	node := bankOf(t)
	first := must(t, node, "transfer a alice bob 10")
	for range 3 {
		node.Advance(1000)
		node.Renew()
		node.ExpectApply("transfer a alice bob 10", first)
		if len(node.Events) != 0 {
			t.Fatalf("a repeated transfer emits %v", node.Events)
		}
	}
	balance(t, node, "bob", 10)
	for _, other := range []string{"alice bob 11", "bob alice 10", "alice bob 10 alice bob 10"} {
		node.ExpectReject("transfer a "+other, "the id a was used for another transfer")
	}
}

func TestARejectedTransferLeavesItsIdFree(t *testing.T) {
	node := bankOf(t)
	node.ExpectReject("transfer a alice bob 500", "the account alice has 100 EUR and lacks 400 EUR")
	must(t, node, "transfer a alice bob 50")
}

func TestATransferMayPassMoneyOn(t *testing.T) {
	node := bankOf(t)
	must(t, node, "transfer a bob bank 70 alice bob 70")
	balance(t, node, "bob", 0)
	balance(t, node, "alice", 30)
}

func TestAReversalMovesEverythingBackOnce(t *testing.T) {
	node := bankOf(t)
	must(t, node, "transfer a alice bob 60 bob bank 10")
	receipt := must(t, node, "reverse b a")
	balance(t, node, "alice", 100)
	balance(t, node, "bob", 0)
	balance(t, node, "bank", -100)
	node.Renew()
	node.ExpectApply("reverse b a", receipt)
	node.ExpectReject("reverse c a", "the transfer a was reversed by b")
	node.ExpectReject("reverse c b", "the transfer b is itself a reversal")
	node.ExpectReject("transfer b bob alice 60 bank bob 10", "the id b was used for another transfer")
}

func TestAFullLedgerRejectsAndRepeats(t *testing.T) {
	accounts, transfers := maxAccounts, maxTransfers
	defer func() { maxAccounts, maxTransfers = accounts, transfers }()
	maxAccounts, maxTransfers = 3, 1
	node := bankOf(t)
	node.ExpectReject("open carol EUR", "the ledger is full: it has 3 accounts")
	node.ExpectReject("transfer a alice bob 1", "the ledger is full: it has 1 transfers with 1 moves")
	must(t, node, "transfer pay bank alice 100")
	must(t, node, "open bob EUR")
}

func TestHistoriesAndListsComeInPages(t *testing.T) {
	node := bankOf(t)
	node.Trusting = true
	for i := range 150 {
		must(t, node, fmt.Sprintf("open shop/%03d EUR", i))
		must(t, node, fmt.Sprintf("transfer t%d bank alice 1", i))
	}
	expectPage(t, node, "history alice", 100, `"move":151,`, true)
	expectPage(t, node, "history alice 52", 51, `"move":51,`, false)
	expectPage(t, node, "accounts shop/", 100, "shop/099", true)
	expectPage(t, node, "accounts shop/ shop/099", 50, "shop/100", false)
	expectPage(t, node, "accounts", 100, "alice", true)
	expectPage(t, node, "accounts b bank", 1, "bob", false)
}

func expectPage(t *testing.T, node *raftfsm.Node, question string, entries int, contains string, more bool) {
	t.Helper()
	answer, err := node.Query(question)
	if err != nil {
		t.Fatal(err)
	}
	ends := strings.HasSuffix(answer, fmt.Sprintf(`"more":%v}`, more))
	if strings.Count(answer, "},{")+1 != entries || !strings.Contains(answer, contains) || !ends {
		t.Fatalf("%s: %s", question, answer)
	}
}

// Random commands over few names, so that most meet something. The books must balance after each.
func TestTheBooksBalanceWhateverIsAsked(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	node := raftfsm.NewNode(t, New)
	accepted := 0
	for range 3000 {
		command := randomCommand(random)
		if _, err := node.Apply(command); err == nil {
			accepted++
		}
		audit, err := node.Query("audit")
		if err != nil || !strings.HasSuffix(audit, `"balanced":true}`) {
			t.Fatalf("after %s: %s, %v", command, audit, err)
		}
		list, err := node.Query("accounts")
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range strings.Split(list, "},{") {
			if strings.Contains(account, `"balance":-`) && strings.Contains(account, `"external":false`) {
				t.Fatalf("after %s: %s", command, account)
			}
		}
	}
	if accepted < 500 {
		t.Fatalf("only %d commands were accepted: the test tests little", accepted)
	}
}

func TestARestoredLedgerGoesOnAsTheOldOne(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	commands := make([]string, 400)
	for i := range commands {
		commands[i] = randomCommand(random)
	}
	raftfsm.CheckRenewal(t, New, commands)
}

func randomCommand(random *rand.Rand) string {
	name := func() string { return string(rune('a' + random.IntN(6))) }
	id := func() string { return fmt.Sprintf("t%d", random.IntN(2000)) }
	switch random.IntN(20) {
	case 0:
		return "open " + name() + " EUR external"
	case 1, 2:
		return "open " + name() + " " + []string{"EUR", "EUR", "USD"}[random.IntN(3)]
	case 3:
		if random.IntN(10) == 0 {
			return "close " + name()
		}
		return "reverse " + id() + " " + id()
	case 4, 5:
		return "reverse " + id() + " " + id()
	}
	command := "transfer " + id()
	for range 1 + random.IntN(3) {
		command += fmt.Sprintf(" %s %s %d", name(), name(), random.IntN(50))
	}
	return command
}
