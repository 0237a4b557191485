//! Certificates: what they say, a CA that makes them, and the folder that it lives in.

mod authority;
mod disk;
mod folder;
mod host;
mod identity;
mod ids;
mod look;

#[cfg(test)]
mod tests;

pub use authority::{
    Authority, AuthorityError, CA_DAYS, CLIENT_DAYS, Issued, MAX_DAYS, MAX_HOSTS, NODE_DAYS,
    PrivateKey, Request, Validity,
};
pub use folder::{
    BadEntryName, Entry, EntryName, First, Folder, FolderError, Kind, NewNode, Rotation,
};
pub use host::{BadHost, Host};
pub use identity::{BadCertificate, Facts, Subject, facts_of, subject_of};
pub use look::{Item, Seen, look};
