//! The manifest: one line for each module.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};

use crate::{PLUGINS, Source, sources};

/// Below the root of the repository.
pub const PATH: &str = "plugins/manifest.txt";

const HEADER: &str = "\
# Written by plugins/build. A test compares it with the files: if it fails, run plugins/build.
# SHA-256 of the module · SHA-256 of everything it was built from · module
";

/// The manifest that the files, as they are now, would have.
pub fn current(root: &Path) -> Result<String> {
    let mut manifest = HEADER.to_owned();
    for plugin in PLUGINS {
        let module = std::fs::read(root.join(plugin.module))
            .with_context(|| format!("reading {}", plugin.module))?;
        let sources = match plugin.source {
            Source::Rust { package, .. } => sources::of_package(root, package)?,
            Source::Wat { file } => {
                sha256(&std::fs::read(root.join(file)).with_context(|| format!("reading {file}"))?)
            }
        };
        writeln!(manifest, "{}  {sources}  {}", sha256(&module), plugin.module)?;
    }
    Ok(manifest)
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes everything");
        hex
    })
}
