//! Names of projects: one rule, since a name becomes the name of a package, a file and a module in
//! six languages.

use std::fmt;
use std::str::FromStr;

/// Longest name.
const MAX: usize = 40;

/// What a project is called: `[a-z][a-z0-9-]*`, at most 40 characters, no `-` at the end or twice
/// in a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName(String);

impl ProjectName {
    /// The name itself: `my-app`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as an identifier: `my_app`.
    pub fn ident(&self) -> String {
        self.0.replace('-', "_")
    }

    /// Where the module is unless the manifest says otherwise.
    pub fn module_file(&self) -> String {
        format!("{}.wasm", self.ident())
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name that the rule does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// The name.
    pub given: String,
    /// One that the rule allows and that looks like it.
    pub suggestion: Option<ProjectName>,
    reserved: bool,
}

impl fmt::Display for BadName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reserved {
            write!(formatter, "a project cannot be called {:?}: languages use it", self.given)?;
        } else {
            write!(
                formatter,
                "a project cannot be called {:?}: a name has at most {MAX} of the characters a-z, \
                 0-9 and single dashes, begins with a letter and does not end with a dash",
                self.given
            )?;
        }
        match &self.suggestion {
            Some(name) => write!(formatter, "; {name} would do"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BadName {}

impl FromStr for ProjectName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<ProjectName, BadName> {
        let reserved = is_reserved(text);
        if keeps_the_rule(text) && !reserved {
            return Ok(ProjectName(text.to_owned()));
        }
        Err(BadName { given: text.to_owned(), suggestion: suggestion(text), reserved })
    }
}

fn keeps_the_rule(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && text.bytes().all(known)
        && !text.ends_with('-')
        && !text.contains("--")
}

/// Names that a compiler would take for something of its own: keywords of Rust, packages of the
/// languages and of the SDKs.
fn is_reserved(text: &str) -> bool {
    const RESERVED: &[&str] = &[
        "abstract",
        "alloc",
        "as",
        "async",
        "await",
        "become",
        "box",
        "break",
        "const",
        "continue",
        "core",
        "crate",
        "do",
        "dyn",
        "else",
        "enum",
        "extern",
        "false",
        "final",
        "fn",
        "for",
        "gen",
        "if",
        "impl",
        "in",
        "internal",
        "let",
        "loop",
        "macro",
        "main",
        "match",
        "mod",
        "move",
        "mut",
        "node-modules",
        "override",
        "priv",
        "proc-macro",
        "pub",
        "raft-fsm-abi",
        "raft-fsm-sdk",
        "ref",
        "return",
        "self",
        "static",
        "std",
        "struct",
        "super",
        "test",
        "trait",
        "true",
        "try",
        "type",
        "typeof",
        "unsafe",
        "unsized",
        "use",
        "vendor",
        "virtual",
        "where",
        "while",
        "yield",
    ];
    RESERVED.contains(&text)
}

fn suggestion(text: &str) -> Option<ProjectName> {
    let mut name = String::new();
    let mut previous_lower = false;
    for c in text.chars() {
        let starts_word = c.is_ascii_uppercase() && previous_lower;
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if !c.is_ascii_alphanumeric() || starts_word {
            name.push('-');
        }
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        }
    }
    let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "app-");
    }
    if is_reserved(&name) {
        name.push_str("-app");
    }
    name.truncate(MAX);
    let name = name.trim_end_matches('-');
    (keeps_the_rule(name) && !is_reserved(name)).then(|| ProjectName(name.to_owned()))
}

/// The candidate that differs least from `text`, if it is not another word altogether.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = |candidate: &&str| distance(text, candidate);
    let best = candidates.min_by_key(near)?;
    (distance(text, best) <= (best.len() / 3).max(1) && text.len() > 1).then_some(best)
}

/// Characters to insert, delete or replace to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule_or_are_refused_with_one_that_does() {
        for good in ["a", "my-app", "x2", "a-1-b", &"a".repeat(MAX)] {
            assert_eq!(good.parse::<ProjectName>().expect(good).as_str(), good);
        }
        assert_eq!("my-app".parse::<ProjectName>().expect("good").module_file(), "my_app.wasm");
        for (bad, suggested) in [
            ("My App", Some("my-app")),
            ("MyApp", Some("my-app")),
            ("my_app", Some("my-app")),
            ("-x-", Some("x")),
            ("a--b", Some("a-b")),
            ("2nd", Some("app-2nd")),
            ("test", Some("test-app")),
            ("grün!", Some("gr-n")),
            ("", None),
            ("..", None),
            ("日本", None),
        ] {
            let error = bad.parse::<ProjectName>().expect_err(bad);
            assert_eq!(error.suggestion.as_ref().map(ProjectName::as_str), suggested, "{bad}");
        }
        let long = format!("{}-b", "a".repeat(MAX));
        let error = long.parse::<ProjectName>().expect_err("too long");
        assert_eq!(error.suggestion.expect("the first part").as_str().len(), MAX);
    }

    #[test]
    fn distances_count_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("scripts", "script"), 1);
        assert_eq!(nearest("scirpts", ["name", "scripts"].into_iter()), Some("scripts"));
        assert_eq!(nearest("colour", ["name", "scripts"].into_iter()), None);
    }
}
