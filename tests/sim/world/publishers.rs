//! Publishers of modules: their keys, what operators have the cluster trust, and with what they have
//! modules signed, right or wrong.

use bytes::Bytes;
use raft_host::machine::KeyChange;
use raft_host::node::Upgrade;
use raft_host::signing::{ModuleSignature, SecretKey, Statement};
use raft_host::types::{ActorName, ClusterId, ModuleHash};

use super::World;

/// How many there are.
const PUBLISHERS: u64 = 4;
/// As operators name modules.
const LABEL: &str = "simulated";

impl World {
    fn publisher(&self, number: u64) -> SecretKey {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.plan.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&number.to_le_bytes());
        seed[16] = 1;
        SecretKey::from_seed(seed)
    }

    /// What an operator wants of keys and threshold; it may be impossible.
    pub(super) fn key_changes(&self, choice: u64) -> Vec<KeyChange> {
        let (number, other) = (choice % PUBLISHERS, choice / PUBLISHERS % PUBLISHERS);
        let add = |number: u64| {
            let name: ActorName = format!("publisher-{number}").parse().expect("a name");
            KeyChange::Add(self.publisher(number).public(), name)
        };
        let revoke = KeyChange::Revoke(self.publisher(number).public());
        match choice / 16 % 8 {
            0 | 1 => vec![add(number)],
            2 => vec![add(number), KeyChange::Threshold(1)],
            3 => vec![add(number), add(other), KeyChange::Threshold(2)],
            4 | 5 => vec![revoke],
            6 => vec![revoke, KeyChange::Threshold(1)],
            _ => vec![KeyChange::Threshold((choice / 128 % 3) as u32)],
        }
    }

    /// All publishers have signed it, for this cluster.
    pub(super) fn signed_by_all(&self, module: &Bytes) -> Vec<ModuleSignature> {
        if !self.plan.shape.signs {
            return Vec::new();
        }
        let module = ModuleHash::of(module);
        let statement = Statement { cluster: Some(self.cluster), module, label: LABEL };
        let all = 0..PUBLISHERS;
        all.map(|number| ModuleSignature::make(&self.publisher(number), &statement)).collect()
    }

    /// Signed by some, for this cluster, another or any; or for something else altogether.
    pub(super) fn sign_somehow(&self, upgrade: &mut Upgrade, choice: u64) {
        let hash = ModuleHash::of(&upgrade.module);
        let mut foreign = self.cluster;
        foreign.0[15] ^= 0xff;
        let (cluster, module, label): (Option<ClusterId>, ModuleHash, &str) = match choice / 16 % 8
        {
            0 => (Some(foreign), hash, LABEL),
            1 => (None, hash, "another"),
            2 => (None, ModuleHash([7; 32]), LABEL),
            3 | 4 => (None, hash, LABEL),
            _ => (Some(self.cluster), hash, LABEL),
        };
        let statement = Statement { cluster, module, label };
        // Most often one or two have.
        let signers = (choice % 16) & ((choice / 128) | (1 << (choice % PUBLISHERS)));
        let signers = (0..PUBLISHERS).filter(|number| (signers >> number) & 1 == 1);
        upgrade.signatures = signers
            .map(|number| ModuleSignature::make(&self.publisher(number), &statement))
            .collect();
    }
}
