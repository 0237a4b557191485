//! From module bytes to running instances: check, rewrite, compile (or find compiled),
//! instantiate.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::{Engine, Linker, Module};

use super::cache::CompiledCache;
use super::check::{CheckError, ModuleReport, check_limits};
use super::compiler::{self, Compiler, CompilerConfig, Whose};
use super::guest::Compiled;
use super::instance::{Host, WasmFsm};
use super::rewrite::{Rewritten, rewrite};
use super::tracking::Tracking;
use super::workers::Workers;
use super::{abi, engine, missing_pages, unchecked, wasi};
use crate::fsm::{
    Context, EngineProfile, Fsm, FsmLoader, HostFailure, Limits, ModuleRefused, SharedLoader,
};
use crate::types::ModuleHash;

/// Compiled modules kept in memory: the active ones of all groups and their successors.
const KEPT_MODULES_MAX: usize = 8;
/// Engines kept for further modules: stack sizes change rarely.
const ENGINES_MAX: usize = 4;

/// How a host finds out what a guest has written since the last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBackend {
    /// The kernel tracks written pages (Linux 6.7 and later, where userfaultfd is allowed).
    Userfaultfd,
    /// All of memory is compared with its copy.
    PlainCopy,
}

impl MemoryBackend {
    /// In plain words.
    pub fn name(self) -> &'static str {
        match self {
            MemoryBackend::Userfaultfd => "userfaultfd",
            MemoryBackend::PlainCopy => "plain copy",
        }
    }
}

/// Loads wasm modules. One per node, shared by its groups.
#[derive(Clone)]
pub struct WasmLoader {
    engine: EngineProfile,
    host: Host,
    cache: Option<Arc<CompiledCache>>,
    modules: CompiledModules,
}

/// CompiledModules compiled in this process, and what they run on. Loaders that have the same compile no
/// module twice, not even if two begin at the same moment.
#[derive(Clone, Default)]
pub struct CompiledModules(Arc<Kept>);

#[derive(Default)]
struct Kept {
    /// By stack size, which is the one limit that an engine has to know.
    engines: Mutex<BTreeMap<u64, Arc<Profile>>>,
    /// The most recently used last.
    compiled: Mutex<VecDeque<(Key, Arc<Compiled>)>>,
    /// Those that are being compiled. Whoever needs the same one waits for its lock, and finds it
    /// done.
    flights: Mutex<BTreeMap<Key, Arc<Mutex<()>>>>,
    compiler: Compiler,
    /// New modules are looked at one after the other: each may take what `compiler` allows.
    door: Mutex<()>,
}

type Key = (ModuleHash, u64);

/// Hashes all of a module: once for each use.
fn key_of(module: &[u8], limits: &Limits) -> Key {
    (ModuleHash::of(module), limits.stack_max_bytes)
}

/// Why a module is not taken.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// One of the checks.
    Check(CheckError),
    /// The compiler, and what it says.
    Compile(String),
}

/// An engine and what all modules on it share.
struct Profile {
    engine: Engine,
    hash: [u8; 32],
    linker: Linker<abi::CallState>,
}

impl WasmLoader {
    /// A loader that keeps compiled code in `cache_dir`, if given.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, or this machine cannot run guests.
    pub fn new(cache_dir: Option<PathBuf>) -> Result<WasmLoader, HostFailure> {
        WasmLoader::sharing(cache_dir, CompiledModules::default())
    }

    /// The same with modules that others have compiled, and for them.
    ///
    /// # Errors
    ///
    /// As for [`WasmLoader::new`].
    pub fn sharing(
        cache_dir: Option<PathBuf>,
        modules: CompiledModules,
    ) -> Result<WasmLoader, HostFailure> {
        let cache = match cache_dir {
            None => None,
            Some(directory) => {
                let cache = CompiledCache::open(directory.clone()).map_err(|error| {
                    HostFailure(format!(
                        "cannot create the directory for compiled modules {}: {error}",
                        directory.display()
                    ))
                })?;
                Some(Arc::new(cache))
            }
        };
        let tracking = match Tracking::probe() {
            Ok(tracking) => Some(tracking),
            Err(error) => {
                tracing::info!(%error, "this kernel does not track what guests write");
                None
            }
        };
        missing_pages::tell();
        let workers = Arc::new(Workers::of_this_machine());
        let host = Host { tracking, workers, rare_checkpoints: false };
        // A machine that cannot run guests says so now.
        modules.profile(Limits::default().stack_max_bytes)?;
        Ok(WasmLoader { engine: engine::profile(), host, cache, modules })
    }

    /// The same with a given way of finding out what was written, instead of the best one.
    ///
    /// # Errors
    ///
    /// This machine does not have it.
    pub fn with_memory_backend(
        mut self,
        backend: MemoryBackend,
    ) -> Result<WasmLoader, HostFailure> {
        self.host.tracking = match backend {
            MemoryBackend::PlainCopy => None,
            MemoryBackend::Userfaultfd => Some(Tracking::probe().map_err(|error| {
                HostFailure(format!("this kernel does not track what guests write: {error}"))
            })?),
        };
        Ok(self)
    }

    /// The same with so many threads for queries and images, instead of one for each core.
    /// With one, everything happens on the threads of the callers.
    ///
    /// # Panics
    ///
    /// If `threads` is zero.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> WasmLoader {
        self.host.workers = Arc::new(Workers::new(threads));
        self
    }

    /// The same without regular checkpoints, so that their cost can be measured: a trap may then
    /// repeat very much.
    #[must_use]
    pub fn with_rare_checkpoints(mut self) -> WasmLoader {
        self.host.rare_checkpoints = true;
        self
    }

    fn backend(&self) -> MemoryBackend {
        match self.host.tracking {
            Some(_) => MemoryBackend::Userfaultfd,
            None => MemoryBackend::PlainCopy,
        }
    }

    /// [`FsmLoader::check`], which also tells what it saw, or what exactly is wrong.
    pub(crate) fn describe(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<ModuleReport, Refused>, HostFailure> {
        match self.compiled_new(module, limits) {
            Ok(compiled) => Ok(Ok(compiled.report.clone())),
            Err(LoadError::Refused(error)) => Ok(Err(Refused::Check(error))),
            Err(LoadError::Compile(reason)) => Ok(Err(Refused::Compile(reason))),
            Err(LoadError::Host(failure)) => Err(failure),
        }
    }

    /// [`FsmLoader::instantiate`], for those who know what it makes; without a context,
    /// `instantiate_blank`.
    pub(crate) fn start(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Option<Context>,
    ) -> Result<Result<WasmFsm, ModuleRefused>, HostFailure> {
        let compiled = match self.compiled(key_of(module, limits), module, limits, Whose::Held) {
            Ok(compiled) => compiled,
            Err(LoadError::Refused(error)) => return Ok(Err(error.into())),
            Err(LoadError::Compile(reason)) => {
                return Err(HostFailure(format!("the active module does not compile: {reason}")));
            }
            Err(LoadError::Host(failure)) => return Err(failure),
        };
        WasmFsm::start(compiled, limits, self.host.clone(), context)
    }

    /// [`WasmLoader::compiled`] for a module that nobody has yet. Whoever holds the module never waits
    /// for others at the door.
    fn compiled_new(&self, bytes: &[u8], limits: &Limits) -> Result<Arc<Compiled>, LoadError> {
        let key = key_of(bytes, limits);
        let profile = self.modules.profile(limits.stack_max_bytes)?;
        if let Some(compiled) = self.compiled_before(&key, &profile, limits)? {
            return Ok(compiled);
        }
        let _one_by_one = lock(&self.modules.0.door);
        self.compiled(key, bytes, limits, Whose::New)
    }

    /// Checks and compiles, holding only the lock of this module meanwhile.
    fn compiled(
        &self,
        key: Key,
        bytes: &[u8],
        limits: &Limits,
        whose: Whose,
    ) -> Result<Arc<Compiled>, LoadError> {
        let profile = self.modules.profile(limits.stack_max_bytes)?;
        if let Some(compiled) = self.compiled_before(&key, &profile, limits)? {
            return Ok(compiled);
        }
        let flight = self.modules.flight(key);
        let _alone = lock(&flight.lock);
        if let Some(compiled) = self.compiled_before(&key, &profile, limits)? {
            return Ok(compiled);
        }
        self.compile(key, bytes, limits, &profile, whose)
    }

    fn compiled_before(
        &self,
        key: &Key,
        profile: &Profile,
        limits: &Limits,
    ) -> Result<Option<Arc<Compiled>>, LoadError> {
        let Some(compiled) = self.modules.kept(key) else { return Ok(None) };
        check_limits(&compiled.report, limits)?;
        if let Some(cache) = &self.cache {
            cache.complete(&profile.hash, compiled.report.hash, compiled.pre.module());
        }
        Ok(Some(compiled))
    }

    fn compile(
        &self,
        key: Key,
        bytes: &[u8],
        limits: &Limits,
        profile: &Profile,
        whose: Whose,
    ) -> Result<Arc<Compiled>, LoadError> {
        let cached =
            self.cache.as_ref().and_then(|cache| cache.load(&profile.engine, &profile.hash, key.0));
        let (report, code) = match &self.modules.0.compiler {
            Compiler::InProcess => (whose.check(bytes, limits)?, None),
            Compiler::Children(config) => {
                let made = compiler::run(config, whose, bytes, limits, cached.is_some());
                let (report, code) = made.map_err(LoadError::from)?;
                (report, Some(code))
            }
        };
        let rewritten = rewrite(bytes, &report).map_err(|error| {
            HostFailure(format!("rewriting a module that passed every check: {error}"))
        })?;
        let module = match cached {
            Some(module) => module,
            None => {
                let module = match code {
                    Some(code) => unchecked::load_compiled(&profile.engine, &code)
                        .map_err(|error| HostFailure(format!("loading code: {error:#}")))?,
                    None => Module::from_binary(&profile.engine, &rewritten.bytes)
                        .map_err(|error| LoadError::Compile(format!("{error:#}")))?,
                };
                if let Some(cache) = &self.cache {
                    cache.store(&profile.hash, report.hash, &module);
                }
                module
            }
        };
        let pre = profile
            .linker
            .instantiate_pre(&module)
            .map_err(|error| HostFailure(format!("linking a checked module: {error:#}")))?;
        let Rewritten { globals, start, data, .. } = rewritten;
        let compiled = Arc::new(Compiled { report, pre, globals, start, data });
        self.modules.keep(key, &compiled);
        Ok(compiled)
    }
}

impl CompiledModules {
    /// Has children of this process check and compile, which is for programs that answer to
    /// [`CHILD_COMMAND`](super::CHILD_COMMAND). Otherwise the threads that ask do it.
    #[must_use]
    pub fn by_children(config: CompilerConfig) -> CompiledModules {
        let compiler = Compiler::Children(config);
        CompiledModules(Arc::new(Kept { compiler, ..Kept::default() }))
    }

    fn profile(&self, stack_max_bytes: u64) -> Result<Arc<Profile>, HostFailure> {
        let mut engines = lock(&self.0.engines);
        if let Some(profile) = engines.get(&stack_max_bytes) {
            return Ok(Arc::clone(profile));
        }
        let engine = engine::build(stack_max_bytes)?;
        let mut linker = Linker::new(&engine);
        abi::define(&mut linker)
            .and_then(|()| wasi::define(&mut linker))
            .map_err(|error| HostFailure(format!("defining the imports: {error:#}")))?;
        let hash = engine::code_hash(&engine);
        let profile = Arc::new(Profile { engine, hash, linker });
        if engines.len() == ENGINES_MAX {
            // CompiledModules compiled on it keep what they need of it.
            engines.pop_first();
        }
        engines.insert(stack_max_bytes, Arc::clone(&profile));
        Ok(profile)
    }

    fn flight(&self, key: Key) -> Flight<'_> {
        let lock = Arc::clone(lock(&self.0.flights).entry(key).or_default());
        Flight { modules: self, key, lock }
    }

    fn is_kept(&self, key: &Key) -> bool {
        lock(&self.0.compiled).iter().any(|(other, _)| other == key)
    }

    fn kept(&self, key: &Key) -> Option<Arc<Compiled>> {
        let mut kept = lock(&self.0.compiled);
        let position = kept.iter().position(|(other, _)| other == key)?;
        let entry = kept.remove(position)?;
        let compiled = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(compiled)
    }

    fn keep(&self, key: Key, compiled: &Arc<Compiled>) {
        let mut kept = lock(&self.0.compiled);
        kept.retain(|(other, _)| *other != key);
        if kept.len() == KEPT_MODULES_MAX {
            kept.pop_front();
        }
        kept.push_back((key, Arc::clone(compiled)));
    }
}

/// A compilation that others may wait for. The last one who knows of it forgets it.
struct Flight<'a> {
    modules: &'a CompiledModules,
    key: Key,
    lock: Arc<Mutex<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.modules.0.flights);
        // The map's and this one: clones are made under the lock of the map only.
        if Arc::strong_count(&self.lock) == 2 {
            flights.remove(&self.key);
        }
    }
}

impl fmt::Debug for CompiledModules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompiledModules({} compiled)", lock(&self.0.compiled).len())
    }
}

impl FsmLoader for WasmLoader {
    fn engine(&self) -> EngineProfile {
        self.engine.clone()
    }

    fn beside(&self) -> Option<SharedLoader> {
        Some(Arc::new(self.clone().with_threads(1)))
    }

    fn memory_backend(&self) -> &'static str {
        self.backend().name()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        let described = self.describe(module, limits)?;
        Ok(described.map(|_| ()).map_err(|refused| match refused {
            Refused::Check(error) => error.into(),
            // Nothing depends on this module yet: one that the compiler cannot take must not
            // stop a node that is merely asked about it.
            Refused::Compile(reason) => {
                ModuleRefused(format!("the module does not compile: {reason}"))
            }
        }))
    }

    fn is_prepared(&self, module: ModuleHash, limits: &Limits) -> bool {
        self.modules.is_kept(&(module, limits.stack_max_bytes))
    }

    fn retain(&self, modules: &[ModuleHash]) {
        if let Some(cache) = &self.cache {
            cache.retain(modules);
        }
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        let fsm = self.start(module, limits, Some(context))?;
        Ok(fsm.map(|fsm| Box::new(fsm) as Box<dyn Fsm>))
    }

    fn instantiate_blank(
        &self,
        module: &[u8],
        limits: &Limits,
        _context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        let fsm = self.start(module, limits, None)?;
        Ok(fsm.map(|fsm| Box::new(fsm) as Box<dyn Fsm>))
    }
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Refused(#[from] CheckError),
    #[error("compiling: {0}")]
    Compile(String),
    #[error(transparent)]
    Host(#[from] HostFailure),
}

impl From<compiler::Failure> for LoadError {
    fn from(failure: compiler::Failure) -> LoadError {
        match failure {
            compiler::Failure::Refused(error) => LoadError::Refused(error),
            compiler::Failure::Compile(reason) => LoadError::Compile(reason),
            compiler::Failure::Host(reason) => LoadError::Host(HostFailure(reason)),
        }
    }
}

/// Everything under these locks is valid at every moment, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_two_need_at_once_is_compiled_once() {
        let module = include_bytes!("../../../plugins/counter/counter.wasm");
        let limits = Limits::default();
        let loader = WasmLoader::new(None).expect("guests run here");
        let key = key_of(module, &limits);
        // Somebody is at it, and has it done before letting go.
        let flight = loader.modules.flight(key);
        let alone = lock(&flight.lock);
        let (asked, compiled) = std::thread::scope(|scope| {
            let second =
                scope.spawn(|| loader.compiled(key, module, &limits, Whose::New).expect("taken"));
            // The second one knows of the flight; what it does then is wait for its lock.
            while Arc::strong_count(&flight.lock) < 3 {
                std::thread::yield_now();
            }
            let profile = loader.modules.profile(limits.stack_max_bytes).expect("guests run here");
            let compiled =
                loader.compile(key, module, &limits, &profile, Whose::New).expect("taken");
            drop(alone);
            (second.join().expect("no panic"), compiled)
        });
        assert!(Arc::ptr_eq(&asked, &compiled), "it was compiled twice");
        drop(flight);
        assert!(lock(&loader.modules.0.flights).is_empty(), "nobody is left to wait");
        assert!(loader.is_prepared(key.0, &limits));
    }

    #[test]
    fn what_one_loader_has_compiled_another_runs_and_caches() {
        let directory = tempfile::tempdir().expect("created");
        let module = include_bytes!("../../../plugins/counter/counter.wasm");
        let limits = Limits::default();
        let modules = CompiledModules::default();
        let key = (ModuleHash::of(module), limits.stack_max_bytes);

        let first = WasmLoader::sharing(None, modules.clone()).expect("guests run here");
        first.check(module, &limits).expect("compiled").expect("taken");
        let compiled = modules.kept(&key).expect("kept");

        let cache = directory.path().join("compiled");
        let second = WasmLoader::sharing(Some(cache.clone()), modules.clone());
        let second = second.expect("guests run here");
        second.start(module, &limits, None).expect("started").expect("taken");
        let again = modules.kept(&key).expect("kept");
        assert!(Arc::ptr_eq(&compiled, &again), "it was compiled twice");
        assert_eq!(std::fs::read_dir(&cache).expect("it is there").count(), 1);
    }
}
