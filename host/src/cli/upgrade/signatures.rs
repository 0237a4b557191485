//! The signatures that come with a module.

use std::path::{Path, PathBuf};

use raft_host_proto::v1;

use super::wanted::Wanted;
use crate::cli::exit::Failure;
use crate::cli::input::{read_signatures, signature_file};
use crate::signing::ModuleSignature;
use crate::types::ModuleHash;

/// The signatures in the files that were named, or beside the module.
pub(in crate::cli) fn signatures_of(
    wanted: &Wanted,
    files: &[PathBuf],
) -> Result<Vec<v1::ModuleSignature>, Failure> {
    let hash = ModuleHash::try_from(&wanted.hash[..]).expect("32 bytes");
    let file = wanted.file.as_ref().map(|(path, _)| path.as_path());
    signatures(file, files, hash)
}

/// Of the files that were named or of the one beside the module.
fn signatures(
    module_file: Option<&Path>,
    named: &[PathBuf],
    module: ModuleHash,
) -> Result<Vec<v1::ModuleSignature>, Failure> {
    let beside = module_file.map(signature_file);
    let is_named = !named.is_empty();
    let files = match is_named {
        true => named.to_vec(),
        false => beside.filter(|file| file.exists()).into_iter().collect(),
    };
    let mut all = Vec::new();
    for file in files {
        let read = read_signatures(&file)?.signatures.into_iter();
        // Beside the module may be those of an earlier build.
        let of_it: Vec<_> = read.filter(|signed| signed.module == module).collect();
        if of_it.is_empty() && is_named {
            let name =
                module_file.map_or_else(|| module.short(), |file| file.display().to_string());
            return Err(Failure::new(format!("{} has no signature of {name}", file.display())));
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
