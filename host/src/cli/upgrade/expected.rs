//! What an operator believes to be active.

use std::str::FromStr;

use raft_host_proto::{ClientError, Effect, v1};
use tonic::Code;

use crate::cli::output::{hex, short_hash};

/// What an operator believes to be active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Expected {
    /// Hexadecimal digits, the first of the hash.
    prefix: String,
    activated_at: Option<u64>,
}

/// Fewer digits of a hash could be those of another one.
pub(super) const PREFIX_MIN: usize = 8;

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Expected, String> {
        let (prefix, index) = match text.split_once('@') {
            Some((prefix, index)) => (prefix, Some(index)),
            None => (text, None),
        };
        let is_hex = prefix.chars().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex || !(PREFIX_MIN..=64).contains(&prefix.len()) {
            return Err(format!(
                "{prefix:?} is not the beginning of a module's hash: {PREFIX_MIN} to 64 hexadecimal \
                 digits"
            ));
        }
        let index = index.map(|index| index.parse::<u64>().map_err(|_| index));
        let activated_at = index.transpose().map_err(|index| format!("{index:?} is no index"))?;
        Ok(Expected { prefix: prefix.to_ascii_lowercase(), activated_at })
    }
}

impl Expected {
    /// Says what is there instead, if it is something else.
    pub(in crate::cli) fn check(
        &self,
        incumbent: Option<&v1::Incumbent>,
    ) -> Result<(), ClientError> {
        let is_it = incumbent.is_some_and(|active| {
            hex(&active.module_hash).starts_with(&self.prefix)
                && self.activated_at.is_none_or(|index| index == active.activated_at)
        });
        if is_it {
            return Ok(());
        }
        let active = match incumbent {
            Some(active) => {
                format!(
                    "module {} since index {}",
                    short_hash(&active.module_hash),
                    active.activated_at
                )
            }
            None => "no module".to_owned(),
        };
        let since = self.activated_at.map(|at| format!(" since index {at}")).unwrap_or_default();
        Err(ClientError::Refused {
            code: Code::FailedPrecondition,
            message: format!(
                "the module was to replace {}{since}, but the cluster runs {active}: look at \
                 `raft-host modules`",
                self.prefix
            ),
            effect: Effect::None,
            detail: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_replaced_is_named_by_hash_and_index() {
        let active = v1::Incumbent { module_hash: vec![0xab; 32].into(), activated_at: 42 };
        let fits = |text: &str| {
            let expected: Expected = text.parse().expect("well-formed");
            expected.check(Some(&active)).map_err(|error| error.to_string())
        };
        assert_eq!(fits("ABABABAB"), Ok(()));
        assert_eq!(fits(&format!("{}@42", "ab".repeat(32))), Ok(()));
        let words = fits("abababab@41").unwrap_err();
        assert!(words.contains("abababab since index 41"), "{words}");
        assert!(words.contains("runs module abababababab since index 42"), "{words}");
        assert!(fits("abababac").is_err());
        assert!("abababab".parse::<Expected>().unwrap().check(None).is_err());
        for bad in ["", "abab", "ababababx", "abababab@", "abababab@x", &"ab".repeat(33)] {
            assert!(bad.parse::<Expected>().is_err(), "{bad:?}");
        }
    }
}
