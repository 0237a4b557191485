//! ledger (Go).

use std::collections::BTreeMap;

use super::{Trial, json, number};

const ACCOUNTS: i64 = 5;
const TRANSFERS: i64 = 120;
const PAID_IN: i64 = 1_000;

/// The number of an account.
fn place(account: &str) -> usize {
    account.trim_start_matches("account-").parse().expect("one of these accounts")
}

#[test]
fn balances_add_up_and_never_go_below_zero_through_a_killed_leader() {
    let mut trial = Trial::start("plugins/ledger/ledger.wasm");
    trial.apply("open bank EUR external").ok();
    for account in 0..ACCOUNTS {
        trial.apply(format!("open account-{account} EUR")).ok();
    }
    trial.apply(format!("transfer pay-in bank account-0 {PAID_IN}")).ok();

    // Each is sent twice, as by a client that heard nothing. Some would take more than is there.
    let transfer = |n: i64| {
        let (from, to) = (n % ACCOUNTS, (n * 3 + 1) % ACCOUNTS);
        let to = if from == to { (to + 1) % ACCOUNTS } else { to };
        let amount = 1 + (n * 37) % 400;
        let command = format!("transfer id-{n} account-{from} account-{to} {amount}");
        [command.clone(), command]
    };
    let answers = trial.apply_through_a_killed_leader((0..TRANSFERS).flat_map(transfer).collect());
    // What was done, in order.
    let mut done: Vec<Vec<&str>> = Vec::new();
    let (mut receipts, mut before) = (BTreeMap::new(), 0);
    for answer in &answers {
        let words: Vec<&str> = answer.command.split(' ').collect();
        match &answer.result {
            Ok(receipt) => {
                if let Some(first) = receipts.get(words[1]) {
                    assert_eq!(*first, receipt, "sent again it is another receipt");
                    continue;
                }
                receipts.insert(words[1], receipt);
                let index = number(receipt, "index");
                assert!(index >= before, "{answer:?} comes after the entry {before}");
                before = index;
                done.push(words);
            }
            Err(reason) => assert!(reason.contains(" and lacks "), "{answer:?}"),
        }
    }
    assert!(receipts.len() > 10, "{receipts:?}");
    let mut balances = [0; ACCOUNTS as usize];
    balances[0] = PAID_IN;
    for words in &done {
        let amount: i64 = words[4].parse().expect("an amount");
        balances[place(words[2])] -= amount;
        balances[place(words[3])] += amount;
        assert!(balances[place(words[2])] >= 0, "{words:?} took more than there was");
    }
    let audit = json(&trial.query("audit"));
    assert_eq!(audit["balanced"], true, "{audit}");
    assert_eq!(audit["transfers"].as_u64(), Some(done.len() as u64 + 1), "{audit}");

    // On what is left of the cluster: the last transfer goes back, once.
    let used = receipts.keys().next().expect("there are some");
    let last = done.last().expect("there are some");
    let back = trial.apply(format!("reverse back-1 {}", last[1]));
    assert_eq!(trial.apply(format!("reverse back-1 {}", last[1])).ok(), back.ok());
    let twice = trial.apply(format!("reverse back-2 {}", last[1]));
    assert!(twice.reason().contains("was reversed by back-1"), "{twice:?}");
    let other = trial.apply(format!("transfer {used} account-0 account-1 999"));
    assert!(other.reason().contains("was used for another transfer"), "{other:?}");
    let amount: i64 = last[4].parse().expect("an amount");
    balances[place(last[2])] += amount;
    balances[place(last[3])] -= amount;

    trial.revive_and_compare();
    for (account, balance) in balances.iter().enumerate() {
        let told = json(&trial.everywhere(&format!("account account-{account}")));
        assert_eq!(told["balance"].as_i64(), Some(*balance), "{told}");
    }
    let bank = json(&trial.everywhere("account bank"));
    assert_eq!(bank["balance"].as_i64(), Some(-PAID_IN), "{bank}");
    assert_eq!(json(&trial.everywhere("audit"))["balanced"], true);
}
