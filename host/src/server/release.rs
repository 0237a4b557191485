//! What this program says that it is: its version, and the engine profile and level that it offers.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::fsm::{EngineProfile, HostFailure, Offering, SharedLoader};
use crate::types::Level;
use crate::wasm::{self, CompiledModules, WasmLoader};

/// What `raft-host status` reports, if not this package's version.
static VERSION: OnceLock<&str> = OnceLock::new();
/// What it offers, if not what it has.
static ENGINE: OnceLock<EngineProfile> = OnceLock::new();

/// The level that it offers, if not its own.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// From now on the server reports this version; the first call counts.
pub(crate) fn report_version(version: &'static str) {
    VERSION.get_or_init(|| version);
}

/// From now on servers offer this engine profile and no other; the first call counts.
pub(crate) fn offer_engine(engine: EngineProfile) {
    ENGINE.get_or_init(|| engine);
}

/// From now on servers offer this level; the first call counts.
#[cfg(feature = "museum")]
pub(crate) fn offer_level(level: Level) {
    LEVEL.get_or_init(|| level);
}

pub(super) fn version() -> &'static str {
    VERSION.get().copied().unwrap_or(env!("CARGO_PKG_VERSION"))
}

/// The engine profile that servers of this program offer.
pub(crate) fn offered_engine() -> EngineProfile {
    ENGINE.get().cloned().unwrap_or_else(wasm::profile)
}

/// The level that servers of this program offer.
pub(crate) fn offered_level() -> Level {
    LEVEL.get().copied().unwrap_or(Level::CURRENT)
}

/// Loads modules for a server; keeps compiled code in `cache_dir`, if given.
pub(super) fn loader(
    cache_dir: Option<PathBuf>,
    modules: &CompiledModules,
) -> Result<SharedLoader, HostFailure> {
    let loader: SharedLoader = Arc::new(WasmLoader::sharing(cache_dir, modules.clone())?);
    let (engine, level) = (offered_engine(), offered_level());
    Ok(match loader.supports(&engine) {
        Ok(()) if level == loader.level() => loader,
        _ => Arc::new(Offering { loader, profiles: vec![engine], level }),
    })
}
