//! Upgrades that meet each other, and the barrier before an activation.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::fsm::{Context, EngineProfile, Fsm, FsmLoader, HostFailure, Limits, ModuleRefused};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_upgrades_that_saw_the_same_one_is_done_and_the_other_is_told_why_it_is_not() {
    let cluster = Cluster::of(2).await;
    let saw = cluster.leader().handle.incumbent();
    upgrade_from(cluster.follower(), saw, KV).await.unwrap();
    let late = upgrade_from(cluster.follower(), saw, NULL).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(late.message().contains("was to replace no module"), "{late}");
    assert!(late.message().contains("somebody else was faster"), "{late}");
    assert_eq!(late.metadata().get(EFFECT_KEY).unwrap(), "none");
    // The same again is a retry that finds its work done.
    assert!(upgrade_from(cluster.follower(), saw, KV).await.unwrap().already_active);

    let request = v1::ModulesRequest { linearizable: true, ..Default::default() };
    let modules = cluster.follower().admin().modules(request).await.unwrap().into_inner();
    assert_eq!(modules.history.len(), 1);
    assert_eq!(modules.history[0].module_hash[..], ModuleHash::of(KV).0);
    cluster.stop().await;
}

/// Says that it has compiled a module when the test says so.
struct Compiler {
    is_done: AtomicBool,
    asked: AtomicUsize,
}

impl FsmLoader for Compiler {
    fn engine(&self) -> EngineProfile {
        NativeLoader.engine()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        NativeLoader.check(module, limits)
    }

    fn is_prepared(&self, _module: ModuleHash, _limits: &Limits) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.is_done.load(Ordering::SeqCst)
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        NativeLoader.instantiate(module, limits, context)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_activated_when_the_voters_that_live_have_compiled_it() {
    let compiler =
        Arc::new(Compiler { is_done: AtomicBool::new(true), asked: AtomicUsize::new(0) });
    let mut cluster = Cluster::loading_with(Arc::clone(&compiler) as _, 3).await;
    cluster.nodes.pop().unwrap().stop().await;
    compiler.is_done.store(false, Ordering::SeqCst);
    let leader = cluster.leader();
    let mut upgraded = Box::pin(upgrade(leader, KV));
    let before = compiler.asked.load(Ordering::SeqCst);
    while compiler.asked.load(Ordering::SeqCst) < before + 8 {
        // Its future runs here and nowhere else.
        let pause = tokio::time::timeout(Duration::from_millis(20), &mut upgraded);
        assert!(pause.await.is_err(), "a voter has not compiled it yet");
        assert_eq!(leader.handle.incumbent(), None);
    }
    compiler.is_done.store(true, Ordering::SeqCst);
    upgraded.await.unwrap();
    assert_eq!(leader.handle.incumbent().unwrap().hash, ModuleHash::of(KV));
    cluster.stop().await;
}
