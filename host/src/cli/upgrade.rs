//! `raft-host upgrade`: gives the cluster another module.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use raft_host_proto::client::UpgradeOptions;
use raft_host_proto::{Client, ClientError, Effect, v1};
use serde_json::{Value, json};
use tonic::Code;

use super::exit::{Ended, Exit, Failure};
use super::input::{label_of, read_module, read_signatures, signature_file};
use super::output::{Output, hex, human_bytes, print_json, print_text, short_hash};
use super::remote::{self, RemoteArgs};
use crate::signing::ModuleSignature;
use crate::types::ModuleHash;

/// Every voter checks and compiles the module first.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Replaces the running module on all nodes at the same index of the log.
///
/// The new module takes over the state through the old one's `snapshot` and its own `restore`.
/// A module that the cluster refuses changes nothing; `raft-host check FILE` says beforehand.
#[derive(Args, Clone, Debug)]
pub(super) struct UpgradeArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    /// A name for people, shown by `status` and `modules`; the file's name without .wasm if none is given.
    #[arg(long)]
    label: Option<String>,
    /// Only if this module is active: its hash or the beginning of it, as `modules` shows it, and
    /// if you like the index since when. Without it: whatever is active now. A script that may run
    /// twice gives HASH@INDEX, so that the second run undoes nothing that came in between.
    #[arg(long, value_name = "HASH[@INDEX]")]
    replaces: Option<Expected>,
    /// Gives the state up: the new module's `init` runs instead of `snapshot` and `restore`, as in a
    /// new cluster. The last way out when the active module's `snapshot` can never succeed.
    #[arg(long, requires = "yes")]
    discard_state: bool,
    /// The state may be given up.
    #[arg(long, requires = "discard_state")]
    yes: bool,
    /// A file with signatures of the module, as `raft-host sign` writes it; can be repeated [default: the
    /// module's name with .sig behind it, if there is such a file].
    #[arg(long = "signature", value_name = "FILE")]
    signatures: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// What an operator believes to be active.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    /// Hexadecimal digits, the first of the hash.
    prefix: String,
    activated_at: Option<u64>,
}

/// Fewer digits of a hash could be those of another one.
const PREFIX_MIN: usize = 8;

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
    fn check(&self, incumbent: Option<&v1::Incumbent>) -> Result<(), ClientError> {
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

pub(super) fn run(args: &UpgradeArgs) -> Ended {
    let module = Bytes::from(read_module(&args.file)?);
    let label = args.label.clone().unwrap_or_else(|| label_of(&args.file));
    let signatures = signatures(args, ModuleHash::of(&module))?;
    let size = module.len() as u64;
    let answer = remote::block_on(async {
        let client = args.remote.client_with(TIMEOUT).await?;
        replace(&client, args, signatures, module, &label)
            .await
            .map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the upgrade"))?;
    match args.remote.output {
        Output::Json => print_json(&to_json(&answer))?,
        Output::Table => print_text(&to_text(&answer, &label, size))?,
    }
    Ok(Exit::Done)
}

async fn replace(
    client: &Client,
    args: &UpgradeArgs,
    signatures: Vec<v1::ModuleSignature>,
    module: Bytes,
    label: &str,
) -> Result<v1::UpgradeResponse, ClientError> {
    let replaces = client.incumbent().await?;
    let is_active =
        |active: &v1::Incumbent| hex(&active.module_hash) == ModuleHash::of(&module).to_string();
    // One that is active already needs nothing: then this is the second run of a script.
    if let Some(expected) = &args.replaces
        && !replaces.as_ref().is_some_and(is_active)
    {
        expected.check(replaces.as_ref())?;
    }
    let options = UpgradeOptions { replaces, discard_state: args.discard_state, signatures };
    client.upgrade_from(options, module, label).await
}

/// The signatures of the module, of the files that were named or of the one beside it.
fn signatures(args: &UpgradeArgs, module: ModuleHash) -> Result<Vec<v1::ModuleSignature>, Failure> {
    let beside = signature_file(&args.file);
    let is_named = !args.signatures.is_empty();
    let files = match is_named {
        true => args.signatures.clone(),
        false => Some(beside).filter(|file| file.exists()).into_iter().collect(),
    };
    let mut all = Vec::new();
    for file in files {
        let read = read_signatures(&file)?.signatures.into_iter();
        // Beside the module may be those of an earlier build.
        let of_it: Vec<_> = read.filter(|signed| signed.module == module).collect();
        if of_it.is_empty() && is_named {
            let (file, name) = (file.display(), args.file.display());
            return Err(Failure::new(format!("{file} has no signature of {name}")));
        }
        all.extend(of_it.into_iter().map(|signed| to_wire(&signed.signature)));
    }
    Ok(all)
}

fn to_wire(signature: &ModuleSignature) -> v1::ModuleSignature {
    v1::ModuleSignature {
        public_key: signature.key.to_bytes().to_vec().into(),
        cluster_id: signature.cluster.map(|id| id.0.to_vec().into()).unwrap_or_default(),
        signature: signature.signature.to_vec().into(),
        label: signature.label.clone(),
    }
}

fn to_text(answer: &v1::UpgradeResponse, label: &str, size: u64) -> String {
    let hash = short_hash(&answer.module_hash);
    if answer.already_active {
        return format!("{label} {hash} is active already, since index {}", answer.index);
    }
    let replaced = match short_hash(&answer.previous_hash).as_str() {
        "-" => "the cluster's first module".to_owned(),
        previous => format!("in place of {previous}"),
    };
    format!(
        "{label} {hash} ({}) is active from index {} on, {replaced}",
        human_bytes(size),
        answer.index
    )
}

fn to_json(answer: &v1::UpgradeResponse) -> Value {
    json!({
        "index": answer.index,
        "module_hash": hex(&answer.module_hash),
        "previous_hash": hex(&answer.previous_hash),
        "already_active": answer.already_active,
    })
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

    #[test]
    fn the_answer_says_where_and_in_place_of_what() {
        let mut answer = v1::UpgradeResponse {
            index: 42,
            module_hash: vec![0xab; 32].into(),
            previous_hash: vec![0xcd; 32].into(),
            already_active: false,
        };
        assert_eq!(
            to_text(&answer, "kv2", 2_048),
            "kv2 abababababab (2.0 KiB) is active from index 42 on, in place of cdcdcdcdcdcd"
        );
        answer.previous_hash.clear();
        assert!(to_text(&answer, "kv", 1).ends_with("the cluster's first module"));
        answer.already_active = true;
        assert_eq!(to_text(&answer, "kv", 1), "kv abababababab is active already, since index 42");
    }
}
