//! The life of an instance, seen through the runner.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::testing::{Event, Runner, START_TIME_MS};
use crate::{
    Adopt, Answer, Check, Classes, Context, Global, Level, OldInstance, Reader, Rejection,
    StateMachine, Versions, Writer,
};

/// Keeps lines; `!` misbehaves on purpose.
#[derive(Default, Debug)]
struct Lines {
    lines: Vec<Vec<u8>>,
    founded_at: u64,
}

impl StateMachine for Lines {
    fn init(&mut self, context: &Context) -> Result<(), Rejection> {
        self.founded_at = context.index();
        context.emit("founded", "");
        Ok(())
    }

    fn apply(&mut self, context: &Context, command: &[u8]) -> Result<Answer, Rejection> {
        context.emit("line", command);
        match command {
            b"" => Err("a line must not be empty".into()),
            b"!" => {
                self.lines.push(Vec::new());
                Err("changed, and yet rejected".into())
            }
            b"now" => Ok(Answer::from(context.time_ms().to_le_bytes().to_vec())),
            b"actor" => Ok(context.actor().map_or("nobody".into(), Answer::from)),
            b"random" => Ok(Answer::from(context.random_u64().to_le_bytes().to_vec())),
            line => {
                context.log(Level::Info, "a line more");
                self.lines.push(line.to_vec());
                Ok("kept".into())
            }
        }
    }

    fn snapshot(&self, _: &Context, out: &mut Writer) {
        out.u8(1);
        out.u64(self.founded_at);
        for line in &self.lines {
            out.sized(line);
        }
    }

    fn restore(_: &Context, input: &mut Reader) -> Result<Lines, Rejection> {
        if input.u8()? != 1 {
            return Err("a snapshot of an unknown version".into());
        }
        let founded_at = input.u64()?;
        let mut lines = Vec::new();
        while input.remaining() > 0 {
            lines.push(input.sized()?);
        }
        Ok(Lines { lines, founded_at })
    }
}

impl Classes for Lines {
    fn classify(&self, context: &Context, command: &[u8]) -> Option<&'static str> {
        match command {
            b"now" | b"random" => Some("asking"),
            b"mine" if context.actor().as_deref() == Some("alice") => Some("alices"),
            b"next" if context.index() == 2 => Some("second"),
            _ => None,
        }
    }
}

impl Check for Lines {
    fn check(&self, _: &Context) -> Result<(), Rejection> {
        match self.lines.iter().position(|line| line == b"broken") {
            Some(at) => Err(Rejection::display(format_args!("line {at} is broken"))),
            None => Ok(()),
        }
    }
}

impl Versions for Lines {
    const STATE_VERSION: &'static str = "lines/2";
    const RESTORES: &'static [&'static str] = &["lines/1", "lines/2"];
}

/// Of a module that kept pointer and length of each line from 16 on, and their number in a global.
impl Adopt for Lines {
    fn adopt(context: &Context, old: &OldInstance) -> Result<Lines, Rejection> {
        if old.module() != [7; 32] {
            return Err("not the module whose memory is known".into());
        }
        let Some(Global::I32(count)) = old.global(1) else {
            return Err("the number of lines is missing".into());
        };
        let line = |at| old.bytes(old.u32(at)?.into(), old.u32(at + 4)? as usize);
        let lines = (0..count).map(|number| line(16 + 8 * u64::from(number)));
        Ok(Lines { lines: lines.collect::<Result<_, _>>()?, founded_at: context.index() })
    }
}

crate::export!(Lines, classes, check, versions, adopt);

#[test]
fn a_state_is_checked() {
    let mut node = Runner::<Lines>::new();
    node.apply(b"whole").unwrap();
    assert_eq!(node.check(), Ok(()));
    node.apply(b"broken").unwrap();
    assert_eq!(node.check(), Err("line 1 is broken".into()));
}

#[test]
fn a_format_has_a_name_and_others_are_refused() {
    #[derive(Default)]
    struct Simple;

    impl StateMachine for Simple {
        fn apply(&mut self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> {
            Ok(Answer::default())
        }

        fn snapshot(&self, _: &Context, _: &mut Writer) {}

        fn restore(_: &Context, _: &mut Reader) -> Result<Simple, Rejection> {
            Ok(Simple)
        }
    }

    impl Versions for Simple {
        const STATE_VERSION: &'static str = "simple";
    }

    let mut node = Runner::<Lines>::new();
    assert_eq!(node.state_version(), "lines/2");
    assert_eq!(node.restores("lines/1"), Ok(()));
    assert_eq!(node.restores("lines/2"), Ok(()));
    let reason = "it restores lines/1 and lines/2, and this is lines/3";
    assert_eq!(node.restores("lines/3"), Err(reason.into()));
    let mut node = Runner::<Simple>::new();
    assert_eq!(node.restores("simple"), Ok(()));
    assert!(node.restores("lines/1").is_err());
    assert!(crate::is_state_version("a.B/c_d-9") && crate::is_state_version(&"x".repeat(64)));
    for name in ["", "kv 2", "kv/2\n", "k\u{e4}se", &"x".repeat(65)] {
        assert!(!crate::is_state_version(name), "{name}");
    }
}

#[test]
fn the_memory_of_another_module_is_taken_over() {
    let mut memory = vec![0; 64];
    for (at, number) in [(16, 40u32), (20, 3), (24, 43), (28, 5)] {
        memory[at..][..4].copy_from_slice(&number.to_le_bytes());
    }
    memory[40..48].copy_from_slice(b"onetwo!!");
    let globals = [Global::F64(0.5), Global::I32(2)];
    let mut node = Runner::<Lines>::adopted([7; 32], &memory, &globals).unwrap();
    let mut same = Runner::<Lines>::new();
    same.apply(b"one").unwrap();
    same.apply(b"two!!").unwrap();
    assert_eq!(node.snapshot(), same.snapshot());
    node.apply(b"three").unwrap();

    let refused = |module, memory: &[u8], globals: &[Global]| {
        Runner::<Lines>::adopted(module, memory, globals).err().expect("a refusal")
    };
    assert!(refused([8; 32], &memory, &globals).starts_with(b"not the module"));
    assert!(refused([7; 32], &memory, &globals[..1]).starts_with(b"the number of lines"));
    let cut = refused([7; 32], &memory[..47], &globals);
    assert_eq!(cut, "the old memory ends before 5 bytes at 0x2b".into());
    memory[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused([7; 32], &memory, &globals).starts_with(b"the old memory ends"));
}

#[test]
fn a_command_has_an_actor_and_a_class() {
    let mut node = Runner::<Lines>::new();
    assert_eq!(node.apply_text("actor").as_deref(), Ok("nobody"));
    node.set_actor("alice");
    assert_eq!(node.apply_text("actor").as_deref(), Ok("alice"));
    assert_eq!(node.classify(b"now").as_deref(), Some("asking"));
    assert_eq!(node.classify(b"mine").as_deref(), Some("alices"));
    assert_eq!(node.classify(b"a line"), None);
    node.set_actor("");
    assert_eq!(node.classify(b"mine"), None);
    assert_eq!(node.apply_text("actor").as_deref(), Ok("nobody"));
    // A class is asked for where the command will be.
    let mut node = Runner::<Lines>::new();
    assert_eq!(node.classify(b"next").as_deref(), Some("second"));
    assert_eq!(node.index(), 1);
}

#[test]
fn an_accepted_command_answers_and_publishes_its_events() {
    let mut node = Runner::<Lines>::new();
    assert_eq!(node.apply_text("one").as_deref(), Ok("kept"));
    let event = |index, topic: &str, data: &str| Event {
        index,
        topic: topic.as_bytes().to_vec(),
        data: data.as_bytes().to_vec(),
    };
    assert_eq!(node.take_events(), [event(1, "founded", ""), event(2, "line", "one")]);
    assert_eq!(node.take_log(), [(Level::Info, String::from("a line more"))]);
}

#[test]
fn a_rejected_command_gives_its_reason_and_loses_its_events() {
    let mut node = Runner::<Lines>::new();
    node.take_events();
    assert_eq!(node.apply_text(""), Err(String::from("a line must not be empty")));
    assert_eq!(node.take_events(), []);
}

#[test]
#[should_panic(expected = "a rejected command changed the state")]
fn the_runner_finds_a_broken_promise() {
    let _ = Runner::<Lines>::new().apply(b"!");
}

#[test]
fn a_query_is_refused_unless_the_state_machine_has_one() {
    let refused = Runner::<Lines>::new().query_text("x").unwrap_err();
    assert_eq!(refused, "this state machine answers no queries");
}

#[test]
fn snapshots_larger_than_the_buffer_come_back_whole() {
    let mut node = Runner::<Lines>::new();
    let sizes = [1, 16 << 10, (16 << 10) - 1, (16 << 10) + 1, 100_000, 3, 20_000];
    for (n, size) in sizes.into_iter().enumerate() {
        node.apply(&vec![n as u8; size]).unwrap();
    }
    let snapshot = node.snapshot();
    let mut copy = Runner::<Lines>::restored(&snapshot).unwrap();
    assert!(copy.snapshot() == snapshot);
    assert_eq!(snapshot.len(), 9 + sizes.iter().map(|size| 4 + size).sum::<usize>());
}

#[test]
fn a_snapshot_cut_anywhere_is_refused_and_the_state_stays() {
    let mut node = Runner::<Lines>::new();
    node.apply(b"first").unwrap();
    let snapshot = node.snapshot();
    for len in 0..snapshot.len() {
        if len == 9 {
            continue; // The end of the header is the snapshot of a state without lines.
        }
        let refused = node.restore(&snapshot[..len]).unwrap_err();
        assert!(refused.starts_with(b"the snapshot ends too early"), "{len}: {refused}");
    }
    assert_eq!(node.snapshot(), snapshot);
}

#[test]
fn a_length_beyond_the_end_is_refused_before_it_is_allocated() {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&7u64.to_le_bytes());
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(Runner::<Lines>::restored(&bytes).is_err());
}

#[test]
fn time_and_randomness_come_from_the_log() {
    let mut nodes = [Runner::<Lines>::new(), Runner::<Lines>::new()];
    let answers = nodes.each_mut().map(|node| {
        node.advance_ms(5);
        let now = node.apply(b"now").unwrap();
        assert_eq!(*now, (START_TIME_MS + 5).to_le_bytes());
        [node.apply(b"random").unwrap(), node.apply(b"random").unwrap()]
    });
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0][0], answers[0][1]);
}

#[cfg(feature = "std")]
#[test]
fn standard_streams_work_on_snapshots() {
    use std::io::{Read, Write};

    #[derive(Default)]
    struct Text(String);

    impl StateMachine for Text {
        fn apply(&mut self, _: &Context, command: &[u8]) -> Result<Answer, Rejection> {
            self.0 = String::from_utf8(command.to_vec()).map_err(Rejection::display)?;
            Ok(Answer::default())
        }

        fn snapshot(&self, _: &Context, out: &mut Writer) {
            write!(out, "{}", self.0).expect("a snapshot can always grow");
        }

        fn restore(_: &Context, input: &mut Reader) -> Result<Text, Rejection> {
            let mut text = String::new();
            input.read_to_string(&mut text).map_err(Rejection::display)?;
            Ok(Text(text))
        }
    }

    let mut node = Runner::<Text>::new();
    let long = "é".repeat(30_000);
    node.apply_text(&long).unwrap();
    let snapshot = node.snapshot();
    assert_eq!(snapshot, long.as_bytes());
    assert_eq!(Runner::<Text>::restored(&snapshot).unwrap().snapshot(), snapshot);
}
