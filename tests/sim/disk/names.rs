//! Names of files and directories, and which of them a power loss spares.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// Number of a file, whatever its name.
pub(super) type FileId = u64;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(FileId),
}

type Table = BTreeMap<PathBuf, Node>;

#[derive(Clone, Debug)]
enum Change {
    Create { path: PathBuf, node: Node },
    Rename { from: PathBuf, to: PathBuf, node: Node },
    Remove { path: PathBuf, node: Node },
}

impl Change {
    fn directory(&self) -> Option<&Path> {
        match self {
            Change::Create { path, .. } | Change::Remove { path, .. } => path.parent(),
            Change::Rename { to, .. } => to.parent(),
        }
    }

    /// Whether a directory gets another name.
    fn is_of_directory(&self) -> bool {
        matches!(self, Change::Rename { node: Node::Directory, .. })
    }

    fn node(&self) -> Node {
        match self {
            Change::Create { node, .. }
            | Change::Rename { node, .. }
            | Change::Remove { node, .. } => *node,
        }
    }

    fn apply(&self, table: &mut Table) {
        let mut forget = |path: &PathBuf, node: &Node| {
            if table.get(path) == Some(node) {
                table.remove(path);
            }
        };
        match self {
            Change::Create { path, node } => {
                table.insert(path.clone(), *node);
            }
            Change::Remove { path, node: Node::Directory } => {
                forget(path, &Node::Directory);
                // It was empty; what is known of it from before goes with it.
                take_below(table, path);
            }
            Change::Remove { path, node } => forget(path, node),
            Change::Rename { from, to, node: Node::Directory } => {
                forget(from, &Node::Directory);
                let below = take_below(table, from);
                table.insert(to.clone(), Node::Directory);
                table.extend(below.into_iter().map(|(path, node)| (moved(&path, from, to), node)));
            }
            Change::Rename { from, to, node } => {
                forget(from, node);
                table.insert(to.clone(), *node);
            }
        }
    }

    /// What is in a directory that has another name now.
    fn follow(&mut self, renamed: &Change) {
        let Change::Rename { from, to, node: Node::Directory } = renamed else { return };
        let paths = match self {
            Change::Create { path, .. } | Change::Remove { path, .. } => [Some(path), None],
            Change::Rename { from, to, .. } => [Some(from), Some(to)],
        };
        for path in paths.into_iter().flatten() {
            if path.starts_with(from) && path != from {
                *path = moved(path, from, to);
            }
        }
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    to.join(path.strip_prefix(from).expect("it is below that"))
}

/// Takes all that is below a directory out of a table.
fn take_below(table: &mut Table, dir: &Path) -> Vec<(PathBuf, Node)> {
    let below = table.range(dir.to_owned()..).skip_while(|(path, _)| *path == dir);
    let below: Vec<(PathBuf, Node)> = below
        .take_while(|(path, _)| path.starts_with(dir))
        .map(|(path, node)| (path.clone(), *node))
        .collect();
    for (path, _) in &below {
        table.remove(path);
    }
    below
}

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    current: Table,
    durable: Table,
    /// Changes of `current` that are not in `durable`, in order.
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn new(root: &Path) -> Names {
        let mut names = Names::default();
        names.current.insert(root.to_owned(), Node::Directory);
        names.durable = names.current.clone();
        names
    }

    /// The same names below another directory.
    pub(super) fn moved(&self, from: &Path, to: &Path) -> Names {
        let below = |path: &Path| to.join(path.strip_prefix(from).expect("all are below it"));
        let table = |table: &Table| table.iter().map(|(path, node)| (below(path), *node)).collect();
        let change = |change: &Change| match change {
            Change::Create { path, node } => Change::Create { path: below(path), node: *node },
            Change::Remove { path, node } => Change::Remove { path: below(path), node: *node },
            Change::Rename { from, to, node } => {
                Change::Rename { from: below(from), to: below(to), node: *node }
            }
        };
        Names {
            current: table(&self.current),
            durable: table(&self.durable),
            pending: self.pending.iter().map(change).collect(),
        }
    }

    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        self.current.get(path).copied()
    }

    /// Names in a directory, in order.
    pub(super) fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let below = self.current.range(dir.to_owned()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(dir));
        below.filter(|path| path.parent() == Some(dir)).cloned().collect()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, FileId)> {
        files(&self.current)
    }

    pub(super) fn durable_files(&self) -> impl Iterator<Item = (&Path, FileId)> {
        files(&self.durable)
    }

    /// Whether the file may still be found under some name, now or after a crash.
    pub(super) fn knows(&self, id: FileId) -> bool {
        let node = Node::File(id);
        self.current.values().chain(self.durable.values()).any(|known| *known == node)
            || self.pending.iter().any(|change| change.node() == node)
    }

    pub(super) fn create(&mut self, path: &Path, node: Node, is_durable: bool) {
        self.change(Change::Create { path: path.to_owned(), node }, is_durable);
    }

    pub(super) fn remove(&mut self, path: &Path, node: Node, is_durable: bool) {
        self.change(Change::Remove { path: path.to_owned(), node }, is_durable);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, node: Node) {
        let change = Change::Rename { from: from.to_owned(), to: to.to_owned(), node };
        self.change(change, false);
    }

    fn change(&mut self, change: Change, is_durable: bool) {
        change.apply(&mut self.current);
        if is_durable {
            change.apply(&mut self.durable);
        } else {
            self.pending.push(change);
        }
    }

    pub(super) fn sync(&mut self, dir: &Path) {
        let mut renamed: Vec<Change> = Vec::new();
        self.pending.retain(|change| {
            let is_here = change.directory() == Some(dir);
            if is_here {
                change.apply(&mut self.durable);
                renamed.extend(change.is_of_directory().then(|| change.clone()));
            }
            !is_here
        });
        for rename in &renamed {
            self.pending.iter_mut().for_each(|change| change.follow(rename));
        }
    }

    /// Of the changes not synced all survive, or some, or the first so many, or none.
    /// Returns how many were lost.
    pub(super) fn lose_power(&mut self, rng: &mut ChaCha8Rng) -> usize {
        let pending = std::mem::take(&mut self.pending);
        let is_in_order = rng.random();
        let first = rng.random_range(0..=pending.len());
        let mut lost = 0;
        for (number, change) in pending.iter().enumerate() {
            let survives = if is_in_order { number < first } else { rng.random() };
            if survives {
                change.apply(&mut self.durable);
            } else {
                lost += 1;
            }
        }
        // What is in a directory that was lost is lost with it; parents sort before children.
        let mut table = Table::new();
        for (path, node) in std::mem::take(&mut self.durable) {
            let parent = path.parent().and_then(|parent| table.get(parent));
            if table.is_empty() || parent == Some(&Node::Directory) {
                table.insert(path, node);
            }
        }
        self.durable = table;
        self.current = self.durable.clone();
        lost
    }
}

fn files(table: &Table) -> impl Iterator<Item = (&Path, FileId)> {
    table.iter().filter_map(|(path, node)| match node {
        Node::File(id) => Some((path.as_path(), *id)),
        Node::Directory => None,
    })
}
