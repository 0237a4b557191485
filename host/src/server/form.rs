//! Forming a cluster of one voter.

use std::sync::Arc;

use super::ServeError;
use super::home::{EmptyHome, Home, place};
use super::intent::Intent;
use super::plugin::Plugin;
use super::release;
use super::restore::Portable;
use crate::config::Config;
use crate::fsm::{SharedLoader, on_guest_stack};
use crate::machine::FOUNDER;
use crate::node;
use crate::tls::Tls;
use crate::transport::Identity;
use crate::types::{ClusterId, GroupId, Member, Rival};
use crate::wasm::CompiledModules;

/// What is left to do once there is a cluster.
const SETTLE: Intent = Intent::Settle { disputed_by: None };

/// Which cluster is formed: the one of the certificate, or a new one.
fn founded(tls: Option<&Tls>) -> Result<ClusterId, ServeError> {
    let Some(tls) = tls else { return Ok(ClusterId(rand::random())) };
    if tls.node() != FOUNDER {
        let reason = format!(
            "a cluster is formed by node {FOUNDER}; start this one with --join, or give it the certificate of \
             node {FOUNDER}"
        );
        return Err(ServeError::CertificateUnfit { node: tls.node(), reason });
    }
    Ok(tls.cluster())
}

/// Forms a cluster where nothing is yet. Until the plugin has passed, nothing is written.
pub(super) async fn form(
    config: &Config,
    plugin: &Plugin,
    address: String,
    modules: &CompiledModules,
    portable: Option<Portable>,
    tls: Option<&Tls>,
) -> Result<(Home, Identity), ServeError> {
    // The cache of compiled modules lives in the data directory, which must not exist yet.
    let loader = release::loader(None, modules)?;
    plugin.check(Arc::clone(&loader), config.limits.clone()).await?;
    let identity = Identity { cluster: founded(tls)?, node: FOUNDER, address };
    let (config, plugin) = (config.clone(), plugin.clone());
    tokio::task::spawn_blocking(move || {
        if let Some(portable) = portable {
            let began = || portable.machine(&plugin, &identity, &config, loader);
            let mut machine = on_guest_stack("import", began).map_err(no_thread)??;
            let begins = (identity.cluster, node::FIRST);
            let empty = EmptyHome::lock(&config)?;
            let home = empty.found(&config, begins, &mut machine, Some(&SETTLE))?;
            return Ok((home, identity));
        }
        let home = form_in(EmptyHome::lock(&config)?, &identity, &config, loader)?;
        Ok((home, identity))
    })
    .await?
}

fn no_thread(source: std::io::Error) -> ServeError {
    ServeError::Io { action: "starting a thread".to_owned(), source }
}

/// Forms a cluster of one voter in a directory that is nobody's. Blocks.
///
/// # Errors
/// Those of the data directory. The next start completes what was begun.
pub fn form_in(
    empty: EmptyHome,
    identity: &Identity,
    config: &Config,
    loader: SharedLoader,
) -> Result<Home, ServeError> {
    let home = empty.initialize(config, &Intent::Form, identity.cluster, identity.node)?;
    first_snapshot(&home, identity, config, loader)?;
    Ok(home)
}

/// What a start goes on with that an earlier one has begun.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Members to reach before the node's own state says who they are.
    pub introduced: Vec<Member>,
    /// It is to become a voter once it has caught up.
    pub promote: bool,
    /// Its cluster has just been formed, and who has dialled it meanwhile, if somebody has.
    pub probation: Option<Option<Rival>>,
}

/// Carries out what an earlier start of this node has left to do, as far as that can be done before it runs. Blocks.
///
/// # Errors
/// Why it cannot be, with what to do; or those of the data directory.
pub fn resume(
    home: &Home,
    intent: Option<Intent>,
    identity: &Identity,
    config: &Config,
    loader: impl FnOnce() -> Result<SharedLoader, ServeError>,
) -> Result<Resumed, ServeError> {
    match intent {
        Some(Intent::Form) => {
            complete(home, identity, config, loader()?)?;
            Ok(Resumed { probation: Some(None), ..Resumed::default() })
        }
        Some(Intent::Found) => Err(ServeError::HalfFounded { place: place(config) }),
        Some(Intent::Settle { disputed_by }) => {
            Ok(Resumed { probation: Some(disputed_by), ..Resumed::default() })
        }
        Some(Intent::Join { introduced, promote }) => {
            Ok(Resumed { introduced, promote, probation: None })
        }
        None if home.is_empty()? => Err(ServeError::HalfCreated { place: place(config) }),
        None => Ok(Resumed::default()),
    }
}

/// Completes what [`form_in`] was interrupted in. Blocks.
fn complete(
    home: &Home,
    identity: &Identity,
    config: &Config,
    loader: SharedLoader,
) -> Result<(), ServeError> {
    if home.is_empty()? {
        return first_snapshot(home, identity, config, loader);
    }
    home.intend(&SETTLE)
}

fn first_snapshot(
    home: &Home,
    identity: &Identity,
    config: &Config,
    loader: SharedLoader,
) -> Result<(), ServeError> {
    let mut machine = node::first_machine(identity, GroupId::MAIN, config.limits.clone(), loader);
    if let Some(admin) = config.founding_admin() {
        machine.bootstrap_access(admin);
    }
    node::found(home.stores(), GroupId::MAIN, node::FIRST, &mut machine)?;
    home.intend(&SETTLE)
}
