//! The state that a live instance can go back to, kept up with by copying what was written.

use std::sync::Arc;

use super::bits::Bits;
use super::blocks::Blocks;
use super::digest::Digester;
use super::guest::{Compiled, Guest};
use super::image::GuestState;
use super::tracking::{GRAIN_BYTES, Then};
use super::workers::Workers;
use crate::fsm::{GuestDigest, HostFailure};
use crate::museum::{self, Exhibit};

/// Grains that one sweep compares: 8 MiB, about a millisecond or two.
const SWEEP_GRAINS: usize = 2048;

/// A copy of the state that a live instance had at some time.
///
/// Grains of the instance's memory that are neither in `pending` nor reported as written by
/// the instance are equal to the copy's.
pub(super) struct Checkpoint {
    state: GuestState,
    /// Grains that an earlier scan reported and that have not been looked at since.
    pending: Bits,
    digester: Digester,
    /// The grain at which the next [`Checkpoint::sweep`] begins.
    swept: usize,
    workers: Arc<Workers>,
}

impl Checkpoint {
    /// The present state of an instance that nobody has asked for its written pages yet.
    pub(super) fn of(live: &mut Guest, workers: &Arc<Workers>) -> Result<Checkpoint, HostFailure> {
        let mut checkpoint = Checkpoint {
            state: GuestState { memory: Blocks::zeroed(0), globals: Vec::new() },
            pending: Bits::default(),
            digester: Digester::default(),
            swept: 0,
            workers: Arc::clone(workers),
        };
        checkpoint.take(live)?;
        checkpoint.digester = Digester::of_new(&checkpoint.state, workers);
        Ok(checkpoint)
    }

    /// `state`, which was just loaded into `live`.
    pub(super) fn loaded(
        state: GuestState,
        live: &mut Guest,
        workers: &Arc<Workers>,
    ) -> Result<Checkpoint, HostFailure> {
        live.forget_written()?;
        let digester = Digester::of_new(&state, workers);
        let (pending, workers) = (Bits::default(), Arc::clone(workers));
        Ok(Checkpoint { state, pending, digester, swept: 0, workers })
    }

    pub(super) fn state(&self) -> &GuestState {
        &self.state
    }

    /// Makes the present state of `live` the one to go back to. Returns how many grains had
    /// been written, as far as this host can tell.
    pub(super) fn take(&mut self, live: &mut Guest) -> Result<u64, HostFailure> {
        live.written(Then::Protect, &mut self.pending)?;
        let memory = live.memory();
        self.state.memory.grow_to(memory.len());
        let mut changed = Bits::default();
        let differed = self.state.memory.follow(memory, &self.pending, &mut changed);
        let written = if live.is_watched() { self.pending.count() } else { differed };
        self.pending.clear();
        self.digester.note(&changed, &self.state.memory);
        self.state.globals = live.globals()?;
        Ok(written)
    }

    /// Makes `live` what it was; tells how many grains had been written, as far as this host
    /// can. If memory has grown since, which is never taken back, a new instance is returned
    /// that is to take the place of `live`.
    ///
    /// That the last call trapped does not matter: memory and globals are all the state that
    /// an accepted module has, and every byte of both is put back.
    pub(super) fn put_back(
        &mut self,
        live: &mut Guest,
        compiled: &Compiled,
    ) -> Result<(u64, Option<Guest>), HostFailure> {
        if museum::is_on(Exhibit::CountedPagesForgotten) {
            self.pending.clear();
        }
        // What is left unprotected need not fault again when the commands are repeated.
        live.written(Then::Leave, &mut self.pending)?;
        let len = self.state.memory.len_bytes();
        self.pending.truncate(len / GRAIN_BYTES);
        let is_watched = live.is_watched();
        let differed = self.state.memory.put_back(&mut live.memory_mut()[..len], &self.pending);
        let written = if is_watched { self.pending.count() } else { differed };
        if live.memory_bytes() == len {
            live.set_globals(&self.state.globals)?;
            return Ok((written, None));
        }
        let successor = live.succeed(compiled, len, &self.state.globals)?;
        successor.forget_written()?;
        self.pending.clear();
        Ok((written, Some(successor)))
    }

    /// Sets aside what was written so far, so that [`Checkpoint::written_since`] tells of what
    /// comes.
    pub(super) fn set_aside(&mut self, live: &mut Guest) -> Result<(), HostFailure> {
        live.written(Then::Protect, &mut self.pending)
    }

    /// How many grains were written since [`Checkpoint::set_aside`].
    pub(super) fn written_since(&mut self, live: &mut Guest) -> Result<u64, HostFailure> {
        let mut written = Bits::default();
        live.written(Then::Protect, &mut written)?;
        self.pending.insert_all(&written);
        Ok(written.count())
    }

    /// Has the next [`Checkpoint::take`] compare a part of memory whether it was written or not,
    /// each time the one after the last. A bit that fails in memory is no write that the kernel
    /// could tell of.
    pub(super) fn sweep(&mut self, live: &Guest) -> Result<(), HostFailure> {
        let grains = live.memory_bytes() / GRAIN_BYTES;
        let start = if self.swept < grains { self.swept } else { 0 };
        self.swept = start + SWEEP_GRAINS;
        live.touched(start..self.swept, &mut self.pending)
    }

    /// Digests this state.
    pub(super) fn digest(&mut self) -> GuestDigest {
        self.digester.digest(&self.state, &self.workers)
    }
}
