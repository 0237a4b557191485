//! The life of an instance, the same under the real host and in tests.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use raft_fsm_abi::{STATUS_OK, STATUS_REJECTED};

use crate::{Answer, Classes, Context, Host, Reader, Rejection, StateMachine, Writer};

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
        match M::restore(&Context::new(host), &mut Reader::new(host, len)) {
            Ok(machine) => {
                self.machine = machine;
                STATUS_OK
            }
            Err(rejection) => finish(host, Err(rejection)),
        }
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
