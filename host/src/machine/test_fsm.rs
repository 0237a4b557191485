//! A small deterministic state machine whose modules say in text how they misbehave:
//! `test`, then any of `init=reject`, `snapshot=trap`, `restore=reject`, `noquery`, `classes`, `v=2`, …;
//! `twist`: it does something else with commands; `names=A`: that is what it calls its format; `takes=A`: it
//! restores no other one; `adopts`: it takes over memory.
//!
//! Its state is every command that it took; a command's first word says what it does. Of the
//! limits it knows the size of a module, `apply_fuel` (one unit for each byte of its state) and
//! the memory (likewise).

use std::any::Any;
use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::Arc;

use crate::fsm::{
    Call, Context, EngineProfile, Fsm, FsmLoader, GuestDigest, GuestResult, HostFailure, Image,
    ImageError, Limits, ModuleRefused, QueryError, SharedLoader, Trap, Unanswered,
};
use crate::types::{Event, ModuleHash, StateDigest, TrapKind};

/// Longest stamp that a command gets: two numbers and three marks.
const STAMP_MAX_BYTES: usize = 43;

thread_local! {
    /// What comes out of the commands `whim-answer`, `whim-fuel` and `whim-event`, which leave the
    /// state alone: as if a host had a say in it.
    pub(super) static WHIM: Cell<u64> = const { Cell::new(0) };
}

/// Makes [`TestFsm`]s.
pub(super) struct TestLoader;

pub(super) fn loader() -> SharedLoader {
    Arc::new(TestLoader)
}

struct TestFsm {
    text: String,
    hash: ModuleHash,
    limits: Limits,
    taken: Vec<u8>,
}

impl FsmLoader for TestLoader {
    fn engine(&self) -> EngineProfile {
        EngineProfile::first()
    }

    fn check(
        &self,
        module: &[u8],
        limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        Ok(parse(module, limits).map(drop))
    }

    fn instantiate(
        &self,
        module: &[u8],
        limits: &Limits,
        _context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        Ok(parse(module, limits).map(|text| -> Box<dyn Fsm> {
            let limits = limits.clone();
            Box::new(TestFsm { text, hash: ModuleHash::of(module), limits, taken: Vec::new() })
        }))
    }
}

fn parse(module: &[u8], limits: &Limits) -> Result<String, ModuleRefused> {
    match std::str::from_utf8(module) {
        _ if module.len() as u64 > limits.module_max_bytes => {
            Err(ModuleRefused("too large a test module".to_owned()))
        }
        Ok(text) if text.starts_with("test") => Ok(text.to_owned()),
        _ => Err(ModuleRefused("not a test module".to_owned())),
    }
}

impl TestFsm {
    /// What the module's text says of `what`.
    fn says(&self, what: &str) -> Option<&str> {
        self.text.split(' ').find_map(|word| word.strip_prefix(what)?.strip_prefix('='))
    }

    /// Fails as the module's text says about `what`, or does `work`.
    fn call(&mut self, what: &str, work: impl FnOnce(&mut TestFsm) -> Vec<u8>) -> Call {
        let says = |how: &str| self.text.split(' ').any(|word| word == format!("{what}={how}"));
        let result = if says("trap") {
            GuestResult::Trapped(Trap { kind: TrapKind::OutOfFuel, message: what.to_owned() })
        } else if says("reject") {
            GuestResult::Rejected(format!("{what} says no").into_bytes())
        } else {
            GuestResult::Ok(work(self))
        };
        Call { result, fuel_used: 7, events: Vec::new(), pages_dirtied: None }
    }
}

impl Fsm for TestFsm {
    fn module(&self) -> ModuleHash {
        self.hash
    }

    fn init(&mut self, context: Context) -> Result<Call, HostFailure> {
        let mut call = self.call("init", |fsm| {
            fsm.taken.extend(format!("init@{};", context.position).into_bytes());
            Vec::new()
        });
        if matches!(call.result, GuestResult::Ok(_)) {
            call.events.push(Event { topic: b"init".to_vec(), data: Vec::new() });
        }
        Ok(call)
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        let mut events = Vec::new();
        let whim = WHIM.get();
        let mut fuel_used = self.taken.len() as u64 + 1;
        let result = match command {
            b"whim-answer" => GuestResult::Ok(whim.to_le_bytes().to_vec()),
            b"whim-fuel" => {
                fuel_used += whim;
                GuestResult::Ok(Vec::new())
            }
            b"whim-event" => {
                events.push(Event { topic: Vec::new(), data: whim.to_le_bytes().to_vec() });
                GuestResult::Ok(Vec::new())
            }
            b"trap" => GuestResult::Trapped(Trap {
                kind: TrapKind::Unreachable,
                message: "backtrace".to_owned(),
            }),
            b"reject" => GuestResult::Rejected(b"no".to_vec()),
            b"host" => return Err(HostFailure("disk on fire".to_owned())),
            _ if self.limits.apply_fuel <= self.taken.len() as u64 => {
                GuestResult::Trapped(Trap { kind: TrapKind::OutOfFuel, message: "fuel".to_owned() })
            }
            _ if (self.taken.len() + command.len() + STAMP_MAX_BYTES) as u64
                > self.limits.memory_max_bytes =>
            {
                let message = "memory".to_owned();
                GuestResult::Trapped(Trap { kind: TrapKind::OutOfBounds, message })
            }
            _ => {
                if command == b"emit" {
                    events.push(Event { topic: b"emitted".to_vec(), data: command.to_vec() });
                }
                self.taken.extend_from_slice(command);
                if self.text.contains("twist") {
                    self.taken.push(b'!');
                }
                let by = match context.actor.is_none() {
                    true => String::new(),
                    false => format!(" by {}", context.actor),
                };
                let stamp = format!("@{},{}{by};", context.position, context.time_ms);
                self.taken.extend_from_slice(stamp.as_bytes());
                fuel_used = self.taken.len() as u64 + 1;
                GuestResult::Ok(self.taken.clone())
            }
        };
        Ok(Call { result, fuel_used, events, pages_dirtied: None })
    }

    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, QueryError> {
        let result = match query {
            b"trap" => {
                GuestResult::Trapped(Trap { kind: TrapKind::OutOfFuel, message: "slow".to_owned() })
            }
            b"short" => return Err(Unanswered("no memory".to_owned()).into()),
            b"host" => return Err(HostFailure("disk on fire".to_owned()).into()),
            _ => {
                GuestResult::Ok([format!("{}:", context.position).as_bytes(), &self.taken].concat())
            }
        };
        Ok(Call { result, fuel_used: 3, events: Vec::new(), pages_dirtied: None })
    }

    fn has_query(&self) -> bool {
        !self.text.contains("noquery")
    }

    fn has_classes(&self) -> bool {
        self.text.contains("classes")
    }

    /// A command's first word is its class.
    fn classify(&mut self, _context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        let class = command.split(|byte| *byte == b' ').next().unwrap_or_default();
        let result = match class {
            b"trap" => {
                GuestResult::Trapped(Trap { kind: TrapKind::OutOfFuel, message: "slow".to_owned() })
            }
            class => GuestResult::Ok(class.to_vec()),
        };
        Ok(Call { result, fuel_used: 5, events: Vec::new(), pages_dirtied: None })
    }

    fn snapshot(&mut self, _context: Context) -> Result<Call, HostFailure> {
        Ok(self.call("snapshot", |fsm| fsm.taken.clone()))
    }

    fn restore(&mut self, _context: Context, snapshot: &[u8]) -> Result<Call, HostFailure> {
        Ok(self.call("restore", |fsm| {
            fsm.taken = snapshot.to_vec();
            Vec::new()
        }))
    }

    fn state_version(&mut self, _context: Context) -> Result<Call, HostFailure> {
        let name = self.says("names").unwrap_or_default().as_bytes().to_vec();
        Ok(Call { result: GuestResult::Ok(name), fuel_used: 2, ..Call::nothing() })
    }

    fn restores(&mut self, _context: Context, version: &[u8]) -> Result<Call, HostFailure> {
        let result = match self.says("takes").is_none_or(|takes| takes.as_bytes() == version) {
            true => GuestResult::Ok(Vec::new()),
            false => GuestResult::Rejected(b"too old".to_vec()),
        };
        Ok(Call { result, fuel_used: 4, ..Call::nothing() })
    }

    fn has_take_over(&self) -> bool {
        self.text.contains("adopts")
    }

    fn take_over(&mut self, _context: Context, from: &dyn Image) -> Result<Call, HostFailure> {
        let mut memory = Vec::new();
        from.write_to(&mut memory).expect("into memory");
        Ok(self.call("adopt", |fsm| {
            fsm.taken = [b"adopted;", &memory[..]].concat();
            Vec::new()
        }))
    }

    fn digest(&mut self) -> Result<GuestDigest, HostFailure> {
        let digest = StateDigest(ModuleHash::of(&self.taken).0);
        Ok(GuestDigest { digest, changed: std::iter::once(0..self.taken.len() as u64).collect() })
    }

    #[cfg(feature = "museum")]
    fn flip_bit(&mut self, at: u64) {
        let len = self.taken.len() as u64;
        if let Some(at) = at.checked_rem(len) {
            self.taken[at as usize] ^= 1;
        }
    }

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        Ok(Box::new(TestImage(self.taken.clone())))
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        let mut taken = Vec::new();
        image.read_to_end(&mut taken)?;
        self.adopt(&TestImage(taken))
    }

    fn adopt(&mut self, image: &dyn Image) -> Result<(), ImageError> {
        let image: &dyn Any = image;
        let TestImage(taken) = image.downcast_ref().expect("this room has only test images");
        if taken.len() as u64 > self.limits.memory_max_bytes {
            return Err(ImageError::Invalid("too much was taken".to_owned()));
        }
        self.taken.clone_from(taken);
        Ok(())
    }
}

struct TestImage(Vec<u8>);

impl Image for TestImage {
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.0)
    }
}
