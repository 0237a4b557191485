//! What is activated was signed by as many keys that the cluster trusted at that index as it asked for
//! there, whoever applies it and whenever; and what was signed so is not refused for that.
//!
//! Keys and verdicts are worked out from the entries alone, with a reading of the signed bytes of their
//! own.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message as _;
use raft_host::machine::Reply;
use raft_host::types::{ClusterId, Index};
use raft_host_proto::stored::{self, entry::Body, key_change::Change};

use super::Invariant;
use crate::sim::observe::{AppliedEntry, Fact, Micros};

/// See the module.
#[derive(Debug, Default)]
pub struct ModulesSigned {
    cluster: Option<ClusterId>,
    /// Up to here the entries are known.
    seen: Index,
    /// Public keys that are trusted now.
    trusted: BTreeSet<Vec<u8>>,
    /// All that ever were.
    known: BTreeSet<Vec<u8>>,
    threshold: u64,
    /// Signatures that activations of a module have come with.
    given: BTreeMap<Vec<u8>, Vec<stored::ModuleSignature>>,
    /// For each activation: how many signatures counted, and how many were asked for.
    verdicts: BTreeMap<Index, Verdict>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    asked: u64,
    /// Of the entry itself.
    own: u64,
    /// With those of earlier activations of the module.
    all: u64,
}

impl ModulesSigned {
    fn applied(&mut self, entry: &AppliedEntry) -> Result<(), String> {
        let index = entry.position.index;
        if index > self.seen {
            self.seen = index;
            let body = stored::Entry::decode(&entry.data[..]).ok().and_then(|entry| entry.body);
            match body {
                Some(Body::SetKeys(set)) => self.keys_are_set(&set, &entry.reply),
                Some(Body::ActivateModule(activate)) => self.judge(index, &activate),
                _ => {}
            }
        }
        let Some(verdict) = self.verdicts.get(&index) else { return Ok(()) };
        let Verdict { asked, own, all } = *verdict;
        match &entry.reply {
            Reply::Activated { hash, .. } if all < asked => Err(format!(
                "{} activated module {} at index {index}, which {all} keys trusted there have \
                 signed, and {asked} are asked for",
                entry.slot,
                hash.short()
            )),
            Reply::NotSigned(why) if own >= asked => Err(format!(
                "{} refused an activation at index {index} that {own} keys trusted there have \
                 signed, and {asked} are asked for: {why}",
                entry.slot
            )),
            _ => Ok(()),
        }
    }

    fn keys_are_set(&mut self, set: &stored::SetKeys, reply: &Reply) {
        if !matches!(reply, Reply::KeysSet(_)) {
            return;
        }
        for change in set.changes.iter().filter_map(|change| change.change.as_ref()) {
            match change {
                // What was revoked is not trusted again, even if a machine took it.
                Change::Add(add) if self.known.insert(add.public_key.to_vec()) => {
                    self.trusted.insert(add.public_key.to_vec());
                }
                Change::Add(_) => {}
                Change::Revoke(key) => {
                    self.trusted.remove(&key[..]);
                }
                Change::Threshold(threshold) => self.threshold = u64::from(*threshold),
            }
        }
    }

    fn judge(&mut self, index: Index, activate: &stored::ActivateModule) {
        let own = self.counted(activate, &activate.signatures);
        let given = self.given.entry(activate.module_hash.to_vec()).or_default();
        given.extend(activate.signatures.iter().cloned());
        let all = self.counted(activate, &self.given[&activate.module_hash[..]]);
        self.verdicts.insert(index, Verdict { asked: self.threshold, own, all });
    }

    /// How many keys that are trusted now have signed it.
    fn counted(
        &self,
        activate: &stored::ActivateModule,
        signatures: &[stored::ModuleSignature],
    ) -> u64 {
        let fits = |signature: &&stored::ModuleSignature| {
            self.trusted.contains(&signature.public_key[..])
                && signature.label == activate.label
                && self.is_here(signature)
                && verifies(activate, signature)
        };
        let keys = signatures.iter().filter(fits).map(|signature| &signature.public_key);
        keys.collect::<BTreeSet<_>>().len() as u64
    }

    fn is_here(&self, signature: &stored::ModuleSignature) -> bool {
        let ours = self.cluster.is_some_and(|cluster| signature.cluster_id[..] == cluster.0);
        signature.cluster_id.is_empty() || ours
    }
}

/// Whether the signature is one of what the documents say is signed.
fn verifies(activate: &stored::ActivateModule, signature: &stored::ModuleSignature) -> bool {
    let mut bytes = b"raft-host module signature 1\n".to_vec();
    match signature.cluster_id.is_empty() {
        true => bytes.extend([0; 17]),
        false => {
            bytes.push(1);
            bytes.extend_from_slice(&signature.cluster_id);
        }
    }
    bytes.extend_from_slice(&activate.module_hash);
    bytes.extend_from_slice(&(signature.label.len() as u16).to_be_bytes());
    bytes.extend_from_slice(signature.label.as_bytes());
    let key: Option<[u8; 32]> = signature.public_key[..].try_into().ok();
    let key = key.and_then(|key| VerifyingKey::from_bytes(&key).ok());
    let signature = Signature::from_slice(&signature.signature).ok();
    let both = key.zip(signature);
    both.is_some_and(|(key, signature)| key.verify_strict(&bytes, &signature).is_ok())
}

impl Invariant for ModulesSigned {
    fn name(&self) -> &'static str {
        "modules_signed"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Formed { cluster } => self.cluster = Some(cluster),
            Fact::Applied(entry) => return self.applied(entry),
            Fact::Membership { position, .. } => self.seen = self.seen.max(position.index),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_host::machine::{KeyChange, Keys};
    use raft_host::signing::{ModuleSignature, SecretKey, Statement};
    use raft_host::types::ModuleHash;

    use super::super::testing::{applied, judge, pos, refused};
    use super::*;

    const OURS: ClusterId = ClusterId([7; 16]);
    const MODULE: ModuleHash = ModuleHash([1; 32]);

    fn entry(slot: usize, index: u64, body: Body, reply: Reply) -> AppliedEntry {
        let data = stored::Entry { body: Some(body), ..Default::default() }.encode_to_vec();
        AppliedEntry { data: data.into(), ..applied(slot, pos(index, 1), "", reply) }
    }

    fn secret(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn keys_set(slot: usize, index: u64, changes: &[KeyChange]) -> AppliedEntry {
        let changes = changes.iter().map(|change| {
            let bytes = |key: raft_host::signing::PublicKey| key.to_bytes().to_vec().into();
            let change = match *change {
                KeyChange::Add(key, name) => Change::Add(stored::PublisherKey {
                    public_key: bytes(key),
                    name: name.to_string(),
                }),
                KeyChange::Revoke(key) => Change::Revoke(bytes(key)),
                KeyChange::Threshold(threshold) => Change::Threshold(threshold),
            };
            stored::KeyChange { change: Some(change) }
        });
        let body = Body::SetKeys(stored::SetKeys { changes: changes.collect() });
        entry(slot, index, body, Reply::KeysSet(Keys::default()))
    }

    fn activation(
        slot: usize,
        index: u64,
        signers: &[(u8, Option<ClusterId>)],
        is_taken: bool,
    ) -> AppliedEntry {
        let signatures = signers.iter().map(|(seed, cluster)| {
            let statement = Statement { cluster: *cluster, module: MODULE, label: "kv" };
            let made = ModuleSignature::make(&secret(*seed), &statement);
            stored::ModuleSignature {
                public_key: made.key.to_bytes().to_vec().into(),
                cluster_id: cluster.map(|id| id.0.to_vec().into()).unwrap_or_default(),
                signature: made.signature.to_vec().into(),
                label: made.label,
            }
        });
        let body = Body::ActivateModule(stored::ActivateModule {
            module_hash: MODULE.0.to_vec().into(),
            label: "kv".to_owned(),
            signatures: signatures.collect(),
            ..Default::default()
        });
        let reply = match is_taken {
            true => Reply::Activated {
                index: Index(index),
                hash: MODULE,
                previous: None,
                rewound: None,
            },
            false => Reply::NotSigned("?".to_owned()),
        };
        entry(slot, index, body, reply)
    }

    fn facts(entries: &[AppliedEntry]) -> Vec<Fact<'_>> {
        let formed = Fact::Formed { cluster: OURS };
        std::iter::once(formed).chain(entries.iter().map(Fact::Applied)).collect()
    }

    fn trusting() -> Vec<AppliedEntry> {
        let name = "ci".parse().expect("a name");
        let [one, two] = [1, 2].map(|seed| KeyChange::Add(secret(seed).public(), name));
        vec![keys_set(0, 2, &[one, two, KeyChange::Threshold(1)])]
    }

    #[test]
    fn what_trusted_keys_have_signed_may_be_active_and_nothing_else() {
        let other = Some(ClusterId([8; 16]));
        for (signers, is_signed) in [
            (&[(1, None)][..], true),
            (&[(2, Some(OURS))], true),
            (&[], false),
            (&[(3, None)], false),
            (&[(1, other)], false),
        ] {
            let all = [trusting(), vec![activation(0, 3, signers, is_signed)]].concat();
            assert_eq!(judge(&mut ModulesSigned::default(), &facts(&all)), Ok(()));
            let all = [trusting(), vec![activation(0, 3, signers, !is_signed)]].concat();
            refused(&mut ModulesSigned::default(), &facts(&all), "asked for");
        }
    }

    #[test]
    fn a_revoked_key_counts_before_its_revocation_only_whoever_applies_it_and_when() {
        let revoked = keys_set(0, 5, &[KeyChange::Revoke(secret(1).public())]);
        let before = activation(0, 4, &[(1, None)], true);
        let all = [trusting(), vec![before, revoked]].concat();
        // Another node comes to index 4 after all that, and does right.
        let later = [all.clone(), vec![activation(1, 4, &[(1, None)], true)]].concat();
        assert_eq!(judge(&mut ModulesSigned::default(), &facts(&later)), Ok(()));
        let after = [all.clone(), vec![activation(1, 6, &[(1, None)], true)]].concat();
        refused(&mut ModulesSigned::default(), &facts(&after), "0 keys trusted");
        // Nor does the signature of then count when the module comes without any.
        let again = [all, vec![activation(0, 6, &[], true)]].concat();
        refused(&mut ModulesSigned::default(), &facts(&again), "0 keys trusted");
    }

    #[test]
    fn going_back_may_rest_on_signatures_of_before() {
        let first = activation(0, 4, &[(1, None)], true);
        let all = [trusting(), vec![first, activation(0, 6, &[], true)]].concat();
        assert_eq!(judge(&mut ModulesSigned::default(), &facts(&all)), Ok(()));
    }
}
