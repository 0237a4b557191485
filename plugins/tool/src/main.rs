//! `plugins/build` runs this.
//!
//! `raft-host-plugins list LANGUAGE` prints the folders of the projects in a language.
//! `raft-host-plugins finish BUILT LANGUAGE…` comes after the compilers: it assembles the WAT
//! modules, puts the Rust modules, which lie in BUILT, beside their sources, and writes the
//! manifest for the modules in these languages.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use raft_host_plugins::{PLUGINS, Source, manifest, root};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list", language] => {
            list(language);
            Ok(())
        }
        ["finish", built, ref languages @ ..] => finish(Path::new(built), languages),
        _ => bail!("usage: raft-host-plugins list LANGUAGE | finish BUILT LANGUAGE…"),
    }
}

fn list(wanted: &str) {
    for plugin in PLUGINS {
        match plugin.source {
            Source::Project { folder, language, .. } if language == wanted => println!("{folder}"),
            _ => {}
        }
    }
}

fn finish(built: &Path, languages: &[&str]) -> Result<()> {
    let root = root();
    let rebuilt = |source: &Source| languages.contains(&source.language());
    for plugin in PLUGINS.iter().filter(|plugin| rebuilt(&plugin.source)) {
        let path = root.join(plugin.module);
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("reading {}", path.display()))
        };
        let module = match plugin.source {
            Source::Rust { artifact, .. } => read(&built.join(artifact))?,
            Source::Wat { file } => wat::parse_file(root.join(file))?,
            Source::Project { .. } => read(&path)?,
        };
        // Anew, because some linkers make modules executable, which they are not to a system.
        let written = std::fs::remove_file(&path).and_then(|()| std::fs::write(&path, &module));
        written.with_context(|| format!("writing {}", path.display()))?;
        println!("{:>8} bytes  {}", module.len(), plugin.module);
    }
    let path = root.join(manifest::PATH);
    let recorded =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", manifest::PATH))?;
    let updated = manifest::updated(&root, &recorded, |plugin| rebuilt(&plugin.source))?;
    std::fs::write(&path, updated).with_context(|| format!("writing {}", manifest::PATH))
}
