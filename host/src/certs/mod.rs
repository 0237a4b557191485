//! Certificates: what they say.

mod identity;

pub use identity::{BadCertificate, Facts, Subject, facts_of, subject_of};
