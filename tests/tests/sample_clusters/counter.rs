//! counter (WebAssembly text).

use super::{Trial, by_index};

#[test]
fn the_counter_counts_every_command_once() {
    let mut trial = Trial::start("plugins/counter/counter.wasm");
    assert_eq!(trial.apply("1000").ok(), "1000");
    let commands: Vec<String> = (1..=300).map(|n: i64| (n - 100).to_string()).collect();
    let answers = trial.apply_through_a_killed_leader(commands);
    let mut sum = 1000i64;
    for answer in by_index(&answers) {
        sum += answer.command.parse::<i64>().expect("a number");
        assert_eq!(answer.ok(), sum.to_string(), "{answer:?}");
    }
    assert_eq!(trial.query(""), sum.to_string());
    assert!(trial.apply("five").reason().contains("decimal number"));
    assert_eq!(trial.apply("-1").ok(), (sum - 1).to_string());
    trial.revive_and_compare();
    assert_eq!(trial.everywhere(""), (sum - 1).to_string());
}
