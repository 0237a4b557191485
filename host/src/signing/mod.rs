//! Signatures of modules: what a publisher signs, with which keys, and the file that it hands over.
//!
//! ```text
//!   secret key ──► signature over (cluster or any, module, label) ──► FILE.wasm.sig ──► upgrade ──► entry
//!   public key ──► trusted keys of the cluster (`machine`) ──────────────────────────► checked there
//! ```
//!
//! The cryptography is ed25519-dalek's; nobody else names it. Whether a signature fits is a pure function
//! of its bytes, the same on every node.

mod file;
mod key;
mod secret;
mod signature;
mod statement;

pub use self::file::{FILE_MAX_BYTES, FileError, SignatureFile, SignedModule};
pub use self::key::{KeyError, KeyId, PublicKey};
pub use self::secret::{SecretError, SecretKey};
pub use self::signature::{ModuleSignature, SIGNATURES_MAX, SignatureError};
pub use self::statement::Statement;
