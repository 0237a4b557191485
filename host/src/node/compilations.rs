//! The modules that a group holds, compiled beside its commands: which are at it, and which of them this node
//! cannot compile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fsm::{Limits, SharedLoader};
use crate::node::stop::{StopOnPanic, Stops};
use crate::types::ModuleHash;

/// What failed is not tried again sooner: it may have been for want of memory.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Whether a module's activation would be quick on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// It has been checked and compiled.
    Ready,
    /// This node is at it, or has not got the whole module.
    Underway,
    /// It cannot be compiled here.
    Failed(String),
}

/// See the module.
pub(in crate::node) struct Compilations {
    loader: SharedLoader,
    stops: Stops,
    underway: Mutex<BTreeMap<ModuleHash, State>>,
}

enum State {
    Running,
    Failed { why: String, at: Instant },
}

impl Compilations {
    pub(in crate::node) fn new(loader: SharedLoader, stops: Stops) -> Compilations {
        Compilations { loader, stops, underway: Mutex::default() }
    }

    /// Compiles those of the modules that are not compiled, one after the other, on a thread of its own; what is
    /// being compiled already is left to whoever is at it.
    pub(in crate::node) fn start(
        self: &Arc<Self>,
        modules: impl IntoIterator<Item = (ModuleHash, Bytes)>,
        limits: &Limits,
    ) {
        let mut states = self.lock();
        let mut missing = Vec::new();
        for (hash, bytes) in modules {
            let is_running = matches!(states.get(&hash), Some(State::Running));
            if !is_running && !self.loader.is_prepared(hash, limits) {
                states.insert(hash, State::Running);
                missing.push((hash, bytes));
            }
        }
        drop(states);
        if missing.is_empty() {
            return;
        }
        let (own, limits) = (Arc::clone(self), limits.clone());
        let hashes: Vec<ModuleHash> = missing.iter().map(|(hash, _)| *hash).collect();
        let spawned = std::thread::Builder::new().name("module-compiler".into()).spawn(move || {
            let _guard = StopOnPanic(own.stops.clone(), "module compiler");
            for (hash, bytes) in missing {
                own.compile(hash, &bytes, &limits);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to compile a module ahead of its activation");
            for hash in hashes {
                self.failed(hash, format!("no thread to compile it: {error}"));
            }
        }
    }

    fn compile(&self, hash: ModuleHash, bytes: &Bytes, limits: &Limits) {
        let why = match self.loader.check(bytes, limits) {
            Ok(Ok(())) => {
                self.lock().remove(&hash);
                return;
            }
            Ok(Err(refused)) => refused.to_string(),
            Err(failure) => failure.to_string(),
        };
        // Activation checks again and says what is wrong.
        tracing::warn!(module = %hash.short(), why, "compiling a module ahead of its activation failed");
        self.failed(hash, why);
    }

    fn failed(&self, hash: ModuleHash, why: String) {
        self.lock().insert(hash, State::Failed { why, at: Instant::now() });
    }

    /// How far a module is; one that nobody is at is begun with, if its bytes are here.
    pub(in crate::node) fn of(
        self: &Arc<Self>,
        hash: ModuleHash,
        bytes: Option<&Bytes>,
        limits: &Limits,
    ) -> Preparation {
        if self.loader.is_prepared(hash, limits) {
            return Preparation::Ready;
        }
        if let Some(State::Failed { why, at }) = self.lock().get(&hash)
            && at.elapsed() < RETRY_AFTER
        {
            return Preparation::Failed(why.clone());
        }
        self.start(bytes.map(|bytes| (hash, bytes.clone())), limits);
        Preparation::Underway
    }

    /// Forgets what became of others.
    pub(in crate::node) fn retain(&self, held: &[ModuleHash]) {
        self.lock().retain(|hash, state| matches!(state, State::Running) || held.contains(hash));
        self.loader.retain(held);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModuleHash, State>> {
        // Nothing panics under this lock half way.
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
