//! State machines in the host's own process: the twin of `wasm` for tests, and the yardstick
//! for what wasm costs. They use no fuel and never trap.
//!
//! A "module" is a magic string: [`KV`] speaks the JSON of the kv sample plugin, [`NULL`]
//! counts the commands and keeps the last one, so that a benchmark measures everything else.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{
    Call, Context, EngineFacts, EngineProfile, EngineUnsupported, Fsm, FsmLoader, GuestDigest,
    GuestResult, HostFailure, Image, ImageError, Limits, MACHINE_VERSION, ModuleRefused,
    QueryError,
};
use crate::types::{ModuleHash, StateDigest};

/// Module bytes of the key-value store.
pub const KV: &[u8] = b"native:kv";
/// Module bytes of the machine that does next to nothing.
pub const NULL: &[u8] = b"native:null";

const IMAGE_MAGIC: &[u8; 8] = b"RHGNATIV";
/// Keys that one `range` answers unless it asks for another number.
const RANGE_LIMIT_DEFAULT: usize = 100;
/// What commands of the key-value store do, which are their classes too.
const KV_CLASSES: [&str; 3] = ["set", "delete", "cas"];

/// Loads [`KV`] and [`NULL`] and refuses everything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeLoader;

/// Loads native machines by their magic strings and leaves everything else to another loader.
pub struct WithNative<L>(pub L);

/// A state machine in the host's process.
#[derive(Clone, Debug)]
pub struct NativeFsm {
    module: ModuleHash,
    /// Copied only if a command comes while an image is being written.
    state: Arc<State>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
enum State {
    Kv(BTreeMap<String, String>),
    Null { commands: u64, last: Vec<u8> },
}

impl NativeLoader {
    fn initial(module: &[u8]) -> Option<State> {
        match module {
            KV => Some(State::Kv(BTreeMap::new())),
            NULL => Some(State::Null { commands: 0, last: Vec::new() }),
            _ => None,
        }
    }
}

impl NativeFsm {
    /// A fresh machine of a native module; `None` if `module` is none.
    pub fn new(module: &[u8]) -> Option<NativeFsm> {
        let state = Arc::new(NativeLoader::initial(module)?);
        Some(NativeFsm { module: ModuleHash::of(module), state })
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.state).expect("strings and numbers always encode")
    }

    /// The name of the format that it encodes in.
    fn format(&self) -> &'static str {
        match *self.state {
            State::Kv(_) => "native-kv/1",
            State::Null { .. } => "native-null/1",
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<State, String> {
        let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if std::mem::discriminant(&state) != std::mem::discriminant(&*self.state) {
            return Err("it is the state of another native module".to_owned());
        }
        Ok(state)
    }
}

impl FsmLoader for NativeLoader {
    fn engine(&self) -> EngineProfile {
        EngineProfile::of(&EngineFacts {
            engine: "native".to_owned(),
            engine_version: 1,
            abi: 0,
            fuel: 0,
            rewrite: 0,
            check: 0,
            machine: MACHINE_VERSION,
            cpu: "any".to_owned(),
            cpu_features: Vec::new(),
            features: Vec::new(),
        })
    }

    fn check(
        &self,
        module: &[u8],
        _limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        Ok(NativeLoader::initial(module).map(|_| ()).ok_or_else(not_native))
    }

    fn instantiate(
        &self,
        module: &[u8],
        _limits: &Limits,
        _context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        let fsm = NativeFsm::new(module).ok_or_else(not_native);
        Ok(fsm.map(|fsm| Box::new(fsm) as Box<dyn Fsm>))
    }
}

fn not_native() -> ModuleRefused {
    ModuleRefused("not a native module (native:kv, native:null)".to_owned())
}

impl<L: FsmLoader> FsmLoader for WithNative<L> {
    fn engine(&self) -> EngineProfile {
        self.0.engine()
    }

    fn supports(&self, profile: &EngineProfile) -> Result<(), EngineUnsupported> {
        self.0.supports(profile)
    }

    fn level(&self) -> crate::types::Level {
        self.0.level()
    }

    fn memory_backend(&self) -> &'static str {
        self.0.memory_backend()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        match NativeLoader::initial(module) {
            Some(_) => NativeLoader.check(module, limits),
            None => self.0.check(module, limits),
        }
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        match NativeLoader::initial(module) {
            Some(_) => NativeLoader.instantiate(module, limits, context),
            None => self.0.instantiate(module, limits, context),
        }
    }

    fn instantiate_blank(
        &self,
        module: &[u8],
        limits: &Limits,
        context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        match NativeLoader::initial(module) {
            Some(_) => NativeLoader.instantiate_blank(module, limits, context),
            None => self.0.instantiate_blank(module, limits, context),
        }
    }
}

impl Fsm for NativeFsm {
    fn module(&self) -> ModuleHash {
        self.module
    }

    fn init(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(call(Ok(Vec::new())))
    }

    fn apply(&mut self, _context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        Ok(call(match Arc::make_mut(&mut self.state) {
            State::Kv(map) => kv_apply(map, command),
            State::Null { commands, last } => {
                *commands += 1;
                last.clear();
                last.extend_from_slice(command);
                Ok(Vec::new())
            }
        }))
    }

    fn query(&mut self, _context: Context, query: &[u8]) -> Result<Call, QueryError> {
        Ok(call(match &*self.state {
            State::Kv(map) => kv_query(map, query),
            State::Null { commands, .. } => Ok(commands.to_string().into_bytes()),
        }))
    }

    fn has_query(&self) -> bool {
        true
    }

    fn has_classes(&self) -> bool {
        matches!(*self.state, State::Kv(_))
    }

    /// Of the key-value store, what a command does is its class; a malformed command is of none.
    fn classify(&mut self, _context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        let parsed = match *self.state {
            State::Kv(_) => serde_json::from_slice::<KvCommand<'_>>(command).ok(),
            State::Null { .. } => None,
        };
        let known = parsed.filter(|command| KV_CLASSES.contains(&&*command.op));
        Ok(call(Ok(known.map_or_else(Vec::new, |command| command.op.as_bytes().to_vec()))))
    }

    fn snapshot(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(call(Ok(self.encode())))
    }

    fn restore(&mut self, _context: Context, snapshot: &[u8]) -> Result<Call, HostFailure> {
        Ok(call(self.decode(snapshot).map(|state| {
            self.state = Arc::new(state);
            Vec::new()
        })))
    }

    fn state_version(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(call(Ok(self.format().into())))
    }

    fn restores(&mut self, _context: Context, version: &[u8]) -> Result<Call, HostFailure> {
        let own = self.format();
        Ok(call(match version == own.as_bytes() {
            true => Ok(Vec::new()),
            false => Err(format!("it takes {own} only")),
        }))
    }

    /// Digests everything each time: this is a machine for tests.
    fn digest(&mut self) -> Result<GuestDigest, HostFailure> {
        use sha2::Digest as _;
        let bytes = self.encode();
        let digest = StateDigest(sha2::Sha256::digest(&bytes).into());
        Ok(GuestDigest { digest, changed: std::iter::once(0..bytes.len() as u64).collect() })
    }

    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, _at: u64) {
        match Arc::make_mut(&mut self.state) {
            // Where no command ever looks.
            State::Kv(map) => drop(map.insert("\u{0}flipped".to_owned(), String::new())),
            State::Null { commands, .. } => *commands ^= 1,
        }
    }

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        Ok(Box::new(NativeImage(self.clone())))
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        let mut head = [0; 8 + 32 + 8 + 4];
        image.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(8);
        let (module, rest) = rest.split_at(32);
        let (len, checksum) = rest.split_at(8);
        if magic != IMAGE_MAGIC || module != self.module.0 {
            return Err(ImageError::Invalid("not an image of this native module".to_owned()));
        }
        let len = u64::from_le_bytes(len.try_into().expect("8 bytes"));
        let mut bytes = Vec::new();
        image.take(len).read_to_end(&mut bytes)?;
        if crc32fast::hash(&bytes).to_le_bytes() != checksum {
            return Err(ImageError::Invalid("it is damaged or truncated".to_owned()));
        }
        self.state = Arc::new(self.decode(&bytes).map_err(ImageError::Invalid)?);
        Ok(())
    }

    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError> {
        let image: &dyn Any = image;
        match image.downcast_ref::<NativeImage>() {
            Some(NativeImage(other)) if other.module == self.module => {
                self.state = Arc::clone(&other.state);
                Ok(())
            }
            _ => Err(ImageError::Invalid("not an image of this native module".to_owned())),
        }
    }
}

struct NativeImage(NativeFsm);

impl Image for NativeImage {
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let bytes = self.0.encode();
        out.write_all(IMAGE_MAGIC)?;
        out.write_all(&self.0.module.0)?;
        out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        out.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
        out.write_all(&bytes)
    }
}

fn call(result: Result<Vec<u8>, String>) -> Call {
    let result = match result {
        Ok(output) => GuestResult::Ok(output),
        Err(reason) => GuestResult::Rejected(reason.into_bytes()),
    };
    Call { result, fuel_used: 0, events: Vec::new(), pages_dirtied: None }
}

/// One flat object rather than a tagged enum: serde copies the fields of those before it
/// knows the tag, which would make this a poor yardstick.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KvCommand<'a> {
    op: Cow<'a, str>,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    /// `null` means that the key must be absent.
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<Option<Text<'a>>>,
}

/// A string, borrowed from the command unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Tells `null` from a missing field.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum KvQuery {
    Get {
        key: String,
    },
    /// Keys from `start` (inclusive) to `end` (exclusive) that begin with `prefix`, in order.
    Range {
        #[serde(default)]
        start: String,
        end: Option<String>,
        #[serde(default)]
        prefix: String,
        limit: Option<usize>,
    },
    Count {},
}

fn kv_apply(map: &mut BTreeMap<String, String>, command: &[u8]) -> Result<Vec<u8>, String> {
    const DONE: &[u8] = br#"{"ok":true}"#;
    let KvCommand { op, key, value, expected } = serde_json::from_slice(command)
        .map_err(|error| format!("the command is malformed: {error}"))?;
    match (&*op, value, expected) {
        ("set", Some(value), None) => {
            put(map, &key.0, &value.0);
            Ok(DONE.to_vec())
        }
        ("delete", None, None) => {
            let deleted = map.remove(&*key.0).is_some();
            Ok(encode(&json!({ "ok": deleted })))
        }
        ("cas", Some(value), Some(expected)) => {
            let current = map.get(&*key.0).map(String::as_str);
            if current != expected.as_ref().map(|text| &*text.0) {
                return Ok(encode(&json!({ "ok": false, "current": current })));
            }
            put(map, &key.0, &value.0);
            Ok(DONE.to_vec())
        }
        ("set" | "delete" | "cas", _, _) => {
            Err(format!("the command is malformed: the fields are not those of {op}"))
        }
        _ => Err(format!("the command is malformed: unknown operation {op}")),
    }
}

fn put(map: &mut BTreeMap<String, String>, key: &str, value: &str) {
    match map.get_mut(key) {
        Some(stored) => value.clone_into(stored),
        None => drop(map.insert(key.to_owned(), value.to_owned())),
    }
}

fn kv_query(map: &BTreeMap<String, String>, query: &[u8]) -> Result<Vec<u8>, String> {
    let query = serde_json::from_slice(query)
        .map_err(|error| format!("the query is malformed: {error}"))?;
    Ok(encode(&match query {
        KvQuery::Get { key } => json!({ "value": map.get(&key) }),
        KvQuery::Count {} => json!({ "count": map.len() }),
        KvQuery::Range { start, end, prefix, limit } => {
            let first = if start < prefix { &prefix } else { &start };
            let mut found = map
                .range::<String, _>(first..)
                .take_while(|(key, _)| key.starts_with(&prefix))
                .take_while(|(key, _)| end.as_ref().is_none_or(|end| *key < end));
            let entries: Vec<Value> = found
                .by_ref()
                .take(limit.unwrap_or(RANGE_LIMIT_DEFAULT))
                .map(|(key, value)| json!({ "key": key, "value": value }))
                .collect();
            json!({ "entries": entries, "next": found.next().map(|(key, _)| key) })
        }
    }))
}

fn encode(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, Index, Position};

    const CONTEXT: Context = Context {
        cluster: ClusterId([1; 16]),
        position: Position { index: Index(1), ordinal: 0 },
        time_ms: 1,
        actor: crate::types::ActorName::NONE,
    };

    fn ok(call: Result<Call, impl std::fmt::Debug>) -> String {
        match call.unwrap().result {
            GuestResult::Ok(output) => String::from_utf8(output).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn rejected(call: Result<Call, HostFailure>) -> String {
        match call.unwrap().result {
            GuestResult::Rejected(reason) => String::from_utf8(reason).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_native_kv_answers_like_a_key_value_store() {
        let mut fsm = NativeFsm::new(KV).unwrap();
        let set = br#"{"op":"set","key":"a","value":"1"}"#;
        assert_eq!(ok(fsm.apply(CONTEXT, set)), r#"{"ok":true}"#);
        let cas = br#"{"op":"cas","key":"a","expected":"2","value":"3"}"#;
        assert_eq!(ok(fsm.apply(CONTEXT, cas)), r#"{"current":"1","ok":false}"#);
        let cas = br#"{"op":"cas","key":"b","expected":null,"value":"2"}"#;
        assert_eq!(ok(fsm.apply(CONTEXT, cas)), r#"{"ok":true}"#);
        for bad in [&b"{"[..], br#"{"op":"set","key":"a"}"#, br#"{"op":"add","key":"a"}"#] {
            assert!(rejected(fsm.apply(CONTEXT, bad)).starts_with("the command is malformed"));
        }
        let query = |fsm: &mut NativeFsm, query: &str| ok(fsm.query(CONTEXT, query.as_bytes()));
        assert_eq!(query(&mut fsm, r#"{"op":"get","key":"a"}"#), r#"{"value":"1"}"#);
        assert_eq!(query(&mut fsm, r#"{"op":"get","key":"z"}"#), r#"{"value":null}"#);
        assert_eq!(query(&mut fsm, r#"{"op":"count"}"#), r#"{"count":2}"#);
        assert_eq!(
            query(&mut fsm, r#"{"op":"range","limit":1}"#),
            r#"{"entries":[{"key":"a","value":"1"}],"next":"b"}"#
        );
        let empty = r#"{"entries":[],"next":null}"#;
        assert_eq!(query(&mut fsm, r#"{"op":"range","start":"b","end":"a"}"#), empty);
        assert_eq!(query(&mut fsm, r#"{"op":"range","prefix":"c"}"#), empty);
        let delete = br#"{"op":"delete","key":"a"}"#;
        assert_eq!(ok(fsm.apply(CONTEXT, delete)), r#"{"ok":true}"#);
        assert_eq!(ok(fsm.apply(CONTEXT, delete)), r#"{"ok":false}"#);
    }

    #[test]
    fn the_native_kv_says_what_a_command_does_and_changes_nothing() {
        let mut fsm = NativeFsm::new(KV).unwrap();
        assert!(fsm.has_classes());
        let mut class =
            |command: &[u8]| fsm.classify(CONTEXT, command).unwrap().class().map(str::to_owned);
        assert_eq!(class(br#"{"op":"set","key":"a","value":"1"}"#).as_deref(), Some("set"));
        assert_eq!(class(br#"{"op":"delete","key":"a"}"#).as_deref(), Some("delete"));
        assert_eq!(class(br#"{"op":"drop","key":"a"}"#), None);
        assert_eq!(class(b"{"), None);
        assert_eq!(fsm.state, NativeFsm::new(KV).unwrap().state);
        let mut none = NativeFsm::new(NULL).unwrap();
        assert!(!none.has_classes());
        assert_eq!(none.classify(CONTEXT, b"x").unwrap(), Call::nothing());
    }

    #[test]
    fn an_image_is_the_state_at_its_capture_and_a_damaged_one_changes_nothing() {
        let mut fsm = NativeFsm::new(NULL).unwrap();
        fsm.apply(CONTEXT, b"x").unwrap();
        let image = fsm.capture().unwrap();
        fsm.apply(CONTEXT, b"y").unwrap();
        let mut bytes = Vec::new();
        image.write_to(&mut bytes).unwrap();

        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(fsm.load_image(&mut damaged.as_slice()).is_err());
        assert!(fsm.load_image(&mut &bytes[..bytes.len() - 1]).is_err());
        assert_eq!(ok(fsm.query(CONTEXT, b"")), "2");
        fsm.load_image(&mut bytes.as_slice()).unwrap();
        assert_eq!(ok(fsm.query(CONTEXT, b"")), "1");
        assert!(NativeFsm::new(KV).unwrap().load_image(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn a_portable_snapshot_restores_into_a_fresh_machine() {
        let mut fsm = NativeFsm::new(KV).unwrap();
        fsm.apply(CONTEXT, br#"{"op":"set","key":"a","value":"1"}"#).unwrap();
        let snapshot = ok(fsm.snapshot(CONTEXT));
        let mut other = NativeFsm::new(KV).unwrap();
        assert!(!rejected(other.restore(CONTEXT, b"no snapshot")).is_empty());
        let format = ok(fsm.state_version(CONTEXT));
        ok(other.restores(CONTEXT, format.as_bytes()));
        ok(other.restore(CONTEXT, snapshot.as_bytes()));
        assert_eq!(other.state, fsm.state);
        let mut null = NativeFsm::new(NULL).unwrap();
        assert!(rejected(null.restores(CONTEXT, format.as_bytes())).contains("native-null/1"));
    }

    #[test]
    fn native_modules_are_found_by_their_magic_and_nothing_else_is() {
        let limits = Limits::default();
        assert!(NativeLoader.check(KV, &limits).unwrap().is_ok());
        assert!(NativeLoader.check(b"\0asm", &limits).unwrap().is_err());
        let both = WithNative(NativeLoader);
        assert!(both.instantiate(NULL, &limits, CONTEXT).unwrap().is_ok());
        assert!(both.instantiate(b"else", &limits, CONTEXT).unwrap().is_err());
    }
}
