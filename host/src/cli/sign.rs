//! `raft-host sign`: a publisher's word for a module, in a file beside it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use raft_host_proto::client;
use serde_json::{Value, json};

use super::exit::{Ended, Exit, Failure};
use super::input::{label_of, read_module, read_signatures, signature_file};
use super::output::{Output, print_json, print_text, table};
use crate::machine::{LABEL_MAX_BYTES, bounded_label};
use crate::signing::{ModuleSignature, SecretKey, SignatureFile, SignedModule, Statement};
use crate::types::{ClusterId, ModuleHash};

/// Signs a module, so that a cluster that trusts the key activates it. Asks nobody.
///
/// The signature is over the module's bytes, its label, and one cluster or any. It is added to FILE.sig, from
/// where `raft-host upgrade` takes it. With --verify, checks such a file instead.
#[derive(Args, Clone, Debug)]
pub(super) struct SignArgs {
    /// The module: a .wasm file.
    file: PathBuf,
    /// The file with the secret key, as `raft-host keys generate` writes it.
    #[arg(long, value_name = "FILE", required_unless_present = "verify")]
    key: Option<PathBuf>,
    /// The only cluster that it is for: 32 hexadecimal digits, as `raft-host status` shows them.
    #[arg(long, value_name = "ID", conflicts_with = "any_cluster")]
    cluster_id: Option<client::ClusterId>,
    /// It is for any cluster (the default).
    #[arg(long)]
    any_cluster: bool,
    /// The label that it may be activated under; the file's name without .wasm if none is given, as for
    /// `upgrade`.
    #[arg(long)]
    label: Option<String>,
    /// The file that the signature is added to [default: the module's, with .sig behind it].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Checks the signatures in that file: exit code 0 only if there are some, and all are of this module.
    #[arg(long, conflicts_with_all = ["key", "cluster_id", "any_cluster", "label"])]
    verify: bool,
    /// Text for people or JSON for scripts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

pub(super) fn run(args: &SignArgs) -> Ended {
    let module = ModuleHash::of(&read_module(&args.file)?);
    let path = args.out.clone().unwrap_or_else(|| signature_file(&args.file));
    match &args.key {
        Some(key) => sign(args, key, module, &path),
        None => verify(args, module, &path),
    }
}

fn sign(args: &SignArgs, key: &Path, module: ModuleHash, path: &Path) -> Ended {
    let key = SecretKey::read(key).map_err(|error| Failure::new(error.to_string()))?;
    let label = args.label.clone().unwrap_or_else(|| label_of(&args.file));
    if bounded_label(&label) != label {
        return Err(Failure::usage(format!(
            "a label may have {LABEL_MAX_BYTES} bytes and no control characters: give another one \
             (--label)"
        )));
    }
    let cluster = args.cluster_id.map(|id| {
        ClusterId::try_from(&id.to_bytes()[..]).expect("the id of a cluster has 16 bytes")
    });
    let signature = ModuleSignature::make(&key, &Statement { cluster, module, label: &label });
    let mut file = match path.exists() {
        true => read_signatures(path)?,
        false => SignatureFile::default(),
    };
    // Of what was built before, under the same name.
    file.signatures.retain(|signed| signed.module == module);
    file.add(SignedModule { module, signature: signature.clone() });
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
    let text = file.to_string();
    if let Err(error) = SignatureFile::parse(&text) {
        return Err(Failure::new(format!("{}: {error}", path.display())));
    }
    replace(path, &text).map_err(failed)?;
    let id = signature.key.id();
    match args.output {
        Output::Json => print_json(&json!({
            "file": path.display().to_string(),
            "module_hash": module.to_string(),
            "signature": to_json(&signature, true),
            "signatures": file.signatures.len(),
        }))?,
        Output::Table => {
            let cluster = scope(&signature);
            print_text(&format!(
                "signed {label} {} for {cluster} with key {id}: {} has {} of its signatures",
                module.short(),
                path.display(),
                file.signatures.len()
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// All of it or nothing.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .prefix(".signature")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::metadata(path).map(drop)
}

fn verify(args: &SignArgs, module: ModuleHash, path: &Path) -> Ended {
    let file = read_signatures(path)?;
    let fits = |signed: &SignedModule| signed.module == module && signed.signature.fits(module);
    let all_fit = file.signatures.iter().all(fits);
    match args.output {
        Output::Json => {
            let signatures = file.signatures.iter();
            let signatures = signatures.map(|signed| to_json(&signed.signature, fits(signed)));
            print_json(&json!({
                "file": path.display().to_string(),
                "module_hash": module.to_string(),
                "signatures": signatures.collect::<Vec<_>>(),
            }))?;
        }
        Output::Table if !file.signatures.is_empty() => {
            let rows: Vec<Vec<String>> = file
                .signatures
                .iter()
                .map(|signed| {
                    let verdict = match (fits(signed), signed.module == module) {
                        (true, _) => "fits".to_owned(),
                        (false, true) => "does not fit".to_owned(),
                        (false, false) => format!("of module {}", signed.module.short()),
                    };
                    let signature = &signed.signature;
                    let id = signature.key.id().to_string();
                    vec![id, scope(signature), signature.label.clone(), verdict]
                })
                .collect();
            print_text(&table(&["key", "for", "label", "signature"], &rows))?;
        }
        Output::Table => {}
    }
    match (file.signatures.is_empty(), all_fit) {
        (true, _) => Err(Failure::new(format!("{} has no signatures", path.display()))),
        (false, false) => Err(Failure::new(format!(
            "not all signatures in {} are of {}",
            path.display(),
            args.file.display()
        ))),
        (false, true) => Ok(Exit::Done),
    }
}

fn scope(signature: &ModuleSignature) -> String {
    signature.cluster.map_or_else(|| "any cluster".to_owned(), |id| format!("cluster {id}"))
}

fn to_json(signature: &ModuleSignature, fits: bool) -> Value {
    json!({
        "key": signature.key.id().to_string(),
        "public_key": signature.key.to_string(),
        "cluster_id": signature.cluster.map(|id| id.to_string()),
        "label": signature.label,
        "fits": fits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &Path, key: Option<&Path>) -> SignArgs {
        SignArgs {
            file: file.to_owned(),
            key: key.map(Path::to_owned),
            cluster_id: None,
            any_cluster: false,
            label: None,
            out: None,
            verify: key.is_none(),
            output: Output::Json,
        }
    }

    #[test]
    fn signatures_of_several_keys_gather_beside_the_module() {
        let dir = tempfile::tempdir().expect("a directory");
        let module = dir.path().join("kv.wasm");
        fs::write(&module, b"one").expect("writable");
        assert!(run(&args(&module, None)).is_err(), "there is no such file yet");
        for seed in [1, 2, 2] {
            let key = dir.path().join(format!("{seed}.pem"));
            SecretKey::from_seed([seed; 32]).write_new(&key).ok();
            run(&args(&module, Some(&key))).expect("signed");
        }
        let beside = signature_file(&module);
        let file = read_signatures(&beside).expect("readable");
        assert_eq!(file.signatures.len(), 2);
        assert!(file.signatures.iter().all(|signed| signed.signature.label == "kv"));
        run(&args(&module, None)).expect("they fit");
        // Another build: the old signatures are of no use, and the next one takes their place.
        fs::write(&module, b"two").expect("writable");
        let failure = run(&args(&module, None)).expect_err("of another module");
        assert!(failure.message.contains("not all signatures"), "{}", failure.message);
        run(&args(&module, Some(&dir.path().join("1.pem")))).expect("signed");
        assert_eq!(read_signatures(&beside).expect("readable").signatures.len(), 1);
        run(&args(&module, None)).expect("it fits");
        // Nothing that is no such file is written over.
        fs::write(&beside, "a poem").expect("writable");
        assert!(run(&args(&module, Some(&dir.path().join("1.pem")))).is_err());
        assert_eq!(fs::read_to_string(&beside).expect("readable"), "a poem");
    }
}
