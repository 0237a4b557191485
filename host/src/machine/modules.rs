//! Wasm modules that arrive in the log, by content.
//!
//! ```text
//!   chunk, chunk, … ──► upload ──(hash verified)──► stored module ──(activation)──► active
//! ```
//!
//! What is kept, the same on every replica: the active module, the one before it (to go back
//! to), the few latest complete ones that never were active and as many portable states, and the few latest incomplete
//! uploads, for as long as they advance once an hour. Everything else is dropped at the entry that
//! makes it superfluous.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::incumbent::Incumbent;
use super::reply::{ActivationInfo, ModuleInfo};
use crate::fsm::Limits;
use crate::museum::{self, Exhibit};
use crate::signing::ModuleSignature;
use crate::types::{Index, ModuleHash};

/// Most bytes of one chunk.
pub const CHUNK_MAX_BYTES: usize = 1 << 20;

/// Incomplete uploads kept; a further one displaces the one that advanced longest ago.
pub(super) const UPLOADS_MAX: usize = 2;
/// An upload that did not advance for so long by the log's clock, in milliseconds, is dropped.
/// Whoever was at it is gone; a retry starts again.
pub(super) const UPLOAD_TTL_MS: u64 = 3_600_000;
/// Complete modules kept that never were active, and complete portable states: so many of each, for neither is of
/// use when the other pushes it out.
pub(super) const STAGED_MAX: usize = 2;
/// Activations remembered.
pub(super) const HISTORY_MAX: usize = 1024;
/// Longer labels are cut.
pub const LABEL_MAX_BYTES: usize = 256;

/// A complete module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredModule {
    pub(super) bytes: Bytes,
    /// As of the last activation.
    pub(super) label: String,
    /// Index of the entry with the last chunk.
    pub(super) completed_at: Index,
    pub(super) ever_activated: bool,
    /// Those that counted when it was last activated with any.
    pub(super) signatures: Vec<ModuleSignature>,
    /// It is no module but a portable state for one.
    pub(super) is_state: bool,
}

/// A module of which chunks are missing.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) total: u64,
    /// Entry with the last chunk.
    pub(super) last_chunk: At,
    /// It is no module but a portable state for one.
    pub(super) is_state: bool,
    /// The module's bytes from its start; shared with a snapshot until the next chunk.
    received: Arc<Vec<u8>>,
    /// Over `received` as it came, so that a digest point does not hash all of it again.
    hasher: Sha256,
}

/// An entry's index, and the log's clock there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) index: Index,
    /// Milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
}

impl Upload {
    /// One that got this far.
    pub(super) fn resume(total: u64, last_chunk: At, is_state: bool, received: Vec<u8>) -> Upload {
        let hasher = Sha256::new_with_prefix(&received);
        Upload { total, last_chunk, is_state, received: Arc::new(received), hasher }
    }

    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// SHA-256 of what was received.
    pub(super) fn hash(&self) -> ModuleHash {
        ModuleHash(self.hasher.clone().finalize().into())
    }

    fn extend(&mut self, at: At, fresh: &[u8]) {
        self.last_chunk = at;
        Arc::make_mut(&mut self.received).extend_from_slice(fresh);
        self.hasher.update(fresh);
    }
}

/// All modules. A clone shares their bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    pub(super) stored: BTreeMap<ModuleHash, StoredModule>,
    pub(super) uploads: BTreeMap<ModuleHash, Upload>,
    /// Oldest first; the last one is the active module.
    pub(super) history: Arc<Vec<ActivationInfo>>,
    /// The module that was active before the active one.
    pub(super) previous: Option<ModuleHash>,
    /// The module that is to take over from a fork. What that is is part of the fork.
    pub(super) taking_over: Option<ModuleHash>,
}

/// One part of a module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) hash: ModuleHash,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
    /// Of a portable state.
    pub(super) is_state: bool,
}

/// Most bytes of what may be uploaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) module: u64,
    pub(super) state: u64,
}

impl Sizes {
    pub(super) fn of(limits: &Limits) -> Sizes {
        Sizes { module: limits.module_max_bytes, state: limits.snapshot_max_bytes }
    }

    pub(super) fn max(self, is_state: bool) -> u64 {
        match is_state {
            true => self.state,
            false => self.module,
        }
    }
}

impl Modules {
    pub(super) fn active(&self) -> Option<&ActivationInfo> {
        self.history.last()
    }

    pub(super) fn incumbent(&self) -> Option<Incumbent> {
        let active = self.active()?;
        Some(Incumbent { hash: active.hash, activated_at: active.index })
    }

    pub(super) fn bytes(&self, hash: ModuleHash) -> Option<Bytes> {
        self.stored.get(&hash).filter(|it| !it.is_state).map(|module| module.bytes.clone())
    }

    pub(super) fn state_bytes(&self, hash: ModuleHash) -> Option<Bytes> {
        self.stored.get(&hash).filter(|it| it.is_state).map(|state| state.bytes.clone())
    }

    pub(super) fn infos(&self) -> Vec<ModuleInfo> {
        let active = self.active().map(|activation| activation.hash);
        self.stored
            .iter()
            .map(|(hash, module)| ModuleInfo {
                hash: *hash,
                size_bytes: module.bytes.len() as u64,
                label: module.label.clone(),
                active: active == Some(*hash),
                signatures: module.signatures.clone(),
                is_state: module.is_state,
            })
            .collect()
    }

    /// Takes a chunk and says how many bytes of the module are there now, or why not.
    ///
    /// A chunk may repeat bytes that are there already. A chunk at offset 0 with different
    /// bytes or another size starts the upload again.
    pub(super) fn store_chunk(
        &mut self,
        at: At,
        chunk: Chunk<'_>,
        sizes: Sizes,
    ) -> Result<u64, String> {
        check_bounds(chunk, sizes.max(chunk.is_state))?;
        if let Some(stored) = self.stored.get(&chunk.hash) {
            return match stored.is_state == chunk.is_state {
                true => Ok(stored.bytes.len() as u64),
                false => Err("these bytes are held already, as the other one of a module and a \
                              portable state"
                    .to_owned()),
            };
        }
        let fits = match self.uploads.get(&chunk.hash) {
            Some(upload) => check_continues(upload, chunk),
            None => Err("no upload of this module is under way: start at offset 0".to_owned()),
        };
        match fits {
            Ok(()) => {}
            Err(_) if chunk.offset == 0 => self.start_upload(at, chunk),
            Err(reason) => return Err(reason),
        }
        let upload = self.uploads.get_mut(&chunk.hash).expect("exists or was just started");
        let received = upload.received.len() as u64;
        let fresh = match chunk.offset + chunk.data.len() as u64 > received {
            _ if museum::is_on(Exhibit::StagedPartTwice) => 0,
            true => usize::try_from(received - chunk.offset).expect("within the chunk"),
            false => chunk.data.len(),
        };
        upload.extend(at, &chunk.data[fresh..]);
        if (upload.received.len() as u64) < chunk.total {
            return Ok(upload.received.len() as u64);
        }
        self.complete_upload(at.index, chunk.hash)
    }

    /// Records that a module, which must be stored, is active, and which signatures counted for it.
    pub(super) fn activate(&mut self, activation: ActivationInfo, signed: Vec<ModuleSignature>) {
        let module = self.stored.get_mut(&activation.hash).expect("the caller ran it");
        module.ever_activated = true;
        module.label.clone_from(&activation.label);
        if !signed.is_empty() {
            module.signatures = signed;
        }
        let before = self.active().map(|activation| activation.hash);
        // If it is renewed, the one before stays that.
        if before != Some(activation.hash) {
            self.previous = before;
        }
        let history = Arc::make_mut(&mut self.history);
        history.push(activation);
        if history.len() > HISTORY_MAX {
            history.remove(0);
        }
        self.drop_superfluous();
    }

    /// Makes these the sizes of the largest. Says why not if a module that runs or ran is
    /// larger. What never ran is dropped if it is larger, for it could not be activated any more.
    pub(super) fn limit_size(&mut self, sizes: Sizes) -> Result<(), String> {
        let max = sizes.module;
        let too_large = |it: &StoredModule| it.bytes.len() as u64 > sizes.max(it.is_state);
        let mut ran = self.stored.iter().filter(|(_, module)| module.ever_activated);
        if let Some((hash, module)) = ran.find(|(_, module)| too_large(module)) {
            let role = match self.active().is_some_and(|active| active.hash == *hash) {
                true => "active",
                false => "previously active",
            };
            return Err(format!(
                "the {role} module {} has {} bytes, more than a module_max_bytes of {max}",
                hash.short(),
                module.bytes.len()
            ));
        }
        self.stored.retain(|_, module| !too_large(module));
        self.uploads.retain(|_, upload| upload.total <= sizes.max(upload.is_state));
        Ok(())
    }

    /// Drops the uploads that have stood still for too long.
    pub(super) fn expire_uploads(&mut self, now_ms: u64) {
        self.uploads
            .retain(|_, upload| now_ms < upload.last_chunk.time_ms.saturating_add(UPLOAD_TTL_MS));
    }

    fn start_upload(&mut self, at: At, chunk: Chunk<'_>) {
        self.uploads.remove(&chunk.hash);
        while self.uploads.len() >= UPLOADS_MAX {
            let stalest = self.uploads.iter().min_by_key(|(_, upload)| upload.last_chunk.index);
            let stalest = *stalest.expect("not empty").0;
            self.uploads.remove(&stalest);
        }
        let upload = Upload::resume(chunk.total, at, chunk.is_state, Vec::new());
        self.uploads.insert(chunk.hash, upload);
    }

    fn complete_upload(&mut self, index: Index, hash: ModuleHash) -> Result<u64, String> {
        let upload = self.uploads.remove(&hash).expect("the caller holds it");
        // The bytes themselves, once: memory may have failed since they came.
        let found = ModuleHash::of(&upload.received);
        if found != hash && !museum::is_on(Exhibit::StagedPartTwice) {
            return Err(format!(
                "the bytes of the module have hash {found}, not {hash}; the upload is dropped: \
                 start it again"
            ));
        }
        let total = upload.total;
        let bytes = Bytes::from(Arc::unwrap_or_clone(upload.received));
        let module = StoredModule {
            bytes,
            label: String::new(),
            completed_at: index,
            ever_activated: false,
            signatures: Vec::new(),
            is_state: upload.is_state,
        };
        self.stored.insert(hash, module);
        self.drop_superfluous();
        Ok(total)
    }

    /// Forgets a portable state that a module has begun with.
    pub(super) fn drop_state(&mut self, hash: ModuleHash) {
        self.stored.retain(|held, it| *held != hash || !it.is_state);
    }

    /// Says which module is to take over from a fork, which is held until it does.
    pub(super) fn set_taking_over(&mut self, module: Option<ModuleHash>) {
        self.taking_over = module;
        self.drop_superfluous();
    }

    fn drop_superfluous(&mut self) {
        let active = self.active().map(|activation| activation.hash);
        let (modules, states) = (self.latest_staged(false), self.latest_staged(true));
        let (previous, taking_over) = (self.previous, self.taking_over);
        self.stored.retain(|hash, _| {
            [active, previous, taking_over].contains(&Some(*hash))
                || modules.contains(hash)
                || states.contains(hash)
        });
    }

    /// Those that never were active, modules or portable states, as many as are kept.
    fn latest_staged(&self, is_state: bool) -> Vec<ModuleHash> {
        let never = |it: &StoredModule| !it.ever_activated && it.is_state == is_state;
        let staged = self.stored.iter().filter(|(_, module)| never(module));
        let mut staged: Vec<_> =
            staged.map(|(hash, module)| (module.completed_at, *hash)).collect();
        staged.sort_unstable();
        staged.iter().rev().take(STAGED_MAX).map(|(_, hash)| *hash).collect()
    }
}

/// Cuts a label to its bound, between characters. Nothing in it begins a line of its own where
/// it is shown.
pub(crate) fn bounded_label(label: &str) -> String {
    let mut end = label.len().min(LABEL_MAX_BYTES);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn check_bounds(chunk: Chunk<'_>, max: u64) -> Result<(), String> {
    let length = chunk.data.len() as u64;
    if chunk.total == 0 || chunk.total > max {
        let what = if chunk.is_state { "portable state" } else { "module" };
        return Err(format!("a {what} must have between 1 and {max} bytes, not {}", chunk.total));
    }
    if chunk.data.is_empty() || chunk.data.len() > CHUNK_MAX_BYTES {
        return Err(format!(
            "a chunk must have between 1 and {CHUNK_MAX_BYTES} bytes, not {length}"
        ));
    }
    match chunk.offset.checked_add(length) {
        Some(end) if end <= chunk.total => Ok(()),
        _ => Err(format!(
            "a chunk of {length} bytes at offset {} lies outside of a module of {} bytes",
            chunk.offset, chunk.total
        )),
    }
}

fn check_continues(upload: &Upload, chunk: Chunk<'_>) -> Result<(), String> {
    if upload.is_state != chunk.is_state {
        return Err("the upload was begun as that of a module, or not so; this part says \
                    otherwise"
            .to_owned());
    }
    if upload.total != chunk.total {
        return Err(format!(
            "the module was announced with {} bytes, this chunk says {}",
            upload.total, chunk.total
        ));
    }
    let known = usize::try_from(chunk.offset).ok().and_then(|from| upload.received.get(from..));
    let Some(known) = known else {
        return Err(format!(
            "expected the chunk at offset {}, found the one at {}",
            upload.received.len(),
            chunk.offset
        ));
    };
    let shared = known.len().min(chunk.data.len());
    if known[..shared] == chunk.data[..shared] {
        Ok(())
    } else {
        Err("the chunk differs from the bytes that are there: start again at offset 0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Actor, ActorName};

    fn activation(index: u64, hash: ModuleHash, label: String) -> ActivationInfo {
        let (index, time_ms) = (Index(index), 0);
        let (actor, actor_name) = (Actor::Nobody, ActorName::NONE);
        let signers = Vec::new();
        ActivationInfo { index, hash, time_ms, label, signers, actor, actor_name }
    }

    const MAX: Sizes = Sizes { module: 1000, state: 2000 };

    fn at(index: u64) -> At {
        At { index: Index(index), time_ms: index * 1_000 }
    }

    fn chunk(module: &[u8], from: usize, to: usize) -> Chunk<'_> {
        Chunk {
            hash: ModuleHash::of(module),
            total: module.len() as u64,
            offset: from as u64,
            data: &module[from..to],
            is_state: false,
        }
    }

    fn store(modules: &mut Modules, index: u64, module: &[u8]) {
        let received = modules.store_chunk(at(index), chunk(module, 0, module.len()), MAX);
        assert_eq!(received, Ok(module.len() as u64));
    }

    #[test]
    fn chunks_in_order_make_a_module() {
        let mut modules = Modules::default();
        assert_eq!(modules.store_chunk(at(1), chunk(b"abcdef", 0, 2), MAX), Ok(2));
        assert_eq!(modules.store_chunk(at(2), chunk(b"abcdef", 2, 5), MAX), Ok(5));
        assert!(modules.stored.is_empty());
        assert_eq!(modules.store_chunk(at(3), chunk(b"abcdef", 5, 6), MAX), Ok(6));
        assert_eq!(modules.bytes(ModuleHash::of(b"abcdef")), Some(Bytes::from_static(b"abcdef")));
        assert!(modules.uploads.is_empty());
        assert_eq!(modules.store_chunk(at(4), chunk(b"abcdef", 0, 2), MAX), Ok(6));
    }

    #[test]
    fn a_repeated_or_overlapping_chunk_is_harmless_and_a_gap_is_refused() {
        let mut modules = Modules::default();
        assert!(modules.store_chunk(at(1), chunk(b"abcdef", 2, 4), MAX).is_err());
        assert_eq!(modules.store_chunk(at(2), chunk(b"abcdef", 0, 3), MAX), Ok(3));
        assert_eq!(modules.store_chunk(at(3), chunk(b"abcdef", 0, 2), MAX), Ok(3));
        assert!(modules.store_chunk(at(4), chunk(b"abcdef", 4, 6), MAX).is_err());
        assert_eq!(modules.store_chunk(at(5), chunk(b"abcdef", 2, 6), MAX), Ok(6));
    }

    #[test]
    fn wrong_bytes_are_found_by_the_hash_and_the_upload_can_start_again() {
        let mut modules = Modules::default();
        let right = chunk(b"abcdef", 0, 6);
        let wrong = Chunk { data: b"abc", ..right };
        let worse = Chunk { data: b"xxx", offset: 3, ..right };
        assert_eq!(modules.store_chunk(at(1), wrong, MAX), Ok(3));
        let refusal = modules.store_chunk(at(2), worse, MAX).unwrap_err();
        assert!(refusal.contains(&right.hash.to_string()), "{refusal}");
        assert!(modules.uploads.is_empty());
        assert_eq!(modules.store_chunk(at(3), right, MAX), Ok(6));

        let mut modules = Modules::default();
        let wrong = Chunk { data: b"abx", ..right };
        assert_eq!(modules.store_chunk(at(1), wrong, MAX), Ok(3));
        assert_eq!(modules.store_chunk(at(2), right, MAX), Ok(6));
    }

    #[test]
    fn sizes_and_offsets_out_of_bounds_are_refused() {
        let mut modules = Modules::default();
        let good = chunk(b"abcdef", 0, 6);
        let long = vec![0; CHUNK_MAX_BYTES + 1];
        for bad in [
            Chunk { total: 0, ..good },
            Chunk { total: MAX.module + 1, ..good },
            Chunk { data: b"", ..good },
            Chunk { offset: 1, ..good },
            Chunk { offset: u64::MAX, ..good },
            Chunk { data: &long, ..good },
        ] {
            assert!(modules.store_chunk(at(1), bad, MAX).is_err(), "{bad:?}");
            assert!(modules.uploads.is_empty());
        }
    }

    #[test]
    fn a_third_upload_displaces_the_one_that_advanced_longest_ago() {
        let mut modules = Modules::default();
        for (index, module) in [b"aa", b"bb"].iter().enumerate() {
            modules.store_chunk(at(index as u64), chunk(*module, 0, 1), MAX).unwrap();
        }
        modules.store_chunk(at(5), chunk(b"aa", 0, 1), MAX).unwrap();
        modules.store_chunk(at(6), chunk(b"cc", 0, 1), MAX).unwrap();
        assert!(modules.store_chunk(at(7), chunk(b"bb", 1, 2), MAX).is_err());
        assert_eq!(modules.store_chunk(at(8), chunk(b"aa", 1, 2), MAX), Ok(2));
        assert_eq!(modules.uploads.len(), 1);
    }

    #[test]
    fn an_upload_that_stands_still_expires_by_the_logs_clock() {
        let mut modules = Modules::default();
        modules.store_chunk(at(1), chunk(b"abcdef", 0, 2), MAX).unwrap();
        modules.store_chunk(at(2), chunk(b"ghijkl", 0, 2), MAX).unwrap();
        modules.store_chunk(at(3), chunk(b"abcdef", 0, 2), MAX).unwrap();
        modules.expire_uploads(2_000 + UPLOAD_TTL_MS - 1);
        assert_eq!(modules.uploads.len(), 2);
        modules.expire_uploads(2_000 + UPLOAD_TTL_MS);
        assert!(modules.store_chunk(at(4), chunk(b"ghijkl", 2, 6), MAX).is_err());
        assert_eq!(modules.store_chunk(at(5), chunk(b"abcdef", 2, 6), MAX), Ok(6));
        modules.store_chunk(at(6), chunk(b"ghijkl", 0, 2), MAX).unwrap();
        modules.expire_uploads(u64::MAX);
        assert!(modules.uploads.is_empty());
    }

    #[test]
    fn the_running_hash_of_an_upload_is_that_of_its_bytes() {
        let mut modules = Modules::default();
        for (index, (from, to)) in [(0, 2), (1, 4), (0, 1), (4, 5)].into_iter().enumerate() {
            modules.store_chunk(at(index as u64), chunk(b"abcdef", from, to), MAX).unwrap();
        }
        let upload = &modules.uploads[&ModuleHash::of(b"abcdef")];
        assert_eq!(upload.hash(), ModuleHash::of(b"abcde"));
        let resumed = Upload::resume(6, at(9), false, upload.received().to_vec());
        assert_eq!(resumed.hash(), upload.hash());
    }

    #[test]
    fn the_active_the_previous_and_the_latest_staged_modules_are_kept() {
        let mut modules = Modules::default();
        let kept = |modules: &Modules| -> Vec<Bytes> {
            let mut kept: Vec<Bytes> = modules.stored.values().map(|m| m.bytes.clone()).collect();
            kept.sort();
            kept
        };
        for (index, module) in [b"1", b"2", b"3"].iter().enumerate() {
            store(&mut modules, index as u64, *module);
        }
        assert_eq!(kept(&modules), ["2", "3"]);
        for (index, module) in [b"2", b"3"].iter().enumerate() {
            modules
                .activate(activation(10, ModuleHash::of(*module), index.to_string()), Vec::new());
        }
        store(&mut modules, 11, b"4");
        assert_eq!(kept(&modules), ["2", "3", "4"]);
        modules.activate(activation(12, ModuleHash::of(b"4"), String::new()), Vec::new());
        assert_eq!(kept(&modules), ["3", "4"]);
        assert_eq!(modules.previous, Some(ModuleHash::of(b"3")));
        modules.activate(activation(13, ModuleHash::of(b"3"), String::new()), Vec::new());
        assert_eq!(kept(&modules), ["3", "4"]);
        assert_eq!(modules.previous, Some(ModuleHash::of(b"4")));
        // Modules and states do not push each other out.
        for (index, bytes) in [(20, b"5"), (21, b"6")] {
            store(&mut modules, index, bytes);
        }
        for (index, bytes) in [(22, b"a"), (23, b"b"), (24, b"c")] {
            let state = Chunk { is_state: true, ..chunk(bytes, 0, 1) };
            assert_eq!(modules.store_chunk(at(index), state, MAX), Ok(1));
        }
        assert_eq!(kept(&modules), ["3", "4", "5", "6", "b", "c"]);
        store(&mut modules, 25, b"7");
        assert_eq!(kept(&modules), ["3", "4", "6", "7", "b", "c"]);
    }

    #[test]
    fn the_history_and_labels_are_bounded() {
        let mut modules = Modules::default();
        store(&mut modules, 1, b"1");
        for index in 0..HISTORY_MAX as u64 + 5 {
            modules.activate(activation(index, ModuleHash::of(b"1"), String::new()), Vec::new());
        }
        assert_eq!(modules.history.len(), HISTORY_MAX);
        assert_eq!(modules.history[0].index, Index(5));
        assert_eq!(bounded_label(&"é".repeat(200)), "é".repeat(128));
        assert_eq!(bounded_label(&format!("x{}", "é".repeat(200))).len(), 255);
        assert_eq!(bounded_label("kv.wasm"), "kv.wasm");
        assert_eq!(bounded_label("kv\nlevel=ERROR\u{1b}[2J"), "kv level=ERROR [2J");
    }
}
