//! What a typed line means.

/// Nodes are numbered from 1 to this.
pub(super) const NODES: usize = 3;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Nothing,
    Apply(String),
    Query(String),
    Status,
    Kill(usize),
    Revive(usize),
    /// Kill it if it runs, else revive it.
    Toggle(usize),
    Upgrade,
    Snapshot,
    Help,
    Quit,
}

/// Reads a line; the error says what could have been meant.
pub(super) fn parse(line: &str) -> Result<Line, String> {
    let text = line.trim();
    if text.is_empty() {
        return Ok(Line::Nothing);
    }
    if let Some(command) = text.strip_prefix('\\') {
        return Ok(Line::Apply(command.to_owned()));
    }
    if let Some(query) = text.strip_prefix('?') {
        return Ok(Line::Query(query.trim().to_owned()));
    }
    match text.strip_prefix(':') {
        Some(own) => parse_own(own.trim()),
        None => Ok(Line::Apply(text.to_owned())),
    }
}

fn parse_own(text: &str) -> Result<Line, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let rest: Vec<_> = words.collect();
    let simple = match name {
        "kill" => return node(name, &rest).map(Line::Kill),
        "revive" => return node(name, &rest).map(Line::Revive),
        "toggle" => return node(name, &rest).map(Line::Toggle),
        "status" => Line::Status,
        "upgrade" => Line::Upgrade,
        "snapshot" => Line::Snapshot,
        "help" => Line::Help,
        "quit" | "q" | "exit" => Line::Quit,
        _ => {
            return Err(format!(
                "there is no :{name}; :help lists what there is. To apply a command that begins \
                 with a colon, write \\ in front of it"
            ));
        }
    };
    if rest.is_empty() { Ok(simple) } else { Err(format!(":{name} takes nothing after it")) }
}

fn node(name: &str, rest: &[&str]) -> Result<usize, String> {
    match rest {
        [number] => number.parse().ok().filter(|number| (1..=NODES).contains(number)),
        _ => None,
    }
    .ok_or_else(|| format!("which node? Write :{name} 1, :{name} 2 or :{name} 3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_unless_its_first_sign_says_otherwise() {
        assert_eq!(parse("inc 5"), Ok(Line::Apply("inc 5".into())));
        assert_eq!(parse(r#"  {"op":"set"} "#), Ok(Line::Apply(r#"{"op":"set"}"#.into())));
        assert_eq!(parse("? get"), Ok(Line::Query("get".into())));
        assert_eq!(parse("?"), Ok(Line::Query(String::new())));
        assert_eq!(parse("   "), Ok(Line::Nothing));
        assert_eq!(parse("\\:kill 1"), Ok(Line::Apply(":kill 1".into())));
        assert_eq!(parse("\\?what"), Ok(Line::Apply("?what".into())));
        assert_eq!(parse("\\\\"), Ok(Line::Apply("\\".into())));
    }

    #[test]
    fn nodes_are_named_by_their_number() {
        assert_eq!(parse(":kill 2"), Ok(Line::Kill(2)));
        assert_eq!(parse(": revive  3"), Ok(Line::Revive(3)));
        assert_eq!(parse(":toggle 1"), Ok(Line::Toggle(1)));
        for wrong in [":kill", ":kill 0", ":kill 4", ":kill one", ":kill 1 2"] {
            assert!(parse(wrong).expect_err(wrong).contains(":kill 1"), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_word_names_the_way_out() {
        assert!(parse(":what").expect_err("unknown").contains(":help"));
        assert!(parse(":quit now").expect_err("too much").contains(":quit"));
        assert_eq!(parse(":quit"), Ok(Line::Quit));
    }
}
