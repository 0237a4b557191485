//! The module that an operator means: a file, or one that the cluster holds.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft_host_proto::v1;

use super::expected::PREFIX_MIN;
use crate::cli::exit::Failure;
use crate::cli::input::{label_of, read_module};
use crate::cli::output::{hex, short_hash};
use crate::types::ModuleHash;

/// What stands on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Named {
    File(PathBuf),
    /// The first hexadecimal digits of a hash.
    Hash(String),
}

/// A module that is to become active.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Wanted {
    pub(in crate::cli) hash: Bytes,
    pub(in crate::cli) label: String,
    pub(in crate::cli) size: u64,
    /// Where it is, and what it is; `None`: the cluster holds it.
    pub(in crate::cli) file: Option<(PathBuf, Bytes)>,
}

/// A file of that name counts more than a hash that begins so.
pub(in crate::cli) fn named(text: &str) -> Named {
    let is_hash = (PREFIX_MIN..=64).contains(&text.len())
        && text.chars().all(|digit| digit.is_ascii_hexdigit());
    match is_hash && !Path::new(text).exists() {
        true => Named::Hash(text.to_ascii_lowercase()),
        false => Named::File(text.into()),
    }
}

impl Named {
    /// What it is; `held`: by the cluster.
    pub(in crate::cli) fn find(
        &self,
        label: Option<&str>,
        held: &[v1::ModuleInfo],
    ) -> Result<Wanted, Failure> {
        match self {
            Named::File(path) => {
                let bytes = Bytes::from(read_module(path)?);
                Ok(Wanted {
                    hash: ModuleHash::of(&bytes).0.to_vec().into(),
                    label: label.map_or_else(|| label_of(path), str::to_owned),
                    size: bytes.len() as u64,
                    file: Some((path.clone(), bytes)),
                })
            }
            Named::Hash(prefix) => {
                let module = find_held(prefix, held)?;
                Ok(Wanted::held(module, label))
            }
        }
    }
}

impl Wanted {
    /// One that the cluster holds.
    pub(in crate::cli) fn held(module: &v1::ModuleInfo, label: Option<&str>) -> Wanted {
        Wanted {
            hash: module.hash.clone(),
            label: label.unwrap_or(&module.label).to_owned(),
            size: module.size_bytes,
            file: None,
        }
    }

    /// For people.
    pub(in crate::cli) fn name(&self) -> String {
        match self.label.as_str() {
            "" => short_hash(&self.hash),
            label => format!("{label} {}", short_hash(&self.hash)),
        }
    }
}

fn find_held<'a>(prefix: &str, held: &'a [v1::ModuleInfo]) -> Result<&'a v1::ModuleInfo, Failure> {
    let mut named = held.iter().filter(|module| hex(&module.hash).starts_with(prefix));
    match (named.next(), named.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::new(format!(
            "the cluster holds no module {prefix}, and there is no such file: look at `raft-host modules`, or \
             bring the module in with `raft-host stage FILE`"
        ))),
        (Some(_), Some(_)) => Err(Failure::new(format!(
            "several modules that the cluster holds begin with {prefix}: give more of the hash"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_names_one_module_that_the_cluster_holds() {
        let of = |first: u8, last: u8| {
            let mut hash = vec![first; 32];
            hash[31] = last;
            v1::ModuleInfo { hash: hash.into(), label: "kv".to_owned(), ..Default::default() }
        };
        let held = [of(0xab, 1), of(0xab, 2), of(0xcd, 1)];
        assert_eq!(named("a.wasm"), Named::File("a.wasm".into()));
        assert_eq!(named("abcdef"), Named::File("abcdef".into()), "too short for a hash");
        let found = |text: &str| named(text).find(None, &held);
        let only = found("CDCDCDCD").expect("one");
        assert_eq!((only.hash, only.label.as_str()), (held[2].hash.clone(), "kv"));
        assert!(found("abababab").unwrap_err().message.contains("several modules"));
        assert!(found("01234567").unwrap_err().message.contains("holds no module 01234567"));
        assert_eq!(named(&hex(&held[1].hash)).find(Some("x"), &held).expect("one").label, "x");
    }
}
