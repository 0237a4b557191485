//! The budgets of a guest, and which of them make sense.

use serde::{Deserialize, Serialize};

/// Smallest native stack of a guest call.
pub const STACK_MIN_BYTES: u64 = 64 << 10;
/// Largest native stack of a guest call. Every thread that runs a guest must have more than this.
pub const STACK_MAX_BYTES: u64 = 8 << 20;

/// A page of linear memory, the unit in which it grows.
const PAGE_BYTES: u64 = 64 << 10;
/// All that a guest's 32-bit addresses reach.
const ADDRESSABLE_BYTES: u64 = 1 << 32;
/// Longest command: an entry of the log is never longer.
const INPUT_CEILING_BYTES: u64 = 32 << 20;
/// Longest answer: with what goes around it, it must fit into a gRPC message of 64 MiB.
const OUTPUT_CEILING_BYTES: u64 = 60 << 20;
/// Largest module: all of them are held in memory.
const MODULE_CEILING_BYTES: u64 = 1 << 30;
/// Most commands that are kept for a way back: they are in memory and in every snapshot.
const KEEP_CEILING_BYTES: u64 = 1 << 30;

/// Budgets of a guest: replicated state, because they decide outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Fuel for one `apply`. One unit is about one wasm instruction.
    pub apply_fuel: u64,
    /// Fuel for one `query`.
    pub query_fuel: u64,
    /// Fuel for `init`, `_initialize` and `_start` together.
    pub init_fuel: u64,
    /// Fuel for one `snapshot`.
    pub snapshot_fuel: u64,
    /// Fuel for one `restore`.
    pub restore_fuel: u64,
    /// Most linear memory a guest may have, in bytes (a multiple of 64 KiB).
    pub memory_max_bytes: u64,
    /// Native stack of a guest call, in bytes.
    pub stack_max_bytes: u64,
    /// Longest command or query, in bytes.
    pub input_max_bytes: u64,
    /// Longest answer of `apply` or `query`, in bytes.
    pub output_max_bytes: u64,
    /// Longest portable snapshot, in bytes.
    pub snapshot_max_bytes: u64,
    /// Most events of one command.
    pub events_max: u32,
    /// Most bytes (topics and data) of all events of one command.
    pub events_max_bytes: u64,
    /// Most log lines of one call; further ones are dropped, which changes no outcome.
    pub log_lines_max: u32,
    /// Largest wasm module, in bytes.
    pub module_max_bytes: u64,
    /// Most bytes of commands, with their answers, that are kept for a way back from an activation, or
    /// for a module that is to take over. With more, there is no way back, or no module that takes over.
    pub upgrade_keep_bytes: u64,
    /// How long module and state from before an activation are kept, in milliseconds of the log's
    /// clock. 0: they are not.
    pub upgrade_keep_ms: u64,
    /// Fuel for all commands together that an instance executes in an activation: those since a
    /// fork, or since what is gone back to.
    pub activation_fuel: u64,
}

macro_rules! changes {
    ($($variant:ident: $field:ident: $number:ty),* $(,)?) => {
        /// One limit and its new value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum LimitChange {
            $(
                #[doc = concat!("See [`Limits::", stringify!($field), "`].")]
                $variant($number),
            )*
        }

        impl Limits {
            /// The limits after changes, which are taken in order.
            #[must_use]
            pub fn changed(&self, changes: &[LimitChange]) -> Limits {
                let mut limits = self.clone();
                for change in changes {
                    match *change {
                        $(LimitChange::$variant(value) => limits.$field = value,)*
                    }
                }
                limits
            }
        }
    };
}

changes! {
    ApplyFuel: apply_fuel: u64,
    QueryFuel: query_fuel: u64,
    InitFuel: init_fuel: u64,
    SnapshotFuel: snapshot_fuel: u64,
    RestoreFuel: restore_fuel: u64,
    MemoryMaxBytes: memory_max_bytes: u64,
    StackMaxBytes: stack_max_bytes: u64,
    InputMaxBytes: input_max_bytes: u64,
    OutputMaxBytes: output_max_bytes: u64,
    SnapshotMaxBytes: snapshot_max_bytes: u64,
    EventsMax: events_max: u32,
    EventsMaxBytes: events_max_bytes: u64,
    LogLinesMax: log_lines_max: u32,
    ModuleMaxBytes: module_max_bytes: u64,
    UpgradeKeepBytes: upgrade_keep_bytes: u64,
    UpgradeKeepMs: upgrade_keep_ms: u64,
    ActivationFuel: activation_fuel: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            apply_fuel: 1_000_000_000,
            // While any of these runs, no command does. So all end within seconds; whoever has a state
            // that takes longer to hand over raises them for it.
            query_fuel: 1_000_000_000,
            init_fuel: 10_000_000_000,
            snapshot_fuel: 10_000_000_000,
            restore_fuel: 10_000_000_000,
            memory_max_bytes: 1 << 30,
            stack_max_bytes: 1 << 20,
            input_max_bytes: 1 << 20,
            output_max_bytes: 4 << 20,
            // Every node holds one beside two guests during an activation.
            snapshot_max_bytes: 256 << 20,
            events_max: 1024,
            events_max_bytes: 1 << 20,
            log_lines_max: 64,
            module_max_bytes: 64 << 20,
            upgrade_keep_bytes: 64 << 20,
            upgrade_keep_ms: 3_600_000,
            activation_fuel: 100_000_000_000,
        }
    }
}

impl Limits {
    /// Longest answer that any valid limits allow.
    pub const OUTPUT_CEILING_BYTES: u64 = OUTPUT_CEILING_BYTES;
    /// Most that `input_max_bytes` may ever be.
    pub const INPUT_CEILING_BYTES: u64 = INPUT_CEILING_BYTES;

    /// Each with its name, in the order of the fields.
    pub(super) fn by_name(&self) -> [(&'static str, u64); 17] {
        macro_rules! named {
            ($($field:ident),*) => {{
                let Limits { $($field),* } = self;
                [$((stringify!($field), u64::from(*$field))),*]
            }};
        }
        named!(
            apply_fuel,
            query_fuel,
            init_fuel,
            snapshot_fuel,
            restore_fuel,
            memory_max_bytes,
            stack_max_bytes,
            input_max_bytes,
            output_max_bytes,
            snapshot_max_bytes,
            events_max,
            events_max_bytes,
            log_lines_max,
            module_max_bytes,
            upgrade_keep_bytes,
            upgrade_keep_ms,
            activation_fuel
        )
    }

    /// Checks each limit by itself. It decides what an entry does, so what it accepts must never
    /// change while there are logs that hold such entries.
    ///
    /// # Errors
    /// Every limit that cannot be, each in a sentence that names it.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let fuel = (1, u64::MAX);
        let bounds = [
            ("apply_fuel", self.apply_fuel, fuel),
            ("query_fuel", self.query_fuel, fuel),
            ("init_fuel", self.init_fuel, fuel),
            ("snapshot_fuel", self.snapshot_fuel, fuel),
            ("restore_fuel", self.restore_fuel, fuel),
            ("memory_max_bytes", self.memory_max_bytes, (PAGE_BYTES, ADDRESSABLE_BYTES)),
            ("stack_max_bytes", self.stack_max_bytes, (STACK_MIN_BYTES, STACK_MAX_BYTES)),
            ("input_max_bytes", self.input_max_bytes, (1, INPUT_CEILING_BYTES)),
            ("output_max_bytes", self.output_max_bytes, (1, OUTPUT_CEILING_BYTES)),
            ("snapshot_max_bytes", self.snapshot_max_bytes, (1, ADDRESSABLE_BYTES)),
            ("events_max_bytes", self.events_max_bytes, (0, OUTPUT_CEILING_BYTES)),
            ("module_max_bytes", self.module_max_bytes, (1, MODULE_CEILING_BYTES)),
            ("upgrade_keep_bytes", self.upgrade_keep_bytes, (0, KEEP_CEILING_BYTES)),
            ("activation_fuel", self.activation_fuel, fuel),
        ];
        let mut problems: Vec<String> = bounds
            .into_iter()
            .filter(|(_, value, (min, max))| value < min || value > max)
            .map(|(name, value, (min, max))| match max {
                u64::MAX => format!("{name} is {value}, but must be at least {min}"),
                _ => format!("{name} is {value}, but must be from {min} to {max}"),
            })
            .collect();
        if !self.memory_max_bytes.is_multiple_of(PAGE_BYTES) {
            problems.push(format!(
                "memory_max_bytes is {}, but must be a multiple of {PAGE_BYTES} (64 KiB)",
                self.memory_max_bytes
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(limits: &Limits) -> String {
        limits.validate().expect_err("must be refused").join("; ")
    }

    #[test]
    fn the_defaults_and_the_extremes_are_valid() {
        Limits::default().validate().expect("valid");
        let least = Limits {
            apply_fuel: 1,
            query_fuel: 1,
            init_fuel: 1,
            snapshot_fuel: 1,
            restore_fuel: 1,
            memory_max_bytes: 64 << 10,
            stack_max_bytes: 64 << 10,
            input_max_bytes: 1,
            output_max_bytes: 1,
            snapshot_max_bytes: 1,
            events_max: 0,
            events_max_bytes: 0,
            log_lines_max: 0,
            module_max_bytes: 1,
            upgrade_keep_bytes: 0,
            upgrade_keep_ms: 0,
            activation_fuel: 1,
        };
        least.validate().expect("valid");
        let most = Limits {
            apply_fuel: u64::MAX,
            memory_max_bytes: 4 << 30,
            stack_max_bytes: 8 << 20,
            events_max: u32::MAX,
            log_lines_max: u32::MAX,
            ..Limits::default()
        };
        most.validate().expect("valid");
    }

    #[test]
    fn every_limit_that_cannot_be_is_named() {
        let limits = Limits {
            apply_fuel: 0,
            memory_max_bytes: 100_000,
            stack_max_bytes: 9 << 20,
            output_max_bytes: u64::MAX,
            ..Limits::default()
        };
        assert_eq!(
            problems(&limits),
            "apply_fuel is 0, but must be at least 1; \
             stack_max_bytes is 9437184, but must be from 65536 to 8388608; \
             output_max_bytes is 18446744073709551615, but must be from 1 to 62914560; \
             memory_max_bytes is 100000, but must be a multiple of 65536 (64 KiB)"
        );
        let limits = Limits { memory_max_bytes: 0, ..Limits::default() };
        assert_eq!(
            problems(&limits),
            "memory_max_bytes is 0, but must be from 65536 to 4294967296"
        );
    }
}
