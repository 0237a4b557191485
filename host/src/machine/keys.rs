//! Whose signatures a module needs before it may be active: keys of publishers, and how many of them.
//!
//! Keys are added and revoked by entries, and what they say is looked at where a module is activated, at
//! its index: so every node comes to the same verdict, also one that replays the log. A key that was
//! revoked stays in the list and never comes back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use raft_host_proto::stored;

use crate::museum::{self, Exhibit};
use crate::signing::{ModuleSignature, PublicKey, SIGNATURES_MAX, SignatureError, Statement};
use crate::types::{ActorName, ClusterId, Index, ModuleHash};

/// Most keys, with those that were revoked.
pub const KEYS_MAX: usize = 64;
/// Most changes of one entry.
pub const KEY_CHANGES_MAX: usize = 128;

/// A key that is or was trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// Whose it is.
    pub name: ActorName,
    /// Index of the entry that added it.
    pub added_at: Index,
    /// Index of the entry that revoked it; `None`: it is trusted.
    pub revoked_at: Option<Index>,
}

/// A change of keys or threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Trusts a key.
    Add(PublicKey, ActorName),
    /// Trusts it no more, for ever.
    Revoke(PublicKey),
    /// Has modules need so many signatures; 0: none.
    Threshold(u32),
}

/// Whose signatures modules need. A clone is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    threshold: u32,
    /// As they were added.
    all: Arc<Vec<TrustedKey>>,
}

impl TrustedKey {
    /// Whether it is trusted.
    pub fn is_trusted(&self) -> bool {
        self.revoked_at.is_none()
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key.id(), self.name)
    }
}

impl KeyChange {
    /// As entries hold it.
    pub(crate) fn to_log(self) -> stored::KeyChange {
        use stored::key_change::Change;
        let bytes = |key: PublicKey| key.to_bytes().to_vec().into();
        let change = match self {
            KeyChange::Add(key, name) => Change::Add(stored::PublisherKey {
                public_key: bytes(key),
                name: name.as_str().to_owned(),
            }),
            KeyChange::Revoke(key) => Change::Revoke(bytes(key)),
            KeyChange::Threshold(threshold) => Change::Threshold(threshold),
        };
        stored::KeyChange { change: Some(change) }
    }

    /// From an entry; `None` for one that this version does not know, or what is wrong.
    pub(super) fn from_log(record: &stored::KeyChange) -> Option<Result<KeyChange, String>> {
        use stored::key_change::Change;
        let key = |bytes: &[u8]| PublicKey::from_bytes(bytes).map_err(|error| error.to_string());
        Some(match record.change.as_ref()? {
            Change::Add(add) => key(&add.public_key).and_then(|key| {
                let name = add.name.parse::<ActorName>().map_err(|error| error.to_string())?;
                Ok(KeyChange::Add(key, name))
            }),
            Change::Revoke(bytes) => key(bytes).map(KeyChange::Revoke),
            Change::Threshold(threshold) => Ok(KeyChange::Threshold(*threshold)),
        })
    }
}

impl Keys {
    /// So many signatures are needed; 0: none.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// All, as they were added, with those that were revoked.
    pub fn all(&self) -> &[TrustedKey] {
        &self.all
    }

    /// How many are trusted.
    pub fn trusted(&self) -> usize {
        self.all.iter().filter(|key| key.is_trusted()).count()
    }

    fn find(&self, key: PublicKey) -> Option<&TrustedKey> {
        self.all.iter().find(|trusted| trusted.key == key)
    }

    /// What they would be after `changes` by the entry at `index`, or why they cannot be that.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn changed(&self, index: Index, changes: &[KeyChange]) -> Result<Keys, String> {
        if changes.is_empty() || changes.len() > KEY_CHANGES_MAX {
            let count = changes.len();
            return Err(format!("1 to {KEY_CHANGES_MAX} changes can be made at once, not {count}"));
        }
        let mut all = self.all.to_vec();
        let mut threshold = self.threshold;
        for change in changes {
            match *change {
                KeyChange::Threshold(wanted) => threshold = wanted,
                KeyChange::Add(key, name) => {
                    match all.iter().find(|old| old.key == key) {
                        Some(old) if old.is_trusted() => {
                            return Err(format!("key {old} is trusted already"));
                        }
                        Some(old) => {
                            return Err(format!(
                                "key {old} was revoked, and a revoked key is never trusted again: \
                                 make another one"
                            ));
                        }
                        None if all.len() >= KEYS_MAX => {
                            return Err(format!(
                                "there are {KEYS_MAX} keys with those that were revoked, as many as \
                                 there may be"
                            ));
                        }
                        None => {}
                    }
                    all.push(TrustedKey { key, name, added_at: index, revoked_at: None });
                }
                KeyChange::Revoke(key) => match all.iter_mut().find(|old| old.key == key) {
                    Some(old) if old.is_trusted() => old.revoked_at = Some(index),
                    Some(old) => return Err(format!("key {old} was revoked before")),
                    None => return Err(format!("there is no key {}", key.id())),
                },
            }
        }
        if threshold as usize > SIGNATURES_MAX {
            return Err(format!(
                "modules would need the signatures of {threshold} keys, and at most {SIGNATURES_MAX} \
                 signatures come with one"
            ));
        }
        let changed = Keys { threshold, all: Arc::new(all) };
        match changed.trusted() {
            trusted if (trusted as u64) < u64::from(threshold) => Err(format!(
                "modules would need the signatures of {threshold} keys, and {trusted} would be \
                 trusted: lower the threshold with the same change, or trust another key first"
            )),
            _ => Ok(changed),
        }
    }

    /// The signatures, one of each key, that count for a module in this cluster under this label.
    /// `signatures` that come first are preferred.
    ///
    /// # Errors
    /// They are fewer than the threshold: what is missing, in a sentence.
    pub(crate) fn accept(
        &self,
        cluster: ClusterId,
        module: ModuleHash,
        label: &str,
        signatures: &[&ModuleSignature],
    ) -> Result<Vec<ModuleSignature>, String> {
        if self.all.is_empty() {
            return Ok(Vec::new());
        }
        let statement = Statement { cluster: Some(cluster), module, label };
        let mut accepted: BTreeMap<PublicKey, ModuleSignature> = BTreeMap::new();
        let mut faults: Vec<String> = Vec::new();
        for signature in signatures {
            // As many as an activation may come with, so that as many can be kept.
            if accepted.contains_key(&signature.key) || accepted.len() == SIGNATURES_MAX {
                continue;
            }
            match self.judge(&statement, signature) {
                Ok(()) => {
                    accepted.insert(signature.key, (*signature).clone());
                }
                Err(fault) if !faults.contains(&fault) => faults.push(fault),
                Err(_) => {}
            }
        }
        if accepted.len() as u64 >= u64::from(self.threshold) {
            return Ok(accepted.into_values().collect());
        }
        let needed = match self.threshold {
            1 => "the signature of a key that it trusts".to_owned(),
            threshold => format!("the signatures of {threshold} keys that it trusts"),
        };
        let short = module.short();
        if signatures.is_empty() {
            return Err(format!(
                "module {short} is not signed, and the cluster asks for {needed}: `raft-host sign` \
                 makes signatures, `raft-host keys list` shows the keys"
            ));
        }
        let faults = match faults.is_empty() {
            true => String::new(),
            false => format!(": {}", faults.join("; ")),
        };
        Err(format!(
            "the cluster asks for {needed}, and module {short} has {} of {}{faults}",
            accepted.len(),
            self.threshold
        ))
    }

    /// Whether a signature counts, or why not.
    fn judge(&self, wanted: &Statement<'_>, signature: &ModuleSignature) -> Result<(), String> {
        let Some(key) = self.find(signature.key) else {
            return Err(format!("key {} is not one of its keys", signature.key.id()));
        };
        if let Some(index) = key.revoked_at
            && !museum::is_on(Exhibit::RevokedKeyAccepted)
        {
            return Err(format!("key {key} was revoked at index {index}"));
        }
        if let (Some(cluster), Some(ours)) = (signature.cluster, wanted.cluster)
            && cluster != ours
        {
            return Err(format!("the signature of {key} is for cluster {cluster}, not for {ours}"));
        }
        if signature.label != wanted.label {
            return Err(format!(
                "the signature of {key} is for the label {:?}, not for {:?}",
                signature.label, wanted.label
            ));
        }
        match signature.fits(wanted.module) {
            true => Ok(()),
            false => Err(format!("the signature of {key} is not one of this module")),
        }
    }

    /// As snapshots hold them; `None`: there never were any.
    pub(super) fn to_record(&self) -> Option<stored::SnapshotKeys> {
        if *self == Keys::default() {
            return None;
        }
        let keys = self.all.iter().map(|key| stored::SnapshotKey {
            public_key: key.key.to_bytes().to_vec().into(),
            name: key.name.as_str().to_owned(),
            added_at: key.added_at.0,
            revoked_at: key.revoked_at.map_or(0, |index| index.0),
        });
        Some(stored::SnapshotKeys { threshold: self.threshold, keys: keys.collect() })
    }

    /// Reads what [`Keys::to_record`] made.
    pub(super) fn from_record(record: Option<&stored::SnapshotKeys>) -> Result<Keys, String> {
        let Some(record) = record else { return Ok(Keys::default()) };
        if record.keys.len() > KEYS_MAX {
            return Err(format!("there are {} of them", record.keys.len()));
        }
        let mut all: Vec<TrustedKey> = Vec::with_capacity(record.keys.len());
        for key in &record.keys {
            let trusted = TrustedKey {
                key: PublicKey::from_bytes(&key.public_key).map_err(|error| error.to_string())?,
                name: key.name.parse().map_err(|error| format!("{error}"))?,
                added_at: Index(key.added_at),
                revoked_at: (key.revoked_at != 0).then_some(Index(key.revoked_at)),
            };
            if all.iter().any(|other| other.key == trusted.key) {
                return Err(format!("key {trusted} is there twice"));
            }
            all.push(trusted);
        }
        let keys = Keys { threshold: record.threshold, all: Arc::new(all) };
        match (keys.trusted() as u64) < u64::from(keys.threshold) {
            true => Err("fewer are trusted than modules need".to_owned()),
            false => Ok(keys),
        }
    }
}

/// As entries and snapshots hold it.
pub(crate) fn signature_to_log(signature: &ModuleSignature) -> stored::ModuleSignature {
    stored::ModuleSignature {
        public_key: signature.key.to_bytes().to_vec().into(),
        cluster_id: signature.cluster.map(|id| id.0.to_vec().into()).unwrap_or_default(),
        signature: signature.signature.to_vec().into(),
        label: signature.label.clone(),
    }
}

/// Reads what [`signature_to_log`] made.
pub(super) fn signatures_from_log(
    records: &[stored::ModuleSignature],
) -> Result<Vec<ModuleSignature>, SignatureError> {
    if records.len() > SIGNATURES_MAX {
        return Err(SignatureError::TooMany(records.len()));
    }
    let read = records.iter().map(|record| {
        let stored::ModuleSignature { public_key, cluster_id, signature, label } = record;
        ModuleSignature::from_parts(public_key, cluster_id, label, signature)
    });
    read.collect()
}
