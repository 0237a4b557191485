//! The contract, as it was settled: every field and value of all packages, and every message as bytes.
//!
//! `RAFT_HOST_CONTRACT=write` writes the files anew; look at what that changes.

#![allow(missing_docs, reason = "a test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(raft_host_proto::ALL_DESCRIPTORS).expect("the program's own")
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let mut all: Vec<_> = pool.all_messages().collect();
    all.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    all
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// One line for each field, value and method; where a line stands says nothing.
fn contract(pool: &DescriptorPool) -> String {
    let mut lines = Vec::new();
    for message in messages(pool) {
        let name = message.full_name();
        lines.push(format!("message {name}"));
        for field in message.fields() {
            let oneof = field.containing_oneof().map(|oneof| format!(" in {}", oneof.name()));
            let cardinality = match field.cardinality() {
                Cardinality::Repeated => "repeated ",
                Cardinality::Optional | Cardinality::Required => "",
            };
            lines.push(format!(
                "field {name}.{} = {} {cardinality}{}{}",
                field.name(),
                field.number(),
                kind_name(&field.kind()),
                oneof.unwrap_or_default()
            ));
        }
    }
    for values in pool.all_enums() {
        for value in values.values() {
            lines.push(format!(
                "value {}.{} = {}",
                values.full_name(),
                value.name(),
                value.number()
            ));
        }
    }
    for service in pool.services() {
        for method in service.methods() {
            let stream = |is: bool| if is { "stream " } else { "" };
            lines.push(format!(
                "method {}: {}{} -> {}{}",
                method.full_name(),
                stream(method.is_client_streaming()),
                method.input().full_name(),
                stream(method.is_server_streaming()),
                method.output().full_name()
            ));
        }
    }
    lines.sort();
    lines.join("\n") + "\n"
}

/// A message with every field set, as deep as that goes; of alternatives the one with the highest number.
fn filled(message: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if depth == 0 && matches!(field.kind(), Kind::Message(_)) {
            continue;
        }
        filled.set_field(&field, value(&field, depth));
    }
    filled
}

fn value(field: &FieldDescriptor, depth: usize) -> Value {
    assert!(!field.is_map(), "maps have no order, and no place in a contract");
    let one = scalar(field, depth);
    if field.is_list() { Value::List(vec![one.clone(), one]) } else { one }
}

/// Differs from field to field, and is no default.
fn scalar(field: &FieldDescriptor, depth: usize) -> Value {
    let number = field.number();
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-(number as i32)),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(-(i64::from(number) << 40)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(1_000 + number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64((1 << 40) + u64::from(number)),
        Kind::Float => Value::F32(number as f32),
        Kind::Double => Value::F64(f64::from(number)),
        Kind::String => Value::String(field.name().to_owned()),
        Kind::Bytes => Value::Bytes(vec![number as u8; 3].into()),
        Kind::Enum(values) => Value::EnumNumber(last(&values)),
        Kind::Message(message) => Value::Message(filled(&message, depth - 1)),
    }
}

fn last(values: &EnumDescriptor) -> i32 {
    values.values().map(|value| value.number()).max().expect("an enum has values")
}

/// How deep messages are filled; deeper ones are looked at by themselves.
const DEPTH: usize = 3;

fn golden(pool: &DescriptorPool) -> String {
    let mut text = String::new();
    for message in messages(pool) {
        let bytes = filled(&message, DEPTH).encode_to_vec();
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        writeln!(text, "{} {hex}", message.full_name()).expect("writing to a string");
    }
    text
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the file says, or what it shall say from now on.
fn settled(name: &str, now: &str) -> String {
    if is_to_be_written() {
        std::fs::write(file(name), now).expect("the file is written");
    }
    std::fs::read_to_string(file(name)).expect("the file is there")
}

fn is_to_be_written() -> bool {
    std::env::var("RAFT_HOST_CONTRACT").is_ok_and(|wish| wish == "write")
}

/// Stands behind each field that is persisted.
const LEVEL: &str = " at level ";
/// How many persisted fields came with each level, from the first on. A level that was released gets
/// no other; none is before 1.0.
const FIELDS_OF_LEVELS: &[usize] = &[288];

fn is_persisted(line: &str) -> bool {
    line.starts_with("field raft_host.storage.v1.")
}

/// Each persisted field with its level, as the file has it; `?` for a field that it does not have.
fn with_levels(now: &str, settled: &str) -> String {
    let mut lines = String::new();
    for line in now.lines() {
        let known = settled.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(LEVEL));
        let level = is_persisted(line).then(|| format!("{LEVEL}{}", known.unwrap_or("?")));
        writeln!(lines, "{line}{}", level.unwrap_or_default()).expect("writing to a string");
    }
    lines
}

#[test]
fn no_field_value_or_method_changes_unless_it_is_meant() {
    let before = std::fs::read_to_string(file("contract.txt")).expect("the file is there");
    let now = with_levels(&contract(&pool()), &before);
    let settled = settled("contract.txt", &now);
    let gone: Vec<&str> = settled.lines().filter(|line| !now.lines().any(|l| l == *line)).collect();
    assert!(gone.is_empty(), "these were promised, and are gone or changed:\n{}", gone.join("\n"));
    let new: Vec<&str> = now.lines().filter(|line| !settled.lines().any(|l| l == *line)).collect();
    assert!(
        new.is_empty(),
        "these are new, and promised for ever once they are in contract.txt (COMPATIBILITY.md says what \
         they need):\n{}",
        new.join("\n")
    );
}

/// An older program stops at a field that it does not know: nobody may write one before all know it.
#[test]
fn each_persisted_field_came_with_a_level() {
    let settled = std::fs::read_to_string(file("contract.txt")).expect("the file is there");
    let mut fields = vec![0; FIELDS_OF_LEVELS.len()];
    for line in settled.lines().filter(|line| is_persisted(line)) {
        let level = line.split_once(LEVEL).and_then(|(_, level)| level.parse::<usize>().ok());
        let Some(fields) = level.and_then(|level| fields.get_mut(level.checked_sub(1)?)) else {
            panic!(
                "say in contract.txt with which level this field comes, write it at that level only, \
                 and count it in FIELDS_OF_LEVELS: {line}"
            )
        };
        *fields += 1;
    }
    assert_eq!(fields, FIELDS_OF_LEVELS, "a field belongs to the level that is not released yet");
}

#[test]
fn every_message_has_the_bytes_that_it_had_and_is_read_back() {
    let pool = pool();
    let now = golden(&pool);
    let settled = settled("golden.txt", &now);
    for line in settled.lines() {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        let message = pool.get_message_by_name(name).unwrap_or_else(|| panic!("{name} is gone"));
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits"))
            .collect();
        let read = DynamicMessage::decode(message.clone(), &bytes[..]).expect(name);
        assert_eq!(read.encode_to_vec(), bytes, "{name}");
        assert_eq!(unknown(&read), 0, "{name} has fields that nobody knows any more");
    }
    let new = now.lines().filter(|line| !settled.contains(*line)).collect::<Vec<_>>();
    assert!(new.is_empty(), "messages with new fields:\n{}", new.join("\n"));
}

/// Fields that were read and are not in the descriptors.
fn unknown(message: &DynamicMessage) -> usize {
    let nested = |value: &Value| match value {
        Value::Message(message) => unknown(message),
        Value::List(list) => list.iter().filter_map(Value::as_message).map(unknown).sum(),
        _ => 0,
    };
    message.unknown_fields().count()
        + message.fields().map(|(_, value)| nested(value)).sum::<usize>()
}

/// A message of one package in another would tie their promises together.
#[test]
fn the_packages_share_no_message() {
    for message in pool().all_messages() {
        let package = message.package_name().to_owned();
        assert!(package.starts_with("raft_host."), "{package}");
        for field in message.fields() {
            let used = match field.kind() {
                Kind::Message(used) => used.package_name().to_owned(),
                Kind::Enum(used) => used.package_name().to_owned(),
                _ => continue,
            };
            assert_eq!(used, package, "{}", field.full_name());
        }
    }
}

/// What is persisted by one version and read by another must not be told apart by luck.
#[test]
fn enums_begin_with_a_value_that_says_nothing() {
    for values in pool().all_enums() {
        let zero = values.default_value();
        let may_mean_something =
            ["raft_host.v1.Effect", "raft_host.v1.Consistency", "raft_host.peer.v1.EntryKind"];
        assert!(
            zero.name().ends_with("_UNSPECIFIED")
                || may_mean_something.contains(&values.full_name()),
            "{}",
            values.full_name()
        );
        assert_eq!(zero.number(), 0);
    }
}
