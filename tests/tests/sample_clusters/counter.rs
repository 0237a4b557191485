//! counter (WebAssembly text).

use super::Trial;

#[test]
fn the_counter_counts_every_command_once() {
    let mut trial = Trial::start("plugins/counter/counter.wasm");
    assert_eq!(trial.apply("-1000").ok(), "-1000");
    let commands: Vec<String> = (1..=300).map(|n: i64| n.to_string()).collect();
    let answers = trial.apply_through_a_killed_leader(commands);
    // Every number is added, so the sums tell in which order.
    let mut steps: Vec<(i64, i64)> = Vec::new();
    for answer in &answers {
        let number = |text: &str| text.parse::<i64>().expect("a number");
        steps.push((number(answer.ok()), number(&answer.command)));
    }
    steps.sort_unstable();
    let mut sum = -1000;
    for (answer, added) in steps {
        sum += added;
        assert_eq!(answer, sum, "{added} was added to something else");
    }
    assert_eq!(trial.query(""), sum.to_string());
    assert!(trial.apply("five").reason().contains("decimal number"));
    assert_eq!(trial.apply("-1").ok(), (sum - 1).to_string());
    trial.revive_and_compare();
    assert_eq!(trial.everywhere(""), (sum - 1).to_string());
}
