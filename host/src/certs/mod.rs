//! Certificates: what they say, a CA that makes them, and the folder that it lives in.

mod authority;
mod host;
mod identity;

pub use authority::{
    Authority, AuthorityError, CA_DAYS, CLIENT_DAYS, Issued, MAX_DAYS, MAX_HOSTS, NODE_DAYS,
    PrivateKey, Request, Validity,
};
pub use host::{BadHost, Host};
pub use identity::{BadCertificate, Facts, Subject, facts_of, subject_of};
