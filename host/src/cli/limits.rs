//! `raft-host limits`: the budgets of the state machine, and changing them.

use clap::{Args, Subcommand};
use raft_host_proto::v1;
use raft_host_proto::v1::limit_change::Limit;
use serde_json::{Map, Value, json};

use super::exit::{Ended, Exit};
use super::output::{Output, human_bytes, human_count, print_json, print_text, table};
use super::remote::{self, RemoteArgs};

/// Shows and changes the budgets of the state machine: fuel, memory, sizes.
#[derive(Args, Clone, Debug)]
#[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
pub(super) struct LimitsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Shows the limits (the default).
    Show,
    /// Changes limits on all nodes at the same index of the log; the others stay as they are.
    ///
    /// All or none: limits under which the running module or its state would not fit are refused
    /// with the reason.
    Set {
        /// A limit, as `raft-host limits` lists it, and its value: 5000000, 5_000_000 or, for
        /// what is counted in bytes, 64KiB, 512MiB, 2GiB.
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = parse_change)]
        changes: Vec<Limit>,
    },
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Fuel,
    Bytes,
    Count,
}

/// A limit as the command line knows it.
struct Known {
    name: &'static str,
    unit: Unit,
    read: fn(&v1::Limits) -> u64,
    /// None: the value is out of the range of its type.
    change: fn(u64) -> Option<Limit>,
}

macro_rules! known {
    ($($name:ident: $variant:ident, $unit:ident;)*) => {
        [$(Known {
            name: stringify!($name),
            unit: Unit::$unit,
            read: |limits| limits.$name.into(),
            change: |value| value.try_into().ok().map(Limit::$variant),
        }),*]
    };
}

/// In the order in which they are listed.
const LIMITS: [Known; 17] = known! {
    apply_fuel: ApplyFuel, Fuel;
    query_fuel: QueryFuel, Fuel;
    init_fuel: InitFuel, Fuel;
    snapshot_fuel: SnapshotFuel, Fuel;
    restore_fuel: RestoreFuel, Fuel;
    memory_max_bytes: MemoryMaxBytes, Bytes;
    stack_max_bytes: StackMaxBytes, Bytes;
    input_max_bytes: InputMaxBytes, Bytes;
    output_max_bytes: OutputMaxBytes, Bytes;
    snapshot_max_bytes: SnapshotMaxBytes, Bytes;
    events_max: EventsMax, Count;
    events_max_bytes: EventsMaxBytes, Bytes;
    log_lines_max: LogLinesMax, Count;
    module_max_bytes: ModuleMaxBytes, Bytes;
    upgrade_keep_bytes: UpgradeKeepBytes, Bytes;
    upgrade_keep_ms: UpgradeKeepMs, Count;
    activation_fuel: ActivationFuel, Fuel;
};

pub(super) fn run(args: &LimitsArgs) -> Ended {
    match &args.action {
        None | Some(Action::Show) => show(&args.remote),
        Some(Action::Set { changes }) => set(&args.remote, changes),
    }
}

fn show(remote: &RemoteArgs) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        client.limits().await.map_err(|error| remote::failed_question(&error))
    })?;
    let limits = answer.limits.unwrap_or_default();
    match remote.output {
        Output::Json => print_json(&json!({
            "applied_index": answer.applied_index,
            "limits": to_json(&limits),
            "running_memory_bytes": answer.running_memory_bytes,
            "activation_memory_bytes": answer.activation_memory_bytes,
            "machine_memory_bytes": answer.machine_memory_bytes,
            "memory_warning": answer.memory_warning,
        }))?,
        Output::Table => print_text(&shown(&answer))?,
    }
    Ok(Exit::Done)
}

fn set(remote: &RemoteArgs, changes: &[Limit]) -> Ended {
    let answer = remote::block_on(async {
        let client = remote.client().await?;
        client.set_limits(changes.to_vec()).await.map_err(|error| remote::failure(&error))
    })
    .map_err(|failure| failure.about("the change of limits"))?;
    let limits = answer.limits.unwrap_or_default();
    let previous = answer.previous.unwrap_or_default();
    match remote.output {
        Output::Json => print_json(&json!({
            "index": answer.index,
            "limits": to_json(&limits),
            "previous": to_json(&previous),
            "memory_warning": answer.memory_warning,
        }))?,
        Output::Table => {
            let changed = changed(answer.index, &previous, &limits);
            print_text(&with_warning(changed, &answer.memory_warning))?;
        }
    }
    Ok(Exit::Done)
}

/// Reads `NAME=VALUE`.
fn parse_change(text: &str) -> Result<Limit, String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} has no value: write NAME=VALUE"))?;
    if name == "engine" {
        return Err(
            "the engine profile is no limit: `raft-host engine set PROFILE` changes it".into()
        );
    }
    let Some(known) = LIMITS.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = LIMITS.iter().map(|known| known.name).collect();
        return Err(format!("there is no limit {name:?}; there are {}", names.join(", ")));
    };
    let number = parse_value(value, known.unit)?;
    (known.change)(number).ok_or_else(|| format!("{value:?} is too large for {name}"))
}

/// Reads `5000000`, `5_000_000` and, for bytes, `64KiB`, `512 MiB`, `2GiB`.
fn parse_value(text: &str, unit: Unit) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let shift = match (suffix.trim(), unit) {
        ("", _) => Some(0),
        ("B", Unit::Bytes) => Some(0),
        ("KiB", Unit::Bytes) => Some(10),
        ("MiB", Unit::Bytes) => Some(20),
        ("GiB", Unit::Bytes) => Some(30),
        _ => None,
    };
    let number = digits.replace('_', "").parse::<u64>().ok();
    let value = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    value.ok_or_else(|| match unit {
        Unit::Bytes => format!("{text:?} is not a size: write 65536, 64KiB, 512MiB or 2GiB"),
        Unit::Fuel | Unit::Count => format!("{text:?} is not a number: write 5000000 or 5_000_000"),
    })
}

/// `1,000,000`, `1,073,741,824 (1.0 GiB)`.
fn value_text(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes if value >= 1024 => format!("{} ({})", human_count(value), human_bytes(value)),
        Unit::Bytes => format!("{value} B"),
        Unit::Fuel | Unit::Count => human_count(value),
    }
}

fn to_text(limits: &v1::Limits) -> String {
    let rows: Vec<Vec<String>> = LIMITS
        .iter()
        .map(|known| vec![known.name.to_owned(), value_text((known.read)(limits), known.unit)])
        .collect();
    table(&["limit", "value"], &rows)
}

fn shown(answer: &v1::LimitsResponse) -> String {
    let mut text = to_text(&answer.limits.unwrap_or_default());
    // A version before this one does not say.
    if answer.activation_memory_bytes > 0 {
        text.push_str(&format!(
            "\n\nmemory  the guest takes up to {}, an activation {}",
            human_bytes(answer.running_memory_bytes),
            human_bytes(answer.activation_memory_bytes)
        ));
    }
    if answer.machine_memory_bytes > 0 {
        let machine = human_bytes(answer.machine_memory_bytes);
        text.push_str(&format!("; the machine of the node that answers has {machine}"));
    }
    with_warning(text, &answer.memory_warning)
}

fn with_warning(text: String, warning: &str) -> String {
    match warning {
        "" => text,
        warning => format!("{text}\nwarning: {warning}"),
    }
}

fn changed(index: u64, previous: &v1::Limits, limits: &v1::Limits) -> String {
    let changes: Vec<String> = LIMITS
        .iter()
        .filter(|known| (known.read)(previous) != (known.read)(limits))
        .map(|known| {
            let text = |limits| value_text((known.read)(limits), known.unit);
            format!("\n  {}: {}, was {}", known.name, text(limits), text(previous))
        })
        .collect();
    match changes.is_empty() {
        true => "the limits had these values already".to_owned(),
        false => format!("changed at index {index}, from the next entry on:{}", changes.concat()),
    }
}

fn to_json(limits: &v1::Limits) -> Value {
    let fields: Map<String, Value> =
        LIMITS.iter().map(|known| (known.name.to_owned(), (known.read)(limits).into())).collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{changes_from_wire, limits_to_wire};
    use crate::fsm;

    #[test]
    fn the_limits_are_those_of_the_configuration_each_under_its_name() {
        let defaults = fsm::Limits::default();
        let configuration = serde_json::to_value(&defaults).expect("numbers");
        assert_eq!(to_json(&limits_to_wire(&defaults)), configuration);
        for known in &LIMITS {
            let change = parse_change(&format!("{}=77", known.name)).expect("valid");
            let changes = [v1::LimitChange { limit: Some(change) }];
            let changes = changes_from_wire(&changes).expect("known");
            let limits = defaults.changed(&changes);
            let mut expected = configuration.clone();
            expected[known.name] = 77.into();
            assert_eq!(serde_json::to_value(&limits).expect("numbers"), expected);
        }
    }

    #[test]
    fn values_are_numbers_or_sizes() {
        assert_eq!(parse_change("apply_fuel=5_000_000"), Ok(Limit::ApplyFuel(5_000_000)));
        assert_eq!(parse_change("memory_max_bytes=512MiB"), Ok(Limit::MemoryMaxBytes(512 << 20)));
        assert_eq!(parse_change("input_max_bytes=64 KiB"), Ok(Limit::InputMaxBytes(64 << 10)));
        assert_eq!(parse_change("output_max_bytes=9B"), Ok(Limit::OutputMaxBytes(9)));
        assert_eq!(parse_change("events_max=0"), Ok(Limit::EventsMax(0)));
        for (text, words) in [
            ("apply_fuel", "write NAME=VALUE"),
            ("apply_fuel=", "is not a number"),
            ("apply_fuel=1MiB", "is not a number"),
            ("apply_fuel=-1", "is not a number"),
            ("memory_max_bytes=1.5GiB", "is not a size"),
            ("memory_max_bytes=1GB", "is not a size"),
            ("memory_max_bytes=99999999999999GiB", "is not a size"),
            ("events_max=4294967296", "too large for events_max"),
            ("engine=v1/wasmtime-48/crc-0", "`raft-host engine set PROFILE` changes it"),
            ("aply_fuel=1", "there is no limit \"aply_fuel\"; there are apply_fuel, query_fuel,"),
        ] {
            let message = parse_change(text).expect_err(text);
            assert!(message.contains(words), "{message:?} should contain {words:?}");
        }
    }

    #[test]
    fn people_read_what_changed_and_from_what() {
        let previous = limits_to_wire(&fsm::Limits::default());
        let limits = v1::Limits { apply_fuel: 5_000, memory_max_bytes: 2 << 30, ..previous };
        assert_eq!(
            changed(12, &previous, &limits),
            "changed at index 12, from the next entry on:\
             \n  apply_fuel: 5,000, was 1,000,000,000\
             \n  memory_max_bytes: 2,147,483,648 (2.0 GiB), was 1,073,741,824 (1.0 GiB)"
        );
        assert!(changed(12, &limits, &limits).contains("already"));
        let text = to_text(&limits);
        assert!(text.starts_with("LIMIT"), "{text}");
        assert!(text.contains("events_max          1,024\n"), "{text}");
    }
}
