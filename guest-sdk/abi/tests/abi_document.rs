//! `guest-sdk/ABI.md` says what the constants say.

use raft_fsm_abi::*;

const DOCUMENT: &str = include_str!("../../ABI.md");

/// The cells of the table under a heading, without backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n### {heading}\n")).expect(heading);
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

fn signature(function: &Function) -> String {
    let list = |types: &[ValueType]| {
        let names: Vec<_> = types
            .iter()
            .map(|value| match value {
                ValueType::I32 => "i32",
                ValueType::I64 => "i64",
            })
            .collect();
        names.join(", ")
    };
    format!("({}) -> ({})", list(function.params), list(function.results))
}

#[test]
fn the_exports_are_the_documented_ones() {
    let mut expected = vec![
        [ABI_MARKER.to_owned(), "any function".to_owned(), "yes".to_owned()],
        [EXPORT_MEMORY.to_owned(), "memory".to_owned(), "yes".to_owned()],
    ];
    expected.extend(EXPORTS.iter().map(|function| {
        let required = if function.required { "yes" } else { "no" };
        [function.name.to_owned(), signature(function), required.to_owned()]
    }));
    let documented: Vec<_> = table("Exports").into_iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(documented, expected);
}

#[test]
fn the_imports_are_the_documented_ones() {
    let expected: Vec<_> =
        IMPORTS.iter().map(|function| [function.name.to_owned(), signature(function)]).collect();
    let documented: Vec<_> = table("Imports").into_iter().map(|row| row[..2].to_vec()).collect();
    assert_eq!(documented, expected);
    assert!(DOCUMENT.contains(&format!("Module name: `{IMPORT_MODULE}`.")));
}

#[test]
fn status_values_and_levels_are_the_documented_ones() {
    let check = |heading: &str, expected: &[(i32, &str)]| {
        let documented: Vec<_> =
            table(heading).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        let expected: Vec<_> =
            expected.iter().map(|(value, name)| (value.to_string(), (*name).to_owned())).collect();
        assert_eq!(documented, expected);
    };
    check("Status values", &[(STATUS_OK, "ok"), (STATUS_REJECTED, "rejected")]);
    check(
        "Log levels",
        &[(LOG_ERROR, "error"), (LOG_WARN, "warn"), (LOG_INFO, "info"), (LOG_DEBUG, "debug")],
    );
}
