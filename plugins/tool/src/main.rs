//! `plugins/build` runs this after the compiler: it assembles the WAT plugins, puts the
//! built modules beside their sources and writes the manifest.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use raft_host_plugins::{PLUGINS, Source, manifest, root};

fn main() -> Result<()> {
    let built = std::env::args_os().nth(1).map(PathBuf::from);
    let built = built.context("usage: raft-host-plugins FOLDER_WITH_BUILT_MODULES")?;
    let root = root();
    for plugin in PLUGINS {
        let module = match plugin.source {
            Source::Rust { artifact, .. } => {
                let path = built.join(artifact);
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?
            }
            Source::Wat { file } => wat::parse_file(root.join(file))?,
        };
        let path = root.join(plugin.module);
        std::fs::write(&path, &module).with_context(|| format!("writing {}", path.display()))?;
        println!("{:>8} bytes  {}", module.len(), plugin.module);
    }
    std::fs::write(root.join(manifest::PATH), manifest::current(&root)?)
        .with_context(|| format!("writing {}", manifest::PATH))
}
