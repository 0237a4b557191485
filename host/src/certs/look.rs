//! What files and folders with certificates hold, for people.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::disk;
use super::identity::{Facts, facts_of};

/// The most certificates that one file may have.
const MAX_CERTIFICATES: usize = 64;
/// The most files of a folder that are looked at.
const MAX_FILES: usize = 4_096;
/// How deep folders are looked into: the folder of a CA, nodes, a node, and one to spare.
const MAX_DEPTH: usize = 4;
/// How files of certificates and keys end.
const ENDINGS: [&str; 5] = ["pem", "crt", "cer", "der", "key"];

/// Something in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A certificate.
    Certificate(Box<Facts>),
    /// A private key. There is no more to say about it.
    PrivateKey,
    /// Something else that is not looked at.
    Other,
}

/// A file, and what is in it or why that cannot be said.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub items: Result<Vec<Item>, String>,
}

/// Looks at a file, or at all files of a folder that may hold certificates. What cannot be read is told of, and
/// does not keep others from being looked at.
pub fn look(path: &Path) -> Vec<Seen> {
    let mut files = Vec::new();
    let found = match path.is_dir() {
        true => files_of(path, MAX_DEPTH, &mut files),
        false => {
            files.push(path.to_owned());
            Ok(())
        }
    };
    let problem = match found {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(()) if files.is_empty() => Some("there are no certificates here".to_owned()),
        Ok(()) => None,
    };
    let mut seen: Vec<Seen> =
        files.into_iter().map(|path| Seen { items: items_of(&path), path }).collect();
    seen.extend(problem.map(|problem| Seen { path: path.to_owned(), items: Err(problem) }));
    seen
}

fn files_of(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = Vec::new();
    for file in fs::read_dir(dir)?.take(MAX_FILES) {
        let file = file?;
        let is_hidden = file.file_name().to_string_lossy().starts_with('.');
        if !is_hidden {
            paths.push((file.path(), file.file_type()?.is_dir()));
        }
    }
    paths.sort();
    for (path, is_dir) in paths {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if is_dir && depth > 1 {
            files_of(&path, depth - 1, found)?;
        } else if !is_dir && ENDINGS.contains(&ending) {
            if found.len() == MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
            found.push(path);
        }
    }
    Ok(())
}

fn certificate(der: &[u8]) -> Result<Item, String> {
    let facts = facts_of(der).map_err(|error| error.to_string())?;
    Ok(Item::Certificate(Box::new(facts)))
}

fn items_of(path: &Path) -> Result<Vec<Item>, String> {
    let bytes = disk::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let has_pem = bytes.windows(11).any(|part| part == b"-----BEGIN ");
    if !has_pem {
        return Ok(vec![certificate(&bytes)?]);
    }
    let mut items = Vec::new();
    let mut certificates = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, der) = section.map_err(|_| "this is no PEM, or is damaged".to_owned())?;
        items.push(match kind {
            SectionKind::Certificate => {
                certificates += 1;
                if certificates > MAX_CERTIFICATES {
                    return Err(format!("it has more than {MAX_CERTIFICATES} certificates"));
                }
                certificate(&der)?
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                Item::PrivateKey
            }
            _ => Item::Other,
        });
    }
    Ok(items)
}
