//! What is said of the classes of commands.

use super::*;

/// Has `classify`: `+` is of the class `add`.
const CLASSIFY: &str = r#"
  (data (i32.const 100) "add")
  (func (export "classify") (param $len i32) (result i32)
    (i32.store8 (i32.const 8) (i32.const 0))
    (drop (call $read (i32.const 8) (i32.const 1)))
    (if (i32.and (i32.eq (local.get $len) (i32.const 1))
                 (i32.eq (i32.load8_u (i32.const 8)) (i32.const 43)))
      (then (call $write (i32.const 100) (i32.const 3))))
    (i32.const 0))"#;

fn said(report: &Report) -> Option<&Section> {
    report.sections.iter().find(|section| section.name == "classes of commands")
}

#[test]
fn a_module_that_names_classes_is_told_of_them() {
    let report = run(&guest("function", CLASSIFY), &options()).unwrap();
    assert!(report.is_fit(), "{:?}", report.sections);
    let section = said(&report).expect("it has classes");
    let [finding] = &section.findings[..] else { panic!("{section:?}") };
    assert_eq!(finding.weight, Weight::Good);
    assert!(finding.text.contains("are of 1 class(es): add ("), "{finding:?}");
    let report = run(&guest("function", ""), &options()).unwrap();
    assert_eq!(said(&report), None);
}

#[test]
fn a_name_that_is_none_a_rejection_and_a_trap_are_warned_of() {
    let put = "(call $write (i32.const 100) (i32.const 3))";
    let spoilt = [
        ("\"add\"", "\"a d\"", "ok \"a d\""),
        (put, "(unreachable)", "trapped unreachable"),
        (put, "(return (i32.const 1))", "rejected"),
    ];
    for (sound, defect, words) in spoilt {
        let report = run(&guest("function", &CLASSIFY.replace(sound, defect)), &options()).unwrap();
        let section = said(&report).expect("it has classes");
        let warning = section.findings.iter().find(|finding| finding.weight == Weight::Warning);
        let warning = warning.unwrap_or_else(|| panic!("{section:?}"));
        assert!(warning.text.contains("because of what `classify` answers"), "{warning:?}");
        assert!(warning.details[0].contains(words), "{words}: {warning:?}");
    }
}

#[test]
fn a_script_asks_for_classes_and_says_who_acts() {
    // Rejects with the name of the actor.
    let import = r#"(import "raft_fsm_v1" "actor" (func $actor (param i32 i32) (result i32)))"#;
    let reject = "(call $write (i32.const 200) (call $actor (i32.const 200) (i32.const 64)))";
    let text = text_with(&[("function", CLASSIFY), ("reject", reject)]);
    let module = wat::parse_str(text.replacen("(module", &format!("(module {import}"), 1)).unwrap();
    let examined = |text: &str| {
        let options = Options { scripts: vec![script(text)], ..Options::default() };
        run(&module, &options).unwrap()
    };
    let report = examined(
        "apply who\nrejected\nactor alice@example.org\napply who\nrejected alice@example.org\nclassify +\n\
         ok add\nclassify ++\nok\napply +\nok-hex 01000000\nactor\napply who\nrejected\n",
    );
    assert!(report.is_fit(), "{:?}", report.sections);
    let report = examined("classify +\nok sub\n");
    assert!(!report.is_fit());
    let failures = told(&report, Weight::Failure);
    assert!(failures[0].contains("s.script:2: expected ok \"sub\""), "{failures:?}");
}
