//! The manifest: one line for each module.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};

use crate::{PLUGINS, Plugin, Source, project, sources};

/// Below the root of the repository.
pub const PATH: &str = "plugins/manifest.txt";

const HEADER: &str = "\
# Written by plugins/build. A test compares it with the files: if it fails, run plugins/build.
# SHA-256 of the module · SHA-256 of everything it was built from · module
";

/// The manifest that the files, as they are now, would have.
pub fn current(root: &Path) -> Result<String> {
    updated(root, "", |_| true)
}

/// The manifest `recorded` with new lines for those of the modules that were `rebuilt`.
pub fn updated(root: &Path, recorded: &str, rebuilt: impl Fn(&Plugin) -> bool) -> Result<String> {
    let mut manifest = HEADER.to_owned();
    for plugin in PLUGINS {
        let old = recorded.lines().find(|line| line.ends_with(&format!("  {}", plugin.module)));
        match old {
            Some(line) if !rebuilt(plugin) => writeln!(manifest, "{line}")?,
            None if !rebuilt(plugin) => {}
            _ => writeln!(manifest, "{}", line(root, plugin)?)?,
        }
    }
    Ok(manifest)
}

fn line(root: &Path, plugin: &Plugin) -> Result<String> {
    let read =
        |path: &str| std::fs::read(root.join(path)).with_context(|| format!("reading {path}"));
    let sources = match plugin.source {
        Source::Rust { package, .. } => sources::of_package(root, package)?,
        Source::Wat { file } => sha256(&read(file)?),
        Source::Project { folder, sdk, .. } => project::of_folders(root, folder, sdk)?,
    };
    Ok(format!("{}  {sources}  {}", sha256(&read(plugin.module)?), plugin.module))
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes everything");
        hex
    })
}
