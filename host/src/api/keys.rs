//! `Keys` and `SetKeys`: whose signatures modules need, and changing that; and signatures as they come.

use raft_host_proto::v1::{self, Reason};

use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::forward::Forwarder;
use crate::machine::{KEY_CHANGES_MAX, KeyChange, Keys};
use crate::node::MembershipFailure;
use crate::signing::{ModuleSignature, PublicKey, SIGNATURES_MAX, SignatureError};

/// The keys as this node has applied them.
pub(super) fn show(context: &Context) -> Result<v1::KeysResponse, Failure> {
    let view = context.handle.machine().borrow().clone().ok_or(MembershipFailure::NoState)?;
    Ok(v1::KeysResponse {
        threshold: view.info.keys.threshold(),
        keys: keys_to_wire(&view.info.keys),
        applied_index: view.info.applied.0,
    })
}

/// Changes keys, here or at the leader.
pub(super) async fn set(
    context: &Context,
    caller: &Caller,
    request: v1::SetKeysRequest,
) -> Result<v1::SetKeysResponse, Failure> {
    context.check_group(&request.group)?;
    let changes = &changes_from_wire(&request.changes)?;
    let request = &request;
    let here = || async {
        let set = context.handle.set_keys(changes.clone()).await?;
        Ok(v1::SetKeysResponse {
            index: set.index.0,
            threshold: set.keys.threshold(),
            keys: keys_to_wire(&set.keys),
        })
    };
    let there = context.forwarder.to_leader(
        caller,
        request,
        Forwarder::admin,
        |mut admin, request| async move { admin.set_keys(request).await },
    );
    context.on_leader(caller, context.election_patience(), here, there).await
}

fn keys_to_wire(keys: &Keys) -> Vec<v1::TrustedKey> {
    let wire = keys.all().iter().map(|key| v1::TrustedKey {
        public_key: bytes(key.key.to_bytes()),
        name: key.name.as_str().to_owned(),
        added_at: key.added_at.0,
        revoked_at: key.revoked_at.map(|index| index.0),
    });
    wire.collect()
}

fn changes_from_wire(changes: &[v1::KeyChange]) -> Result<Vec<KeyChange>, Failure> {
    use v1::key_change::Change;
    let bad = |words: String| Failure::none(Reason::InvalidRequest, words);
    if changes.is_empty() || changes.len() > KEY_CHANGES_MAX {
        let (count, max) = (changes.len() as u64, KEY_CHANGES_MAX as u64);
        let failure = bad(format!("1 to {max} changes of keys can be made at once, not {count}"));
        return Err(failure.exceeding_if("key_changes_max", count, max));
    }
    let read = changes.iter().map(|change| {
        let key = |bytes: &[u8]| PublicKey::from_bytes(bytes).map_err(|it| bad(it.to_string()));
        match &change.change {
            Some(Change::Add(add)) => {
                let name = add.name.parse().map_err(|error| bad(format!("{error}")))?;
                Ok(KeyChange::Add(key(&add.public_key)?, name))
            }
            Some(Change::Revoke(bytes)) => Ok(KeyChange::Revoke(key(bytes)?)),
            Some(Change::Threshold(threshold)) => Ok(KeyChange::Threshold(*threshold)),
            None => Err(bad("a change of keys must say what it changes".to_owned())),
        }
    });
    read.collect()
}

/// The signatures that came with a module. Whether they fit is not looked at.
pub(super) fn signatures_from_wire(
    signatures: &[v1::ModuleSignature],
) -> Result<Vec<ModuleSignature>, Failure> {
    let (count, max) = (signatures.len(), SIGNATURES_MAX);
    if count > max {
        let words = SignatureError::TooMany(count).to_string();
        let failure = Failure::none(Reason::InvalidRequest, words);
        return Err(failure.exceeding_if("signatures_max", count as u64, max as u64));
    }
    let read = signatures.iter().map(|wire| {
        let v1::ModuleSignature { public_key, cluster_id, signature, label } = wire;
        ModuleSignature::from_parts(public_key, cluster_id, label, signature)
    });
    read.collect::<Result<_, _>>().map_err(|error| {
        Failure::none(Reason::InvalidRequest, format!("a signature of the module: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SecretKey;

    #[test]
    fn changes_and_signatures_that_are_none_are_refused_before_anything_happens() {
        use v1::key_change::Change;
        let refused = |change: Option<Change>| {
            let failure = changes_from_wire(&[v1::KeyChange { change }]).expect_err("nonsense");
            assert_eq!(failure.reason(), Reason::InvalidRequest);
            failure.message().to_owned()
        };
        let key = bytes(SecretKey::from_seed([1; 32]).public().to_bytes());
        let add = |public_key, name: &str| v1::PublisherKey { public_key, name: name.to_owned() };
        assert!(refused(None).contains("must say"));
        assert!(refused(Some(Change::Revoke(bytes([1; 31])))).contains("32 bytes"));
        assert!(refused(Some(Change::Add(add(key.clone(), "two words")))).contains("no name"));
        assert!(refused(Some(Change::Add(add(bytes([0; 32]), "a")))).contains("cannot be trusted"));
        assert!(changes_from_wire(&[]).is_err());
        let many = vec![v1::KeyChange { change: Some(Change::Threshold(0)) }; 129];
        assert!(changes_from_wire(&many).is_err());
        let good = v1::KeyChange { change: Some(Change::Add(add(key.clone(), "a"))) };
        assert!(changes_from_wire(&[good]).is_ok());

        let signature = v1::ModuleSignature {
            public_key: key,
            signature: bytes([0; 64]),
            ..Default::default()
        };
        assert_eq!(signatures_from_wire(&vec![signature.clone(); 16]).map(|all| all.len()), Ok(16));
        assert!(signatures_from_wire(&vec![signature.clone(); 17]).is_err());
        let short = v1::ModuleSignature { signature: bytes([0; 63]), ..signature };
        assert!(signatures_from_wire(&[short]).is_err());
    }
}
