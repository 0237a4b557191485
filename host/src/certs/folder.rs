//! The folder that a CA lives in, with what it has issued.
//!
//! ```text
//! DIR/ca.pem               what everybody trusts: the CA, and while it is changed the old one behind it
//! DIR/ca-key.pem           its key
//! DIR/old-ca-key.pem       the key of the old one, while the CA is changed
//! DIR/cluster-id           whose CA it is
//! DIR/next-node-id         which ids are left (of another cluster: next-node-id-CLUSTER)
//! DIR/nodes/NAME/          certificate.pem, key.pem, ca.pem
//! DIR/clients/NAME/        the same
//! ```
//!
//! Whoever changes it holds a lock on the folder. What is there is never written over, but for what is renewed
//! on purpose.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::authority::{
    Authority, AuthorityError, Block, CA_DAYS, CLIENT_DAYS, Issued, NODE_DAYS, Validity,
    certificates_in,
};
use super::disk::{self, PRIVATE, PUBLIC};
use super::host::{BadHost, Host};
use super::identity::{BadCertificate, Facts, Subject, facts_of};
use super::ids::Ids;
use crate::types::{ActorName, ClusterId, NAME_MAX_BYTES, NodeId};

pub(super) const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const OLD_CA_KEY: &str = "old-ca-key.pem";
const CLUSTER: &str = "cluster-id";
const NEXT_NODE: &str = "next-node-id";
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "key.pem";

/// The name of a folder with a certificate: a principal's, beginning with a letter or a digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryName(ActorName);

impl EntryName {
    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: it must have 1 to {NAME_MAX_BYTES} letters (a to z), digits, and any of . _ @ -, and \
     begin with a letter or a digit"
)]
pub struct BadEntryName(String);

impl FromStr for EntryName {
    type Err = BadEntryName;

    fn from_str(text: &str) -> Result<EntryName, BadEntryName> {
        let bad = || BadEntryName(text.chars().take(NAME_MAX_BYTES).collect());
        let name: ActorName = text.parse().map_err(|_| bad())?;
        let is_fit = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        is_fit.then_some(EntryName(name)).ok_or_else(bad)
    }
}

/// Whom an entry of the folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A member of the cluster.
    Node,
    /// Somebody who asks it.
    Client,
}

impl Kind {
    /// `node` or `client`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Node => "node",
            Kind::Client => "client",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Kind::Node => "nodes",
            Kind::Client => "clients",
        }
    }

    fn days(self) -> u32 {
        match self {
            Kind::Node => NODE_DAYS,
            Kind::Client => CLIENT_DAYS,
        }
    }

    fn is_of(self, facts: &Facts) -> bool {
        match facts.subject {
            Some(Subject::Node { .. }) => self == Kind::Node,
            Some(Subject::Client { .. }) => self == Kind::Client,
            None => false,
        }
    }
}

/// Why the folder cannot be used, or something in it not be done.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Something is there already.
    #[error("{} is there already, and is left alone: give another name, or move it away first", .0.display())]
    Taken(PathBuf),
    /// No folder of ours.
    #[error("{} is no folder of a CA: `raft-host certs init` makes one", .0.display())]
    NoFolder(PathBuf),
    /// The folder around it is missing.
    #[error("cannot make {}: there is no folder {}; make it first", path.display(), parent.display())]
    NoParent {
        /// What was to be made.
        path: PathBuf,
        /// What it was to be in.
        parent: PathBuf,
    },
    /// Something in the folder is not what it should be.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system says no.
    #[error("cannot {what} {}: {error}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others can sign certificates as well.
    #[error(
        "{} can be read by others than its owner: whoever has read it can make certificates. If nobody has, run chmod \
         600 on it; else begin with a new CA (rotate-ca)", .0.display()
    )]
    OpenKey(PathBuf),
    /// The id was given before.
    #[error(
        "{0} may have been given to a node before, and ids are never used twice: leave --id away, or choose a higher one"
    )]
    IdTaken(NodeId),
    /// The CA has ended.
    #[error("the CA in {} has expired: begin with a new folder (certs init), as nobody trusts it any more", .0.display())]
    Expired(PathBuf),
    /// The CA ends too early.
    #[error(
        "the CA is valid for {left} more days, less than the {asked} that were asked for: give fewer, or begin with a new \
         CA (certs rotate-ca)"
    )]
    Outlived {
        /// What is left of the CA.
        left: u64,
        /// What was asked for.
        asked: u32,
    },
    /// There is nothing of that name.
    #[error("there is no {}: `raft-host certs show` says what there is", .0.display())]
    NoEntry(PathBuf),
    /// No rotation is under way.
    #[error("no change of the CA is under way in {}: `raft-host certs rotate-ca` begins one", .0.display())]
    NotRotating(PathBuf),
    /// The old CA is still in use.
    #[error(
        "{count} certificates are still of the old CA ({names}): renew them (certs renew), and bring them to their \
         machines, before it goes"
    )]
    OldInUse {
        /// How many.
        count: usize,
        /// Some of them.
        names: String,
    },
    /// The CA does not do it.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What the first command makes.
#[derive(Clone, Debug)]
pub struct First {
    /// Whose CA it is.
    pub cluster: ClusterId,
    /// How long the CA is valid.
    pub days: Option<u32>,
    /// Nodes, in the order of their ids, and where they are dialed.
    pub nodes: Vec<(EntryName, Vec<Host>)>,
    /// Clients.
    pub clients: Vec<EntryName>,
}

/// A node that is to get a certificate.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// How its folder is called.
    pub name: EntryName,
    /// Where it is dialed.
    pub hosts: Vec<Host>,
    /// Its id, if not the next one.
    pub id: Option<NodeId>,
    /// Its cluster, if not the folder's.
    pub cluster: Option<ClusterId>,
    /// How long the certificate is valid.
    pub days: Option<u32>,
}

/// A certificate that was issued, and where it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// For whom.
    pub kind: Kind,
    /// The name of its folder.
    pub name: String,
    /// Its folder: `certificate.pem`, `key.pem`, `ca.pem`.
    pub dir: PathBuf,
    /// What the certificate says.
    pub facts: Facts,
    /// Whether it is valid shorter than usual because the CA is.
    pub is_shortened: bool,
}

/// What became of a change of the CA.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The CA that signs from now on.
    pub authority: Facts,
    /// Whether this was done now, and not before.
    pub is_new: bool,
    /// The folders with a new `ca.pem`.
    pub dirs: Vec<PathBuf>,
}

/// The folder of a CA. Nobody else changes it as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    cluster: ClusterId,
    _lock: File,
}

impl Folder {
    /// Makes the folder, with all that a first cluster needs, or nothing.
    ///
    /// # Errors
    /// Something is there already, or cannot be written.
    pub fn create(
        path: &Path,
        first: &First,
        now: SystemTime,
    ) -> Result<(Facts, Vec<Entry>), FolderError> {
        must_be_free(path)?;
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        if !parent.is_dir() {
            let parent = parent.to_owned();
            return Err(FolderError::NoParent { path: path.to_owned(), parent });
        }
        let validity = Validity::days(now, first.days.unwrap_or(CA_DAYS))?;
        let authority = Authority::new(first.cluster, validity)?;
        let failed = |error| system("write", path, error);
        let draft = disk::draft_in(parent).map_err(failed)?;
        let write = |name, text: &str, mode| disk::create(draft.path(), name, text, mode);
        write(CA_KEY, authority.key().pem(), PRIVATE).map_err(failed)?;
        write(CA, authority.certificate_pem(), PUBLIC).map_err(failed)?;
        write(CLUSTER, &format!("{}\n", first.cluster), PUBLIC).map_err(failed)?;
        write(NEXT_NODE, &Ids::new().text(), PUBLIC).map_err(failed)?;
        let mut entries = {
            let folder = Folder::open(draft.path())?;
            let mut entries = Vec::new();
            for (name, hosts) in &first.nodes {
                let (name, hosts) = (*name, hosts.clone());
                let node = NewNode { name, hosts, id: None, cluster: None, days: None };
                entries.push(folder.add_node(&node, now)?);
            }
            for name in &first.clients {
                entries.push(folder.add_client(*name, None, now)?);
            }
            entries
        };
        for entry in &mut entries {
            let inside = entry.dir.strip_prefix(draft.path()).expect("it was made there");
            entry.dir = path.join(inside);
        }
        disk::name_draft(draft, path).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => FolderError::Taken(path.to_owned()),
            _ => failed(error),
        })?;
        Ok((authority.facts().clone(), entries))
    }

    /// Opens a folder, once nobody else is changing it.
    ///
    /// # Errors
    /// It is not there, or is another one.
    pub fn open(path: &Path) -> Result<Folder, FolderError> {
        let file = path.join(CLUSTER);
        if !path.is_dir() || !file.is_file() {
            return Err(FolderError::NoFolder(path.to_owned()));
        }
        let lock = File::open(path).map_err(|error| system("open", path, error))?;
        lock.lock().map_err(|error| system("lock", path, error))?;
        let cluster = read(&file)?.trim().parse();
        let cluster = cluster.map_err(|error| damaged(&file, &error))?;
        Ok(Folder { path: path.to_owned(), cluster, _lock: lock })
    }

    /// Whose CA it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// A certificate for a node, with an id that no other has.
    ///
    /// # Errors
    /// See [`FolderError`]. Nothing is there then but what was.
    pub fn add_node(&self, node: &NewNode, now: SystemTime) -> Result<Entry, FolderError> {
        let dir = self.free_dir(Kind::Node, node.name.as_str())?;
        let cluster = node.cluster.unwrap_or(self.cluster);
        let counter = match cluster == self.cluster {
            true => NEXT_NODE.to_owned(),
            false => format!("{NEXT_NODE}-{cluster}"),
        };
        let mut ids = self.ids(&counter)?;
        let id = match (ids.take(node.id), node.id) {
            (Some(id), _) => id,
            (None, Some(wish)) if (NodeId(1)..=NodeId::HIGHEST).contains(&wish) => {
                return Err(FolderError::IdTaken(wish));
            }
            (None, wish) => return Err(AuthorityError::BadNode(wish.unwrap_or_default()).into()),
        };
        let authority = self.authority()?;
        let (validity, is_shortened) = self.validity(&authority, Kind::Node, node.days, now)?;
        let issued = authority.issue_node(cluster, id, &node.hosts, validity)?;
        // Whatever happens now: nobody else gets the id.
        disk::replace(&self.path, &counter, &ids.text(), PUBLIC)
            .map_err(|error| system("write", &self.path.join(&counter), error))?;
        self.write_entry(&dir, &issued)?;
        Ok(entry(Kind::Node, node.name.as_str(), dir, issued, is_shortened))
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// See [`FolderError`]. Nothing is there then but what was.
    pub fn add_client(
        &self,
        name: EntryName,
        days: Option<u32>,
        now: SystemTime,
    ) -> Result<Entry, FolderError> {
        let dir = self.free_dir(Kind::Client, name.as_str())?;
        let authority = self.authority()?;
        let (validity, is_shortened) = self.validity(&authority, Kind::Client, days, now)?;
        let issued = authority.issue_client(self.cluster, name.0, validity)?;
        self.write_entry(&dir, &issued)?;
        Ok(entry(Kind::Client, name.as_str(), dir, issued, is_shortened))
    }

    /// All entries there are.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn entries(&self) -> Result<Vec<(Kind, String)>, FolderError> {
        let mut found = Vec::new();
        for kind in [Kind::Node, Kind::Client] {
            let dir = self.path.join(kind.folder());
            let failed = |error| system("read", &dir, error);
            if !disk::is_there(&dir).map_err(failed)? {
                continue;
            }
            for file in fs::read_dir(&dir).map_err(failed)? {
                let file = file.map_err(failed)?;
                let name = file.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') && file.path().is_dir() {
                    found.push((kind, name));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// New certificates and keys for the same nodes and clients, in the place of the old ones. Nodes are dialed at
    /// these hosts then; none: where they were.
    ///
    /// The files of an entry are replaced one after the other: whoever reads certificate and key in between
    /// finds that they do not belong together, and reads again.
    ///
    /// # Errors
    /// See [`FolderError`]. Either nothing was renewed, or the disk gave up half way.
    pub fn renew(
        &self,
        which: &[(Kind, String)],
        hosts: &[Host],
        days: Option<u32>,
        now: SystemTime,
    ) -> Result<Vec<Entry>, FolderError> {
        let authority = self.authority()?;
        let mut renewed = Vec::new();
        for (kind, name) in which {
            let dir = self.path.join(kind.folder()).join(name);
            if !dir.is_dir() {
                return Err(FolderError::NoEntry(dir));
            }
            let (facts, _) = certificate_of(&dir)?;
            let (validity, is_shortened) = self.validity(&authority, *kind, days, now)?;
            let issued = match facts.subject.filter(|_| kind.is_of(&facts)) {
                Some(Subject::Node { cluster, node }) => {
                    let hosts = match hosts.is_empty() {
                        true => hosts_of(&facts, &dir)?,
                        false => hosts.to_vec(),
                    };
                    authority.issue_node(cluster, node, &hosts, validity)?
                }
                Some(Subject::Client { name }) => {
                    authority.issue_client(facts.cluster.unwrap_or(self.cluster), name, validity)?
                }
                None => {
                    let why = format!("this is no certificate of a {}", kind.as_str());
                    return Err(FolderError::Damaged { path: dir.join(CERTIFICATE), why });
                }
            };
            renewed.push((entry(*kind, name, dir, issued.clone(), is_shortened), issued));
        }
        let trusted = read(&self.path.join(CA))?;
        for (entry, issued) in &renewed {
            let files = [
                (CA, trusted.as_str(), PUBLIC),
                (KEY, issued.key.pem(), PRIVATE),
                (CERTIFICATE, issued.certificate.as_str(), PUBLIC),
            ];
            for (name, text, mode) in files {
                disk::replace(&entry.dir, name, text, mode)
                    .map_err(|error| system("write", &entry.dir.join(name), error))?;
            }
        }
        Ok(renewed.into_iter().map(|(entry, _)| entry).collect())
    }

    /// A new CA, beside the old one: from now on it signs, and everybody is to trust both. Where that was begun
    /// before, it only writes again who is to be trusted.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn rotate(&self, days: Option<u32>, now: SystemTime) -> Result<Rotation, FolderError> {
        let old = self.authority()?;
        let trusted = read(&self.path.join(CA))?;
        if self.trusted()?.len() > 1 {
            let dirs = self.spread(&trusted)?;
            return Ok(Rotation { authority: old.facts().clone(), is_new: false, dirs });
        }
        let validity = Validity::days(now, days.unwrap_or(CA_DAYS))?;
        let new = Authority::new(self.cluster, validity)?;
        let both = new.certificate_pem().to_owned() + old.certificate_pem();
        // In this order: the key that signs always has its certificate.
        self.write(OLD_CA_KEY, old.key().pem(), PRIVATE)?;
        self.write(CA, &both, PUBLIC)?;
        self.write(CA_KEY, new.key().pem(), PRIVATE)?;
        let dirs = self.spread(&both)?;
        Ok(Rotation { authority: new.facts().clone(), is_new: true, dirs })
    }

    /// Nobody is to trust the old CA any more.
    ///
    /// # Errors
    /// Certificates of it are left, or there is none.
    pub fn finish_rotation(&self) -> Result<Rotation, FolderError> {
        let authority = self.authority()?;
        let old_key = self.path.join(OLD_CA_KEY);
        let has_old_key =
            disk::is_there(&old_key).map_err(|error| system("read", &old_key, error))?;
        if self.trusted()?.len() < 2 && !has_old_key {
            return Err(FolderError::NotRotating(self.path.clone()));
        }
        let mut left = Vec::new();
        for (kind, name) in self.entries()? {
            let dir = self.path.join(kind.folder()).join(&name);
            let (_, der) = certificate_of(&dir)?;
            if !authority.has_issued(&der) {
                left.push(format!("{} {name}", kind.as_str()));
            }
        }
        if !left.is_empty() {
            let mut names = left.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            if left.len() > 5 {
                names.push_str(", …");
            }
            return Err(FolderError::OldInUse { count: left.len(), names });
        }
        self.write(CA, authority.certificate_pem(), PUBLIC)?;
        let dirs = self.spread(authority.certificate_pem())?;
        if has_old_key {
            fs::remove_file(&old_key).map_err(|error| system("remove", &old_key, error))?;
        }
        Ok(Rotation { authority: authority.facts().clone(), is_new: true, dirs })
    }

    /// Writes into each entry who is to be trusted.
    fn spread(&self, trusted: &str) -> Result<Vec<PathBuf>, FolderError> {
        let mut dirs = Vec::new();
        for (kind, name) in self.entries()? {
            let dir = self.path.join(kind.folder()).join(name);
            disk::replace(&dir, CA, trusted, PUBLIC)
                .map_err(|error| system("write", &dir.join(CA), error))?;
            dirs.push(dir);
        }
        Ok(dirs)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), FolderError> {
        disk::replace(&self.path, name, text, mode)
            .map_err(|error| system("write", &self.path.join(name), error))
    }

    fn trusted(&self) -> Result<Vec<Block>, FolderError> {
        let path = self.path.join(CA);
        certificates_in(&read(&path)?).map_err(|error| damaged(&path, &error))
    }

    fn authority(&self) -> Result<Authority, FolderError> {
        authority_in(&self.path)
    }

    /// How long something may be valid, and whether that is less than usual.
    fn validity(
        &self,
        authority: &Authority,
        kind: Kind,
        days: Option<u32>,
        now: SystemTime,
    ) -> Result<(Validity, bool), FolderError> {
        let asked = days.unwrap_or(kind.days());
        let wanted = Validity::days(now, asked)?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = authority.not_after().saturating_sub(seconds);
        if left == 0 {
            return Err(FolderError::Expired(self.path.clone()));
        }
        let validity = wanted.within(authority);
        match (validity == wanted, days) {
            (true, _) => Ok((wanted, false)),
            (false, None) => Ok((validity, true)),
            (false, Some(_)) => Err(FolderError::Outlived { left: left / 86_400, asked }),
        }
    }

    fn ids(&self, counter: &str) -> Result<Ids, FolderError> {
        let path = self.path.join(counter);
        // The cluster's own is there since the folder is: without it ids could come twice.
        let is_there = disk::is_there(&path).map_err(|error| system("read", &path, error))?;
        if !is_there && counter != NEXT_NODE {
            return Ok(Ids::new());
        }
        let why = "this says which id the next node gets, and cannot be read: write the number there that no node \
                   has had, nor one below it";
        Ids::read(&read(&path)?).ok_or_else(|| FolderError::Damaged { path, why: why.to_owned() })
    }

    fn free_dir(&self, kind: Kind, name: &str) -> Result<PathBuf, FolderError> {
        let dir = self.path.join(kind.folder()).join(name);
        match disk::is_there(&dir) {
            Ok(false) => Ok(dir),
            Ok(true) => Err(FolderError::Taken(dir)),
            Err(error) => Err(system("read", &dir, error)),
        }
    }

    fn write_entry(&self, dir: &Path, issued: &Issued) -> Result<(), FolderError> {
        let failed = |error| system("write", dir, error);
        let trusted = read(&self.path.join(CA))?;
        let parent = dir.parent().expect("nodes or clients");
        if !disk::is_there(parent).map_err(failed)? {
            let draft = disk::draft_in(&self.path).map_err(failed)?;
            disk::name_draft(draft, parent).map_err(failed)?;
        }
        let draft = disk::draft_in(parent).map_err(failed)?;
        let write = |name, text: &str, mode| disk::create(draft.path(), name, text, mode);
        write(KEY, issued.key.pem(), PRIVATE).map_err(failed)?;
        write(CERTIFICATE, &issued.certificate, PUBLIC).map_err(failed)?;
        write(CA, &trusted, PUBLIC).map_err(failed)?;
        disk::name_draft(draft, dir).map_err(failed)
    }
}

/// The CA whose key and certificate are in a folder. Nobody but its owner may read the key.
///
/// # Errors
/// They are not there, cannot be read, or others can read the key.
pub fn authority_in(dir: &Path) -> Result<Authority, FolderError> {
    let path = dir.join(CA_KEY);
    let metadata = fs::metadata(&path).map_err(|error| system("read", &path, error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(FolderError::OpenKey(path));
    }
    let key = read(&path)?;
    Authority::from_pem(&read(&dir.join(CA))?, &key).map_err(|error| {
        let at = if error == AuthorityError::BadKey { CA_KEY } else { CA };
        damaged(&dir.join(at), &error)
    })
}

fn entry(kind: Kind, name: &str, dir: PathBuf, issued: Issued, is_shortened: bool) -> Entry {
    Entry { kind, name: name.to_owned(), dir, facts: issued.facts, is_shortened }
}

/// The certificate of an entry, and what it says.
fn certificate_of(dir: &Path) -> Result<(Facts, Vec<u8>), FolderError> {
    let path = dir.join(CERTIFICATE);
    let blocks = certificates_in(&read(&path)?).map_err(|error| damaged(&path, &error))?;
    let Some(block) = blocks.into_iter().next() else {
        return Err(damaged(&path, &BadCertificate::Malformed));
    };
    let facts = facts_of(&block.der).map_err(|error| damaged(&path, &error))?;
    Ok((facts, block.der.to_vec()))
}

fn hosts_of(facts: &Facts, dir: &Path) -> Result<Vec<Host>, FolderError> {
    let names = facts.dns_names.iter().map(|name| name.parse());
    let addresses = facts.ip_addresses.iter().map(|address| Ok(Host::Address(*address)));
    let hosts: Result<Vec<Host>, BadHost> = names.chain(addresses).collect();
    hosts.map_err(|error| damaged(&dir.join(CERTIFICATE), &error))
}

/// Nothing, or an empty folder.
fn must_be_free(path: &Path) -> Result<(), FolderError> {
    if !disk::is_there(path).map_err(|error| system("read", path, error))? {
        return Ok(());
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let is_empty = !is_link && fs::read_dir(path).is_ok_and(|mut files| files.next().is_none());
    if is_empty { Ok(()) } else { Err(FolderError::Taken(path.to_owned())) }
}

pub(super) fn read(path: &Path) -> Result<String, FolderError> {
    disk::read_text(path).map_err(|error| system("read", path, error))
}

pub(super) fn system(what: &'static str, path: &Path, error: io::Error) -> FolderError {
    FolderError::System { what, path: path.to_owned(), error }
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> FolderError {
    FolderError::Damaged { path: path.to_owned(), why: error.to_string() }
}
