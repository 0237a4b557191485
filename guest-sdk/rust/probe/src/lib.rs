//! The probe of `guest-sdk/conformance/PROBE.md`.

use std::fmt::Write as _;

use raft_fsm_sdk::{
    Adopt, Answer, Check, Classes, Context, Global, Level, OldInstance, Reader, Rejection,
    StateMachine, Versions, Writer,
};

const MAGIC: &[u8; 4] = b"PRB1";
const NUMBER_MAX: usize = 16_777_216;
const RANDOM_MAX: usize = 1_024;
const COMMANDS: [&str; 12] = [
    "echo",
    "reject",
    "trap",
    "index",
    "time",
    "random",
    "emit",
    "emit-reject",
    "log",
    "set",
    "fill",
    "actor",
];

/// A byte string.
#[derive(Default)]
pub struct Probe {
    state: Vec<u8>,
}

impl StateMachine for Probe {
    fn apply(&mut self, context: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        let (word, text) = split(command);
        match word {
            b"emit" | b"emit-reject" => {
                let (topic, data) = split(text.ok_or("emit needs a topic")?);
                context.emit(topic, data.ok_or("emit needs a text")?);
                if word == b"emit-reject" { Err("no".into()) } else { Ok("".into()) }
            }
            b"log" => {
                let (level, line) = split(text.ok_or("log needs a level")?);
                let line = line.ok_or("log needs a text")?;
                context.log(level_of(level)?, String::from_utf8_lossy(line));
                Ok("".into())
            }
            b"set" => {
                self.state = text.unwrap_or_default().to_vec();
                Ok(self.state.len().to_string().into())
            }
            b"fill" => {
                self.state = (0..number(text)?).map(|i| (i % 251) as u8).collect();
                Ok(self.state.len().to_string().into())
            }
            _ => common(context, word, text),
        }
    }

    fn query(&self, context: &Context, query: &[u8]) -> Result<Answer, Rejection> {
        let (word, text) = split(query);
        match word {
            b"get" => Ok(self.state.clone().into()),
            b"length" => Ok(self.state.len().to_string().into()),
            b"checksum" => Ok(fnv1a(&self.state).to_string().into()),
            _ => common(context, word, text),
        }
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        out.bytes(MAGIC);
        out.sized(&self.state);
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Probe, Rejection> {
        let mut magic = [0; 4];
        input.fill(&mut magic)?;
        if &magic != MAGIC {
            return Err("not a snapshot of the probe".into());
        }
        let state = input.sized()?;
        input.end()?;
        Ok(Probe { state })
    }
}

impl Classes for Probe {
    fn classify(&self, _: &Context, command: &[u8]) -> Option<&'static str> {
        let (word, _) = split(command);
        COMMANDS.into_iter().find(|known| known.as_bytes() == word)
    }
}

impl Check for Probe {
    fn check(&self, _: &Context) -> Result<(), Rejection> {
        if self.state == b"broken" { Err("the state is broken".into()) } else { Ok(()) }
    }
}

impl Versions for Probe {
    const STATE_VERSION: &'static str = "probe/1";

    fn restores(_: &Context, version: &str) -> Result<(), Rejection> {
        match version {
            Probe::STATE_VERSION => Ok(()),
            _ => Err(["not a format of the probe: ", version].concat().into()),
        }
    }
}

/// Makes the state what there is of the old one: the module, the size of the memory, its first 16 bytes, and
/// types and bits of the first two globals.
impl Adopt for Probe {
    fn adopt(_: &Context, old: &OldInstance) -> Result<Probe, Rejection> {
        let mut state = old.module().to_vec();
        state.extend_from_slice(&old.size().to_le_bytes());
        state.extend_from_slice(&old.bytes(0, 16)?);
        for number in 0..2 {
            let (ty, bits) = match old.global(number) {
                None => (0xff, 0),
                Some(Global::I32(number)) => (0, number.into()),
                Some(Global::I64(number)) => (1, number.into()),
                Some(Global::F32(number)) => (2, number.to_bits().into()),
                Some(Global::F64(number)) => (3, number.to_bits().into()),
                Some(Global::V128(bits)) => (4, bits),
            };
            state.push(ty);
            state.extend_from_slice(&u128::to_le_bytes(bits));
        }
        Ok(Probe { state })
    }
}

raft_fsm_sdk::export!(Probe, classes, check, versions, adopt);

/// What commands and queries have in common.
fn common(context: &Context, word: &[u8], text: Option<&[u8]>) -> Result<Answer, Rejection> {
    match word {
        b"echo" => Ok(text.unwrap_or_default().to_vec().into()),
        b"reject" => Err(text.unwrap_or_default().to_vec().into()),
        b"trap" => panic!("the probe was asked to trap"),
        b"index" => Ok(context.index().to_string().into()),
        b"actor" => Ok(context.actor().unwrap_or_default().into()),
        b"time" => Ok(context.time_ms().to_string().into()),
        b"random" => {
            let count = number(text)?;
            if count > RANDOM_MAX {
                return Err("at most 1024 random bytes".into());
            }
            let mut bytes = vec![0; count];
            context.random(&mut bytes);
            let mut digits = String::with_capacity(2 * count);
            for byte in bytes {
                write!(digits, "{byte:02x}").map_err(Rejection::display)?;
            }
            Ok(digits.into())
        }
        _ => Err([b"unknown: ", word].concat().into()),
    }
}

fn split(input: &[u8]) -> (&[u8], Option<&[u8]>) {
    match input.iter().position(|byte| *byte == b' ') {
        Some(space) => (&input[..space], Some(&input[space + 1..])),
        None => (input, None),
    }
}

fn number(text: Option<&[u8]>) -> Result<usize, Rejection> {
    let digits = text.filter(|digits| !digits.is_empty()).ok_or("a number is missing")?;
    digits.iter().try_fold(0, |number, digit| {
        if !digit.is_ascii_digit() {
            return Err("not a decimal number".into());
        }
        match 10 * number + usize::from(digit - b'0') {
            number if number <= NUMBER_MAX => Ok(number),
            _ => Err(Rejection::display(format_args!("a number is at most {NUMBER_MAX}"))),
        }
    })
}

fn level_of(name: &[u8]) -> Result<Level, Rejection> {
    match name {
        b"error" => Ok(Level::Error),
        b"warn" => Ok(Level::Warn),
        b"info" => Ok(Level::Info),
        b"debug" => Ok(Level::Debug),
        _ => Err([b"there is no level ", name].concat().into()),
    }
}

/// FNV-1a of 32 bits.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_fsm_sdk::testing::Runner;

    #[test]
    fn the_state_survives_a_renewal() {
        let mut node = Runner::<Probe>::new();
        assert_eq!(node.apply_text("fill 100000").as_deref(), Ok("100000"));
        let mut renewed = Runner::<Probe>::restored(&node.snapshot()).unwrap();
        assert_eq!(renewed.query_text("length").as_deref(), Ok("100000"));
        assert_eq!(node.query_text("checksum"), renewed.query_text("checksum"));
        assert!(renewed.restore(b"PRB1\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn words_and_numbers_that_are_wrong_are_rejected() {
        let mut node = Runner::<Probe>::new();
        for (command, reason) in [
            ("", "unknown: "),
            ("dance now", "unknown: dance"),
            ("fill", "a number is missing"),
            ("fill x", "not a decimal number"),
            ("fill 16777217", "a number is at most 16777216"),
            ("log loud x", "there is no level loud"),
        ] {
            assert_eq!(node.apply_text(command), Err(reason.to_owned()), "{command}");
        }
    }
}
