//! What is said of the rules of the state, and of the format of its snapshots.

use super::*;

/// The number is below 1,000; the format is `sum/1`, and others are rejected with what was asked.
const SOUND: &str = r#"
  (data (i32.const 100) "sum/1too large")
  (func (export "check") (result i32)
    (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1000))
      (then (call $write (i32.const 105) (i32.const 9)) (return (i32.const 1))))
    (i32.const 0))
  (func (export "state_version") (result i32)
    (call $write (i32.const 100) (i32.const 5)) (i32.const 0))
  (func (export "restores") (param $len i32) (result i32)
    (drop (call $read (i32.const 200) (i32.const 64)))
    (if (i32.and (i32.eq (local.get $len) (i32.const 5))
                 (i32.eq (i32.load (i32.const 200)) (i32.load (i32.const 100))))
      (then (return (i32.const 0))))
    (call $write (i32.const 200) (local.get $len))
    (i32.const 1))"#;

fn findings(report: &Report, name: &str) -> Vec<(Weight, String)> {
    let sections = report.sections.iter().filter(|section| section.name == name);
    let findings = sections.flat_map(|section| &section.findings);
    findings.map(|finding| (finding.weight, finding.text.clone())).collect()
}

fn with(text: &str) -> Report {
    run(&guest("function", text), &options()).unwrap()
}

#[test]
fn rules_that_hold_and_a_format_with_a_name_are_told() {
    let report = with(SOUND);
    assert!(report.is_fit(), "{:?}", report.sections);
    let [(Weight::Good, holds)] = &findings(&report, "rules of the state")[..] else {
        panic!("{:?}", report.sections)
    };
    assert!(holds.starts_with("`check` holds after each of "), "{holds}");
    let [(Weight::Good, named), (Weight::Good, taken)] =
        &findings(&report, "format of snapshots")[..]
    else {
        panic!("{:?}", report.sections)
    };
    assert_eq!((&**named, &**taken), ("it is called sum/1", "`restores` takes it"));
    let report = with("");
    assert!(findings(&report, "rules of the state").is_empty());
    assert!(findings(&report, "format of snapshots").is_empty());
}

#[test]
fn a_rule_that_is_broken_fails_unless_a_script_expects_it() {
    let strict = SOUND.replace("1000", "1");
    fails(
        &with(&strict),
        &["after the command \"+\" it ended: rejected \"too large\"", "breaks the rule"],
    );
    let module = guest("function", &strict);
    let text = "apply +\ncheck\nok\napply +\ncheck\nrejected too large\nquery\nok-any\n";
    let options = Options { scripts: vec![script(text)], ..Options::default() };
    let report = run(&module, &options).unwrap();
    assert!(report.is_fit(), "{:?}", report.sections);
    let trapping =
        SOUND.replace("(i32.load (i32.const 0)) (i32.const 1000)", "(i32.const 1) (unreachable)");
    fails(&with(&trapping), &["after the command", "trapped unreachable"]);
}

#[test]
fn what_is_wrong_with_a_format_is_told() {
    fails(
        &with(&SOUND.replace("\"sum/1", "\"s m/1")),
        &["`state_version` ended: ok \"s m/1\"", "letters"],
    );
    let none = "(call $write (i32.const 200) (local.get $len))\n    (i32.const 1))";
    let eager = SOUND.replace(
        "(i32.const 5))\n                 (i32.eq",
        "(i32.const 6))\n                 (i32.eq",
    );
    fails(&with(&eager), &["must take the module's own format sum/1"]);
    let report = with(&SOUND.replace(none, "(i32.const 0))"));
    assert!(report.is_fit());
    let warnings = told(&report, Weight::Warning);
    assert!(warnings.iter().any(|text| text.contains("does not reject foreign")), "{warnings:?}");
    // Once it has counted, its format has another number.
    let tell = "(call $write (i32.const 100) (i32.const 5))";
    let two = "(if (i32.load (i32.const 0)) (then (i32.store8 (i32.const 104) (i32.const 50))))";
    let moving = SOUND.replace(tell, &format!("{two} {tell}"));
    fails(&with(&moving), &["names sum/2 now", "it ended: ok \"sum/1\"", "should be a constant"]);
}

#[test]
fn a_script_asks_for_the_format_and_for_others() {
    let module = guest("function", SOUND);
    let examined = |text: &str| {
        let options = Options { scripts: vec![script(text)], ..Options::default() };
        run(&module, &options).unwrap()
    };
    let report = examined(
        "state-version\nok sum/1\nrestores sum/1\nok\nrestores kv/1\nrejected kv/1\ncheck\n",
    );
    assert!(report.is_fit(), "{:?}", report.sections);
    fails(&examined("state-version\nok sum/2\n"), &["s.script:2: expected ok \"sum/2\""]);
}
