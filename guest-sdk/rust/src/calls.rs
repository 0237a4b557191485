//! The life of an instance, the same under the real host and in tests.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use raft_fsm_abi::{ADOPT_INPUT_BYTES, STATUS_OK, STATUS_REJECTED};

use crate::{
    Adopt, Answer, Check, Classes, Context, Host, OldInstance, Reader, Rejection, StateMachine,
    Versions, Writer,
};

/// A state machine and what its calls reuse.
#[derive(Default)]
pub(crate) struct Instance<M> {
    machine: M,
    /// For inputs that the host does not leave in the window. Keeps its capacity.
    input: Vec<u8>,
}

impl<M: StateMachine> Instance<M> {
    pub(crate) fn init(&mut self, host: &Host) -> i32 {
        finish(host, self.machine.init(&Context::new(host)))
    }

    pub(crate) fn apply(&mut self, host: &Host, len: usize) -> i32 {
        let input = host.input(len, &mut self.input);
        answer(host, self.machine.apply(&Context::new(host), input))
    }

    pub(crate) fn query(&mut self, host: &Host, len: usize) -> i32 {
        let input = host.input(len, &mut self.input);
        answer(host, self.machine.query(&Context::new(host), input))
    }

    pub(crate) fn snapshot(&self, host: &Host) -> i32 {
        let mut out = Writer::new(host);
        self.machine.snapshot(&Context::new(host), &mut out);
        out.flush();
        STATUS_OK
    }

    pub(crate) fn restore(&mut self, host: &Host, len: usize) -> i32 {
        let restored = M::restore(&Context::new(host), &mut Reader::new(host, len));
        self.become_the(host, restored)
    }

    fn become_the(&mut self, host: &Host, machine: Result<M, Rejection>) -> i32 {
        finish(host, machine.map(|machine| self.machine = machine))
    }
}

impl<M: Check> Instance<M> {
    pub(crate) fn check(&self, host: &Host) -> i32 {
        finish(host, self.machine.check(&Context::new(host)))
    }
}

impl<M: Versions> Instance<M> {
    pub(crate) fn state_version(&self, host: &Host) -> i32 {
        host.write(M::STATE_VERSION.as_bytes());
        STATUS_OK
    }

    pub(crate) fn restores(&mut self, host: &Host, len: usize) -> i32 {
        let version = core::str::from_utf8(read_input(host, len, &mut self.input));
        finish(
            host,
            match version {
                Ok(version) => M::restores(&Context::new(host), version),
                Err(error) => Err(Rejection::display(error)),
            },
        )
    }
}

impl<M: Adopt> Instance<M> {
    pub(crate) fn adopt(&mut self, host: &Host, len: usize) -> i32 {
        let mut module = [0; ADOPT_INPUT_BYTES];
        assert!(len == module.len() && host.read(&mut module) == len, "the hash of a module");
        let adopted = M::adopt(&Context::new(host), &OldInstance::new(host, module));
        self.become_the(host, adopted)
    }
}

impl<M: Classes> Instance<M> {
    pub(crate) fn classify(&mut self, host: &Host, len: usize) -> i32 {
        let input = host.input(len, &mut self.input);
        let class = self.machine.classify(&Context::new(host), input).unwrap_or_default();
        host.give(Cow::Borrowed(class.as_bytes()));
        STATUS_OK
    }
}

/// Reads all of the input.
pub(crate) fn read_input<'a>(host: &Host, len: usize, input: &'a mut Vec<u8>) -> &'a [u8] {
    input.resize(len, 0);
    let mut filled = 0;
    while filled < len {
        match host.read(&mut input[filled..]) {
            0 => break,
            read => filled += read,
        }
    }
    input.truncate(filled);
    input
}

/// Ends an `apply` or `query`.
fn answer(host: &Host, result: Result<Answer, Rejection>) -> i32 {
    match result {
        Ok(answer) => {
            host.give(answer.into_bytes());
            STATUS_OK
        }
        Err(rejection) => {
            host.give(rejection.into_bytes());
            STATUS_REJECTED
        }
    }
}

/// Ends another call, after which the host does not look into the window.
fn finish(host: &Host, result: Result<(), Rejection>) -> i32 {
    match result {
        Ok(()) => STATUS_OK,
        Err(rejection) => {
            host.write(&rejection);
            STATUS_REJECTED
        }
    }
}
