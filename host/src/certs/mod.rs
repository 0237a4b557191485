//! Certificates: what they say, a CA that makes them, and the folder that it lives in.

mod authority;
mod disk;
mod folder;
mod host;
mod identity;
mod ids;
mod look;
mod newcomer;

#[cfg(test)]
mod tests;

pub use authority::{
    Authority, AuthorityError, CA_DAYS, CLIENT_DAYS, Issued, MAX_DAYS, MAX_HOSTS, NODE_DAYS,
    PrivateKey, Request, Validity, is_issued_by, only_certificates,
};
pub use folder::{
    BadEntryName, Entry, EntryName, First, Folder, FolderError, Kind, NewNode, Rotation,
    authority_in,
};
pub use host::{BadHost, Host};
pub use identity::{BadCertificate, Facts, Subject, facts_of, subject_of};
pub use look::{Item, Seen, look};
pub use newcomer::{Newcomer, NewcomerError};
