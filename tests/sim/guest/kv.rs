//! The kv sample plugin, as wasm and as its native twin: JSON in, JSON out.

use bytes::Bytes;
use raft_host::fsm::native;
use raft_host::types::{ModuleHash, Outcome};
use serde_json::{Value as Json, json};
use std::sync::OnceLock;

use super::super::model::{self, ModelCommand};
use super::{Effect, Guest, original};
use crate::history::{Action, Answer, Value};

/// A store that speaks the kv plugin's JSON.
pub(super) struct Kv {
    name: &'static str,
    is_native: bool,
}

/// In the host's own process.
pub(super) const NATIVE: Kv = Kv { name: "native", is_native: true };
/// The plugin; odd versions are kv-v2.
pub(super) const WASM: Kv = Kv { name: "kv", is_native: false };

impl Guest for Kv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn module(&self, version: u64) -> Bytes {
        static MODULES: OnceLock<[Bytes; 2]> = OnceLock::new();
        if self.is_native {
            return Bytes::from_static(native::KV);
        }
        let modules = MODULES.get_or_init(|| {
            [crate::kv(), crate::kv_v2()]
                .map(|path| std::fs::read(path).expect("the plugin is in the workspace").into())
        });
        // kv-v2 reads the snapshots of kv, not the other way round.
        modules[version.min(1) as usize].clone()
    }

    fn can(&self, effect: Effect) -> bool {
        !matches!(
            effect,
            Effect::Act(Action::Add(_) | Action::Read)
                | Effect::Trap
                | Effect::Spin
                | Effect::Grow
                | Effect::Clock
                | Effect::Random
        )
    }

    fn command(&self, key: u8, effect: Effect) -> Bytes {
        let key = super::key_name(key);
        let command = match effect {
            Effect::Act(Action::Write(value)) => {
                json!({"op": "set", "key": key, "value": value.to_string()})
            }
            Effect::Act(Action::Delete) => json!({"op": "delete", "key": key}),
            Effect::Act(Action::CompareAndSet(expected, value)) => {
                let expected = expected.map(|expected| expected.to_string());
                json!({"op": "cas", "key": key, "expected": expected, "value": value.to_string()})
            }
            _ => json!({"op": "nothing of the kind", "key": key}),
        };
        command.to_string().into()
    }

    fn query(&self, key: u8) -> Bytes {
        json!({"op": "get", "key": super::key_name(key)}).to_string().into()
    }

    fn value(&self, outcome: &Outcome) -> Option<Value> {
        let Outcome::Ok(bytes) = original(outcome) else { return None };
        let answer: Json = serde_json::from_slice(bytes).ok()?;
        match &answer["value"] {
            Json::Null => Some(None),
            Json::String(text) => text.parse().ok().map(Some),
            _ => None,
        }
    }
}

impl model::Guest for Kv {
    fn decode(&self, command: &[u8]) -> Option<ModelCommand> {
        let (key, effect) = parse(command)?;
        Some(super::modelled(key, effect))
    }

    fn answer(&self, action: Action, outcome: &Outcome) -> Option<Answer> {
        let Outcome::Ok(bytes) = original(outcome) else { return None };
        let answer: Json = serde_json::from_slice(bytes).ok()?;
        let ok = answer["ok"].as_bool()?;
        match action {
            Action::Write(_) => ok.then_some(Answer::Done),
            Action::Delete | Action::CompareAndSet(..) => Some(Answer::Matched(ok)),
            Action::Read | Action::Add(_) => None,
        }
    }

    fn answers_otherwise(&self, old: ModuleHash, new: ModuleHash, outcome: &Outcome) -> bool {
        // What kv-v2 does besides no client asks for; but who asks for nothing of the kind is told what there is.
        matches!(outcome, Outcome::Rejected(_)) && old != new
    }
}

/// What a command of these bytes is meant to do.
fn parse(command: &[u8]) -> Option<(u8, Effect)> {
    let command: Json = serde_json::from_slice(command).ok()?;
    let text = |name: &str| command[name].as_str();
    let number = |name: &str| text(name)?.parse::<i64>().ok();
    let key = text("key")?.strip_prefix('k')?.parse().ok()?;
    let effect = match text("op")? {
        "set" => Effect::Act(Action::Write(number("value")?)),
        "delete" => Effect::Act(Action::Delete),
        "cas" => Effect::Act(Action::CompareAndSet(number("expected"), number("value")?)),
        _ => Effect::Reject,
    };
    Some((key, effect))
}
