//! What another program's engine would come to.

use std::sync::Arc;

use crate::fsm::{
    Context, EngineProfile, EngineUnsupported, Fsm, FsmLoader, HostFailure, Limits, ModuleRefused,
    SharedLoader,
};
use crate::types::{Level, ModuleHash};

/// Runs guests with the engine that its loader offers, whatever profile the cluster asks for: so that a log can be
/// executed by another version before any node runs that. A node never does this.
pub struct AnyEngine(pub SharedLoader);

impl FsmLoader for AnyEngine {
    fn engine(&self) -> EngineProfile {
        self.0.engine()
    }

    fn supports(&self, _profile: &EngineProfile) -> Result<(), EngineUnsupported> {
        Ok(())
    }

    fn level(&self) -> Level {
        self.0.level()
    }

    fn beside(&self) -> Option<SharedLoader> {
        Some(Arc::new(AnyEngine(self.0.beside()?)))
    }

    fn memory_backend(&self) -> &'static str {
        self.0.memory_backend()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        self.0.check(module, limits)
    }

    fn is_prepared(&self, module: ModuleHash, limits: &Limits) -> bool {
        self.0.is_prepared(module, limits)
    }

    fn retain(&self, modules: &[ModuleHash]) {
        self.0.retain(modules);
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        self.0.instantiate(module, limits, context)
    }

    fn instantiate_blank(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        self.0.instantiate_blank(module, limits, context)
    }
}
