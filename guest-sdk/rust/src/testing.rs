//! Runs a state machine natively, for tests under plain `cargo test`.
//!
//! The calls go through the same code as in a module; only the host is a mock.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use raft_fsm_abi::{NO_GLOBAL, OLD_GLOBAL_BYTES, STATUS_OK};

use crate::calls::{Instance, read_input};
use crate::{Adopt, Answer, Check, Classes, Global, Level, Rejection, StateMachine, Versions};

pub use crate::property::{Random, RestoreProperty};

/// Time of the first entry: 2001-09-09 01:46:40 UTC, one trillion milliseconds.
pub const START_TIME_MS: u64 = 1_000_000_000_000;

/// An event that a command emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index of the command's entry.
    pub index: u64,
    /// Its topic.
    pub topic: Vec<u8>,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A node of a cluster of one, without disk or network.
///
/// Every command gets the next index; the clock moves only by
/// [`advance_ms`](Runner::advance_ms).
pub struct Runner<M> {
    instance: Instance<M>,
    host: Host,
    events: Vec<Event>,
    check_promises: bool,
}

impl<M: StateMachine> Default for Runner<M> {
    fn default() -> Runner<M> {
        Runner::new()
    }
}

impl<M: StateMachine> Runner<M> {
    /// A new cluster: runs `init` at index 1.
    ///
    /// # Panics
    ///
    /// If `init` rejects.
    pub fn new() -> Runner<M> {
        let mut runner = Runner::empty();
        runner.host.begin_entry();
        if let Err(rejection) = runner.call(&[], |instance, host, _| instance.init(host)) {
            panic!("init was rejected: {rejection}");
        }
        runner.keep_events();
        runner
    }

    /// A node that starts from a snapshot, as after an upgrade.
    pub fn restored(snapshot: &[u8]) -> Result<Runner<M>, Rejection> {
        let mut runner = Runner::empty();
        runner.host.begin_entry();
        runner.restore(snapshot)?;
        Ok(runner)
    }

    /// A node that takes over the memory of another module's instance: its module's SHA-256, the bytes of its
    /// memory, and its mutable globals.
    pub fn adopted(
        module: [u8; 32],
        memory: &[u8],
        globals: &[Global],
    ) -> Result<Runner<M>, Rejection>
    where
        M: Adopt,
    {
        let mut runner = Runner::empty();
        runner.host.begin_entry();
        runner.host.lend(memory.to_vec(), globals.to_vec());
        let adopted = runner.call(&module, |instance, host, len| instance.adopt(host, len));
        runner.host.lend(Vec::new(), Vec::new());
        adopted.map(|_| runner)
    }

    /// A node that starts from a snapshot where this one stands: at its index and time.
    pub(crate) fn restored_here(&self, snapshot: &[u8]) -> Result<Runner<M>, Rejection> {
        let mut runner = Runner::empty();
        {
            let mut state = runner.host.0.borrow_mut();
            state.index = self.index();
            state.time_ms = self.time_ms();
        }
        runner.restore(snapshot)?;
        Ok(runner)
    }

    fn empty() -> Runner<M> {
        Runner {
            instance: Instance::default(),
            host: Host::default(),
            events: Vec::new(),
            check_promises: true,
        }
    }

    /// Stops checking that rejected commands and queries leave the snapshot as it was, which
    /// costs two snapshots for each call.
    pub fn without_checks(mut self) -> Runner<M> {
        self.check_promises = false;
        self
    }

    /// Runs one command at the next index.
    ///
    /// # Panics
    ///
    /// If the command is rejected and yet changed the state.
    pub fn apply(&mut self, command: &[u8]) -> Result<Answer, Rejection> {
        let before = self.check_promises.then(|| self.snapshot());
        self.host.begin_entry();
        let result = self.call_as_actor(command, |instance, host, len| instance.apply(host, len));
        if result.is_ok() {
            self.keep_events();
        } else if let Some(before) = before {
            assert!(before == self.snapshot(), "a rejected command changed the state");
        }
        result
    }

    /// Says who gives the commands from now on; nobody does with an empty name.
    pub fn set_actor(&mut self, name: &str) {
        self.host.0.borrow_mut().actor = name.to_string();
    }

    /// The class of a command, as if it were to be run next.
    ///
    /// # Panics
    ///
    /// If that changed the state.
    pub fn classify(&mut self, command: &[u8]) -> Option<String>
    where
        M: Classes,
    {
        let before = self.check_promises.then(|| self.snapshot());
        self.host.0.borrow_mut().index += 1;
        let class = self.call_as_actor(command, |instance, host, len| instance.classify(host, len));
        self.host.0.borrow_mut().index -= 1;
        if let Some(before) = before {
            assert!(before == self.snapshot(), "a classification changed the state");
        }
        text(class).ok().filter(|class| !class.is_empty())
    }

    /// Checks the rules of the state.
    ///
    /// # Panics
    ///
    /// If that changed the state.
    pub fn check(&mut self) -> Result<(), Rejection>
    where
        M: Check,
    {
        let before = self.check_promises.then(|| self.snapshot());
        let checked = self.call(&[], |instance, host, _| instance.check(host));
        if let Some(before) = before {
            assert!(before == self.snapshot(), "a check changed the state");
        }
        checked.map(drop)
    }

    /// The name of the format of its snapshots.
    pub fn state_version(&mut self) -> String
    where
        M: Versions,
    {
        let version = self.call(&[], |instance, host, _| instance.state_version(host));
        text(version).expect("a format is always named")
    }

    /// Whether it restores snapshots of a format; if not, why.
    pub fn restores(&mut self, version: &str) -> Result<(), Rejection>
    where
        M: Versions,
    {
        let version = version.as_bytes();
        self.call(version, |instance, host, len| instance.restores(host, len)).map(drop)
    }

    /// Asks a question.
    ///
    /// # Panics
    ///
    /// If the query changed the state.
    pub fn query(&mut self, query: &[u8]) -> Result<Answer, Rejection> {
        let before = self.check_promises.then(|| self.snapshot());
        let result = self.call(query, |instance, host, len| instance.query(host, len));
        if let Some(before) = before {
            assert!(before == self.snapshot(), "a query changed the state");
        }
        result
    }

    /// [`apply`](Runner::apply) with text in and out.
    pub fn apply_text(&mut self, command: &str) -> Result<String, String> {
        text(self.apply(command.as_bytes()))
    }

    /// [`query`](Runner::query) with text in and out.
    pub fn query_text(&mut self, query: &str) -> Result<String, String> {
        text(self.query(query.as_bytes()))
    }

    /// The state machine's snapshot.
    pub fn snapshot(&mut self) -> Vec<u8> {
        self.host.begin_call(&[]);
        self.instance.snapshot(&self.host);
        self.host.take_output()
    }

    /// Replaces the state. A rejection leaves it as it was.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), Rejection> {
        self.call(snapshot, |instance, host, len| instance.restore(host, len)).map(drop)
    }

    /// Moves the log's clock forward.
    pub fn advance_ms(&mut self, by_ms: u64) {
        self.host.0.borrow_mut().time_ms += by_ms;
    }

    /// Index of the last entry.
    pub fn index(&self) -> u64 {
        self.host.index()
    }

    /// The log's clock.
    pub fn time_ms(&self) -> u64 {
        self.host.time_ms()
    }

    /// The events of accepted commands since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }

    /// The lines logged since the last call.
    pub fn take_log(&mut self) -> Vec<(Level, String)> {
        core::mem::take(&mut self.host.0.borrow_mut().log)
    }

    fn keep_events(&mut self) {
        self.events.append(&mut self.host.0.borrow_mut().events);
    }

    fn call(
        &mut self,
        input: &[u8],
        run: impl FnOnce(&mut Instance<M>, &Host, usize) -> i32,
    ) -> Result<Answer, Rejection> {
        self.host.begin_call(input);
        self.run(input, run)
    }

    /// As `call`, for what is about a command.
    fn call_as_actor(
        &mut self,
        input: &[u8],
        run: impl FnOnce(&mut Instance<M>, &Host, usize) -> i32,
    ) -> Result<Answer, Rejection> {
        self.host.begin_call(input);
        self.host.0.borrow_mut().knows_actor = true;
        self.run(input, run)
    }

    fn run(
        &mut self,
        input: &[u8],
        run: impl FnOnce(&mut Instance<M>, &Host, usize) -> i32,
    ) -> Result<Answer, Rejection> {
        let status = run(&mut self.instance, &self.host, input.len());
        let output = self.host.take_output();
        if status == STATUS_OK { Ok(Answer::from(output)) } else { Err(Rejection::from(output)) }
    }
}

fn text(result: Result<Answer, Rejection>) -> Result<String, String> {
    match result {
        Ok(answer) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(rejection) => Err(rejection.to_string()),
    }
}

/// A step of SplitMix64 (Steele, Lea, Flood 2014), without its last shift.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Stands in for the host, with the semantics that the ABI gives its imports.
#[doc(hidden)]
pub struct Host(RefCell<State>);

struct State {
    index: u64,
    time_ms: u64,
    random: u64,
    actor: String,
    /// Whether the current call is about a command.
    knows_actor: bool,
    /// What `adopt` reads.
    old_memory: Vec<u8>,
    old_globals: Vec<Global>,
    input: Vec<u8>,
    /// Part of `input` that was read.
    position: usize,
    output: Vec<u8>,
    /// Of the current call.
    events: Vec<Event>,
    log: Vec<(Level, String)>,
}

impl Default for Host {
    fn default() -> Host {
        Host(RefCell::new(State {
            index: 0,
            time_ms: START_TIME_MS,
            random: 0,
            actor: String::new(),
            knows_actor: false,
            old_memory: Vec::new(),
            old_globals: Vec::new(),
            input: Vec::new(),
            position: 0,
            output: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
        }))
    }
}

impl Host {
    fn begin_entry(&self) {
        self.0.borrow_mut().index += 1;
    }

    fn begin_call(&self, input: &[u8]) {
        let mut state = self.0.borrow_mut();
        state.input = input.to_vec();
        state.position = 0;
        state.output.clear();
        state.events.clear();
        state.random = state.index;
        state.knows_actor = false;
    }

    fn take_output(&self) -> Vec<u8> {
        core::mem::take(&mut self.0.borrow_mut().output)
    }

    pub(crate) fn read(&self, out: &mut [u8]) -> usize {
        let mut state = self.0.borrow_mut();
        let start = state.position;
        let len = out.len().min(state.input.len() - start);
        out[..len].copy_from_slice(&state.input[start..start + len]);
        state.position += len;
        len
    }

    pub(crate) fn input<'a>(&self, len: usize, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        read_input(self, len, buffer)
    }

    pub(crate) fn give(&self, output: Cow<'static, [u8]>) {
        self.write(&output);
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        self.0.borrow_mut().output.extend_from_slice(bytes);
    }

    pub(crate) fn index(&self) -> u64 {
        self.0.borrow().index
    }

    /// Every command is an entry of its own here.
    pub(crate) fn ordinal(&self) -> u32 {
        0
    }

    pub(crate) fn time_ms(&self) -> u64 {
        self.0.borrow().time_ms
    }

    pub(crate) fn actor(&self, out: &mut [u8]) -> usize {
        let state = self.0.borrow();
        let name = if state.knows_actor { state.actor.as_bytes() } else { &[] };
        let len = name.len().min(out.len());
        out[..len].copy_from_slice(&name[..len]);
        name.len()
    }

    fn lend(&self, memory: Vec<u8>, globals: Vec<Global>) {
        let mut state = self.0.borrow_mut();
        (state.old_memory, state.old_globals) = (memory, globals);
    }

    pub(crate) fn old_memory_size(&self) -> u64 {
        self.0.borrow().old_memory.len() as u64
    }

    pub(crate) fn old_memory(&self, at: u64, out: &mut [u8]) {
        let at = usize::try_from(at).expect("an address within the old memory");
        out.copy_from_slice(&self.0.borrow().old_memory[at..][..out.len()]);
    }

    pub(crate) fn old_global(&self, number: u32, out: &mut [u8; OLD_GLOBAL_BYTES]) -> i32 {
        let state = self.0.borrow();
        let Some(global) = state.old_globals.get(number as usize) else { return NO_GLOBAL };
        let (ty, bits) = global.parts();
        *out = bits.to_le_bytes();
        ty
    }

    pub(crate) fn random(&self, out: &mut [u8]) {
        let mut state = self.0.borrow_mut();
        for byte in out {
            *byte = (split_mix(&mut state.random) >> 56) as u8;
        }
    }

    pub(crate) fn emit(&self, topic: &[u8], data: &[u8]) {
        let mut state = self.0.borrow_mut();
        let index = state.index;
        state.events.push(Event { index, topic: topic.to_vec(), data: data.to_vec() });
    }

    pub(crate) fn log(&self, level: i32, line: &[u8]) {
        let level = [Level::Error, Level::Warn, Level::Info, Level::Debug]
            .into_iter()
            .find(|known| *known as i32 == level)
            .unwrap_or(Level::Debug);
        self.0.borrow_mut().log.push((level, String::from_utf8_lossy(line).into_owned()));
    }
}
