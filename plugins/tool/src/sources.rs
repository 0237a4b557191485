//! Everything that decides the bytes of a Rust plugin, except the compiler.
//!
//! That is: the manifests and sources of the workspace's crates that it is made of, the exact
//! versions of the other ones (from `Cargo.lock`), the build profile and the build script.
//! Files named `tests.rs` are left out, so that a new test does not ask for a rebuild.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::manifest::sha256;

/// The hash of a package's sources.
pub(crate) fn of_package(root: &Path, package: &str) -> Result<String> {
    let workspace = Workspace::read(root)?;
    let mut closure = BTreeMap::new();
    workspace.collect(workspace.locked(package)?, &mut closure)?;
    let mut all = String::new();
    for (name, contents) in closure {
        writeln!(all, "{name}\n{contents}")?;
    }
    for table in ["profile.release", "profile.wasm", "workspace.package"] {
        let value = lookup(&workspace.manifest, table)?;
        writeln!(all, "{table} = {}", canonical(value))?;
    }
    writeln!(all, "{}", file(root, "plugins/build-rust")?)?;
    Ok(sha256(all.as_bytes()))
}

struct Workspace<'a> {
    root: &'a Path,
    manifest: Table,
    lock: Vec<Table>,
    /// Folder and manifest of each member, by the name of its package.
    members: BTreeMap<String, (String, Table)>,
}

impl Workspace<'_> {
    fn read(root: &Path) -> Result<Workspace<'_>> {
        let manifest = table(root, "Cargo.toml")?;
        let lock = table(root, "Cargo.lock")?;
        let lock = lock.get("package").and_then(Value::as_array).context("an empty Cargo.lock")?;
        let lock = lock.iter().filter_map(Value::as_table).cloned().collect();
        let mut members = BTreeMap::new();
        let folders = lookup(&manifest, "workspace.members")?.as_array();
        for folder in folders.context("workspace.members is a list")? {
            let folder = folder.as_str().context("a member is a string")?;
            let manifest = table(root, &format!("{folder}/Cargo.toml"))?;
            let name = text(lookup(&manifest, "package")?.as_table(), "name")?.to_owned();
            members.insert(name, (folder.to_owned(), manifest));
        }
        Ok(Workspace { root, manifest, lock, members })
    }

    /// The entry in `Cargo.lock` for `name`, `name version` or `name version (source)`.
    fn locked(&self, wanted: &str) -> Result<&Table> {
        let mut words = wanted.split(' ');
        let (name, version) = (words.next(), words.next());
        let mut found = self.lock.iter().filter(|package| {
            let field = |name: &str| package.get(name).and_then(Value::as_str);
            field("name") == name && (version.is_none() || field("version") == version)
        });
        match (found.next(), found.next()) {
            (Some(package), None) => Ok(package),
            _ => bail!("Cargo.lock has none or several of {wanted}"),
        }
    }

    /// Adds a package and all it depends on: the contents of a member, the version and
    /// checksum of any other.
    fn collect(&self, package: &Table, closure: &mut BTreeMap<String, String>) -> Result<()> {
        let name = text(Some(package), "name")?;
        let version = text(Some(package), "version")?;
        let key = format!("{name} {version}");
        if closure.contains_key(&key) {
            return Ok(());
        }
        let mut dependencies: Vec<&str> = package
            .get("dependencies")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        if package.contains_key("source") {
            closure.insert(key, text(Some(package), "checksum")?.to_owned());
        } else {
            let (folder, manifest) = self.members.get(name).context("a package without source")?;
            let declared = manifest.get("dependencies").and_then(Value::as_table);
            let declared = declared.cloned().unwrap_or_default();
            // `Cargo.lock` mixes in what only tests need.
            dependencies.retain(|dependency| {
                dependency.split(' ').next().is_some_and(|name| declared.contains_key(name))
            });
            closure.insert(key, self.contents(folder, &declared)?);
        }
        for dependency in dependencies {
            self.collect(self.locked(dependency)?, closure)?;
        }
        Ok(())
    }

    fn contents(&self, folder: &str, dependencies: &Table) -> Result<String> {
        let mut paths = vec![format!("{folder}/Cargo.toml")];
        list(self.root, &format!("{folder}/src"), &mut paths)?;
        paths.sort();
        let mut contents = String::new();
        for path in paths {
            contents += &file(self.root, &path)?;
        }
        let shared = lookup(&self.manifest, "workspace.dependencies")?.as_table();
        for name in dependencies.keys() {
            if let Some(value) = shared.and_then(|shared| shared.get(name)) {
                writeln!(contents, "{name} = {}", canonical(value))?;
            }
        }
        Ok(contents)
    }
}

fn list(root: &Path, folder: &str, paths: &mut Vec<String>) -> Result<()> {
    let entries = root.join(folder).read_dir().with_context(|| format!("listing {folder}"))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{folder}/{}", name.to_str().context("a file name that is no text")?);
        if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        } else if name != "tests.rs" {
            paths.push(path);
        }
    }
    Ok(())
}

/// The path of a file and the hash of its contents.
pub(crate) fn file(root: &Path, path: &str) -> Result<String> {
    let bytes = std::fs::read(root.join(path)).with_context(|| format!("reading {path}"))?;
    Ok(format!("{path} {}\n", sha256(&bytes)))
}

fn table(root: &Path, path: &str) -> Result<Table> {
    let contents = std::fs::read_to_string(root.join(path));
    let contents = contents.with_context(|| format!("reading {path}"))?;
    contents.parse().with_context(|| format!("parsing {path}"))
}

fn lookup<'t>(table: &'t Table, path: &str) -> Result<&'t Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(first).with_context(|| format!("Cargo.toml has no {path}"))?;
    match (rest, value) {
        ("", value) => Ok(value),
        (rest, Value::Table(table)) => lookup(table, rest),
        _ => bail!("{first} is no table"),
    }
}

fn text<'t>(table: Option<&'t Table>, name: &str) -> Result<&'t str> {
    let value = table.and_then(|table| table.get(name)).and_then(Value::as_str);
    value.with_context(|| format!("no text named {name}"))
}

/// The same text for the same value, whatever order its keys were written or are kept in.
fn canonical(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let sorted: BTreeMap<&String, String> =
                table.iter().map(|(key, value)| (key, canonical(value))).collect();
            format!("{sorted:?}")
        }
        Value::Array(list) => format!("{:?}", list.iter().map(canonical).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}
