//! What this program says that it is: its version, and the engine profile that it offers.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::fsm::{EngineProfile, HostFailure, Offering, SharedLoader};
use crate::wasm::{self, CompiledModules, WasmLoader};

/// What `raft-host status` reports, if not this package's version.
static VERSION: OnceLock<&str> = OnceLock::new();
/// What it offers, if not what it has.
static ENGINE: OnceLock<EngineProfile> = OnceLock::new();

/// From now on the server reports this version; the first call counts.
pub(crate) fn report_version(version: &'static str) {
    VERSION.get_or_init(|| version);
}

/// From now on servers offer this engine profile and no other; the first call counts.
pub(crate) fn offer_engine(engine: EngineProfile) {
    ENGINE.get_or_init(|| engine);
}

pub(super) fn version() -> &'static str {
    VERSION.get().copied().unwrap_or(env!("CARGO_PKG_VERSION"))
}

/// The engine profile that servers of this program offer.
pub(crate) fn offered_engine() -> EngineProfile {
    ENGINE.get().cloned().unwrap_or_else(wasm::profile)
}

/// Loads modules for a server; keeps compiled code in `cache_dir`, if given.
pub(super) fn loader(
    cache_dir: Option<PathBuf>,
    modules: &CompiledModules,
) -> Result<SharedLoader, HostFailure> {
    let loader: SharedLoader = Arc::new(WasmLoader::sharing(cache_dir, modules.clone())?);
    let offered = offered_engine();
    Ok(match loader.supports(&offered) {
        Ok(()) => loader,
        Err(_) => Arc::new(Offering { loader, profiles: vec![offered] }),
    })
}
