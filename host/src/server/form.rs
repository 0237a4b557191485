//! Forming a cluster of one voter.

use std::sync::Arc;

use super::ServeError;
use super::home::{EmptyHome, Home};
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
use crate::types::{ClusterId, GroupId};
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
            let empty = EmptyHome::lock(&config)?;
            let (cluster, node) = (identity.cluster, identity.node);
            let home = empty.initialize(&config, &Intent::Found, cluster, node)?;
            node::found(home.stores(), GroupId::MAIN, node::FIRST, &mut machine)?;
            home.intend(&SETTLE)?;
            return Ok((home, identity));
        }
        let empty = EmptyHome::lock(&config)?;
        let home = empty.initialize(&config, &Intent::Form, identity.cluster, identity.node)?;
        first_snapshot(&home, &identity, &config, loader)?;
        Ok((home, identity))
    })
    .await?
}

fn no_thread(source: std::io::Error) -> ServeError {
    ServeError::Io { action: "starting a thread".to_owned(), source }
}

/// Completes what [`form`] was interrupted in. Blocks.
pub(super) fn complete(
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
