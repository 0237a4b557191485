//! A small deterministic state machine whose modules say in text how they misbehave:
//! `test`, then any of `init=reject`, `snapshot=trap`, `restore=reject`, `noquery`, `v=2`, ….
//!
//! Its state is every command that it took; a command's first word says what it does.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::fsm::{
    Call, Context, Fsm, FsmLoader, GuestResult, HostFailure, Image, ImageError, Limits,
    ModuleRefused, SharedLoader, Trap,
};
use crate::types::{Event, ModuleHash, TrapKind};

/// Makes [`TestFsm`]s.
pub(super) struct TestLoader;

pub(super) fn loader() -> SharedLoader {
    Arc::new(TestLoader)
}

struct TestFsm {
    text: String,
    hash: ModuleHash,
    taken: Vec<u8>,
}

impl FsmLoader for TestLoader {
    fn check(
        &self,
        module: &[u8],
        _limits: &Limits,
    ) -> Result<Result<(), ModuleRefused>, HostFailure> {
        Ok(parse(module).map(drop))
    }

    fn instantiate(
        &self,
        module: &[u8],
        _limits: &Limits,
        _context: Context,
    ) -> Result<Result<Box<dyn Fsm>, ModuleRefused>, HostFailure> {
        Ok(parse(module).map(|text| -> Box<dyn Fsm> {
            Box::new(TestFsm { text, hash: ModuleHash::of(module), taken: Vec::new() })
        }))
    }
}

fn parse(module: &[u8]) -> Result<String, ModuleRefused> {
    match std::str::from_utf8(module) {
        Ok(text) if text.starts_with("test") => Ok(text.to_owned()),
        _ => Err(ModuleRefused("not a test module".to_owned())),
    }
}

impl TestFsm {
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
        Call { result, fuel_used: 7, events: Vec::new() }
    }
}

impl Fsm for TestFsm {
    fn module(&self) -> ModuleHash {
        self.hash
    }

    fn init(&mut self, context: Context) -> Result<Call, HostFailure> {
        let mut call = self.call("init", |fsm| {
            fsm.taken.extend(format!("init@{};", context.index).into_bytes());
            Vec::new()
        });
        if matches!(call.result, GuestResult::Ok(_)) {
            call.events.push(Event { topic: b"init".to_vec(), data: Vec::new() });
        }
        Ok(call)
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Result<Call, HostFailure> {
        let mut events = Vec::new();
        let result = match command {
            b"trap" => GuestResult::Trapped(Trap {
                kind: TrapKind::Unreachable,
                message: "backtrace".to_owned(),
            }),
            b"reject" => GuestResult::Rejected(b"no".to_vec()),
            b"host" => return Err(HostFailure("disk on fire".to_owned())),
            _ => {
                if command == b"emit" {
                    events.push(Event { topic: b"emitted".to_vec(), data: command.to_vec() });
                }
                self.taken.extend_from_slice(command);
                let stamp = format!("@{},{};", context.index, context.time_ms);
                self.taken.extend_from_slice(stamp.as_bytes());
                GuestResult::Ok(self.taken.clone())
            }
        };
        Ok(Call { result, fuel_used: self.taken.len() as u64 + 1, events })
    }

    fn query(&mut self, context: Context, query: &[u8]) -> Result<Call, HostFailure> {
        let result = match query {
            b"trap" => {
                GuestResult::Trapped(Trap { kind: TrapKind::OutOfFuel, message: "slow".to_owned() })
            }
            _ => GuestResult::Ok([format!("{}:", context.index).as_bytes(), &self.taken].concat()),
        };
        Ok(Call { result, fuel_used: 3, events: Vec::new() })
    }

    fn has_query(&self) -> bool {
        !self.text.contains("noquery")
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

    fn capture(&mut self) -> Result<Box<dyn Image>, HostFailure> {
        Ok(Box::new(TestImage(self.taken.clone())))
    }

    fn load_image(&mut self, image: &mut dyn Read) -> Result<(), ImageError> {
        let mut taken = Vec::new();
        image.read_to_end(&mut taken)?;
        self.taken = taken;
        Ok(())
    }
}

struct TestImage(Vec<u8>);

impl Image for TestImage {
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.0)
    }
}
