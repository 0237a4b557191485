//! What is said of options that only form a cluster, given to a node that has one already.
//!
//! They are kept in unit files and scripts, and harmless there; but whoever changes one of them should
//! hear that nothing happens.

use serde_json::Value;

use super::plugin::Plugin;
use crate::config::Config;
use crate::fsm::Limits;
use crate::machine::ActiveModule;
use crate::storage::NodeIdentity;
use crate::types::ClusterId;

/// Said at once, whatever becomes of the start.
pub(super) fn say(place: &str, owner: NodeIdentity, plugin: &Plugin, imports: bool) {
    let option = if imports { "--plugin with --import" } else { "--plugin" };
    tracing::info!(
        plugin = %plugin.path.display(), hash = %plugin.hash.short(),
        "{option} forms a cluster only where there is none: {place} holds node {} of cluster {}, \
         which goes on",
        owner.node,
        owner.cluster
    );
}

/// Says what the given module is to a cluster that has one.
pub(super) fn say_of_module(cluster: ClusterId, active: &ActiveModule, plugin: &Plugin) {
    if active.hash == plugin.hash {
        tracing::info!(hash = %plugin.hash.short(), %cluster, "the cluster runs this plugin already");
        return;
    }
    tracing::warn!("{}", another_module(cluster, active, plugin));
}

fn another_module(cluster: ClusterId, active: &ActiveModule, plugin: &Plugin) -> String {
    let file = plugin.path.display();
    format!(
        "--plugin {file} ({}) changes nothing: cluster {cluster} runs another module, {} ({}). To \
         replace it on all nodes: raft-host upgrade {file}",
        plugin.hash.short(),
        active.label,
        active.hash.short()
    )
}

/// Says which of the configured limits are not those of the cluster.
pub(super) fn say_of_limits(config: &Config, actual: &Limits) {
    let differing = differing_limits(&config.limits, actual);
    if !differing.is_empty() {
        tracing::warn!(
            "[limits] count only when a cluster is formed, and this one has others: {}. To change \
             them on all nodes: raft-host limits set",
            differing.join(", ")
        );
    }
}

/// `name: actual, not configured`, of those that are configured at all.
fn differing_limits(configured: &Limits, actual: &Limits) -> Vec<String> {
    let fields = |limits: &Limits| match serde_json::to_value(limits) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (defaults, actual) = (fields(&Limits::default()), fields(actual));
    let set = fields(configured).into_iter();
    set.filter(|(name, value)| defaults.get(name) != Some(value))
        .filter_map(|(name, value)| Some((actual.get(&name)?.clone(), name, value)))
        .filter(|(actual, _, value)| actual != value)
        .map(|(actual, name, value)| format!("{name} is {actual}, not {value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, ModuleHash};

    #[test]
    fn another_module_is_named_with_the_cluster_and_what_to_do() {
        let plugin = Plugin {
            path: "new.wasm".into(),
            bytes: bytes::Bytes::from_static(b"new"),
            hash: ModuleHash::of(b"new"),
            label: "new".to_owned(),
        };
        let active = ActiveModule {
            hash: ModuleHash::of(b"old"),
            label: "old".to_owned(),
            activated_at: Index(3),
            has_query: true,
        };
        let cluster = ClusterId([9; 16]);
        let text = another_module(cluster, &active, &plugin);
        for words in [
            cluster.to_string(),
            plugin.hash.short(),
            active.hash.short(),
            "raft-host upgrade new.wasm".to_owned(),
        ] {
            assert!(text.contains(&words), "{words:?} is missing: {text}");
        }
    }

    #[test]
    fn only_limits_that_somebody_set_and_that_differ_are_named() {
        let actual = Limits { apply_fuel: 7, query_fuel: 9, ..Limits::default() };
        assert!(differing_limits(&Limits::default(), &actual).is_empty(), "nobody set any");
        assert!(differing_limits(&actual, &actual).is_empty());
        let configured = Limits { apply_fuel: 8, query_fuel: 9, ..Limits::default() };
        assert_eq!(differing_limits(&configured, &actual), ["apply_fuel is 7, not 8"]);
    }
}
