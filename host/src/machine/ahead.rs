//! A module's instance that is made beside, while the machine goes on, from a state that was kept for it.
//!
//! ```text
//!   machine   ── fork ── 42 ── 43 ── 44 ── 45: activation ──►
//!                 │       │     │     │         │
//!   beside        └ snapshot, restore, 42, 43   └ only 44 is left
//! ```
//!
//! A node may do that or not, and be interrupted anywhere: without an instance that was made ahead, the same
//! is done at the activation, by the same steps.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use bytes::Bytes;

use super::again::Again;
use super::calls::{portable_of, restore_portable};
use super::kept::{Executed, Fork};
use super::reply::{Applied, Reply};
use crate::fsm::{Context, Fsm, HostFailure, Image, ImageError, Limits, SharedLoader};
use crate::types::{ActorName, ClusterId, Index, ModuleHash, Position};

/// Where the commands come from that were executed since.
pub(super) type Feed = Sender<Arc<Executed>>;

/// How far an instance is that is made ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// There is more to do.
    Behind,
    /// It has executed what the machine has.
    UpToDate,
    /// It cannot take over, and says why: neither will any at the activation.
    Refused(String),
    /// The machine keeps the fork no more.
    Gone,
}

/// See the module.
pub struct AheadJob {
    loader: SharedLoader,
    limits: Limits,
    cluster: ClusterId,
    /// The module whose state it is, and the one that takes over.
    modules: [Bytes; 2],
    hashes: [ModuleHash; 2],
    index: Index,
    time_ms: u64,
    image: Arc<dyn Image>,
    feed: Receiver<Arc<Executed>>,
    stage: Stage,
    again: Again,
    /// What an activation tells of it.
    applied: Applied,
}

/// What an activation from a fork comes to.
pub(super) type Finished = (Applied, Result<Box<dyn Fsm>, String>);

enum Stage {
    Begin,
    Running(Box<dyn Fsm>),
    Refused(String),
}

impl AheadJob {
    /// One that has everything to do, and whoever tells it what comes.
    pub(super) fn new(
        fork: &Fork,
        modules: [Bytes; 2],
        cluster: ClusterId,
        limits: Limits,
        loader: SharedLoader,
    ) -> (AheadJob, Feed) {
        let (sender, feed) = mpsc::channel();
        for executed in fork.kept.commands.iter() {
            sender.send(Arc::clone(executed)).expect("the receiver is here");
        }
        let kept = &fork.kept;
        let job = AheadJob {
            loader,
            limits,
            cluster,
            modules,
            hashes: [kept.module, fork.next],
            index: kept.index,
            time_ms: kept.time_ms,
            image: Arc::clone(&kept.image),
            feed,
            stage: Stage::Begin,
            again: Again::default(),
            applied: Applied::without_guest(Reply::Nothing),
        };
        (job, sender)
    }

    /// Begins with another state. Nobody does that.
    #[cfg(feature = "museum")]
    pub(super) fn mistake(&mut self, image: Arc<dyn Image>) {
        self.image = image;
    }

    /// Whether it is what an activation from a fork asks for.
    pub(super) fn is_of(&self, fork: &Fork) -> bool {
        self.index == fork.kept.index && self.hashes == [fork.kept.module, fork.next]
    }

    /// Index of the fork.
    pub fn fork(&self) -> Index {
        self.index
    }

    /// Commands that it has executed: those of [`super::ForkInfo::commands`] that are left are the others.
    pub fn commands(&self) -> u64 {
        self.again.commands
    }

    /// Goes on: first the module takes over, which may take long; then it executes commands, so many at most.
    ///
    /// # Errors
    ///
    /// [`HostFailure`]: of this node. The job must be dropped; the machine may go on.
    pub fn advance(&mut self, commands: u64) -> Result<Ahead, HostFailure> {
        if let Stage::Begin = self.stage {
            self.stage = match self.take_over()? {
                Ok(fsm) => Stage::Running(fsm),
                Err(reason) => Stage::Refused(reason),
            };
        }
        for _ in 0..commands {
            let fsm = match &mut self.stage {
                Stage::Begin => unreachable!("it has just begun"),
                Stage::Running(fsm) => fsm,
                Stage::Refused(reason) => return Ok(Ahead::Refused(reason.clone())),
            };
            let executed = match self.feed.try_recv() {
                Ok(executed) => executed,
                Err(TryRecvError::Empty) => return Ok(Ahead::UpToDate),
                Err(TryRecvError::Disconnected) => return Ok(Ahead::Gone),
            };
            let fuel_max = self.limits.activation_fuel;
            let (cluster, applied) = (self.cluster, &mut self.applied);
            let done = self.again.execute(&mut **fsm, cluster, &executed, fuel_max, applied)?;
            let settled = done.and_then(|()| match self.again.first {
                None => Ok(()),
                Some(position) => Err(format!(
                    "the module's answer to the command at {position}, which came after the fork, is \
                     another one than was given; without a fork the module takes over the state as \
                     it is"
                )),
            });
            if let Err(reason) = settled {
                self.stage = Stage::Refused(reason);
            }
        }
        Ok(Ahead::Behind)
    }

    /// Does what is left, of so many commands in all; `None`: it was not told of all of them. The fuel and
    /// events of all of it, and the instance or why there is none.
    pub(super) fn finish(mut self, commands: u64) -> Result<Option<Finished>, HostFailure> {
        while self.advance(u64::MAX)? == Ahead::Behind {}
        if !matches!(self.stage, Stage::Refused(_)) && self.commands() != commands {
            return Ok(None);
        }
        Ok(Some(match self.stage {
            Stage::Begin => unreachable!("it has begun"),
            Stage::Running(fsm) => (self.applied, Ok(fsm)),
            Stage::Refused(reason) => (self.applied, Err(reason)),
        }))
    }

    /// The old module's copy is gone before the new one's instance is made: never more than one of them is
    /// there beside the machine.
    fn take_over(&mut self) -> Result<Result<Box<dyn Fsm>, String>, HostFailure> {
        let context = Context {
            cluster: self.cluster,
            position: Position::first(self.index),
            time_ms: self.time_ms,
            actor: ActorName::NONE,
        };
        let [old, new] = &self.modules;
        let copy = copy_of(&self.loader, old, &self.limits, context, &*self.image)?;
        let mut copy = match copy {
            Ok(copy) => copy,
            Err(reason) => return Ok(Err(reason)),
        };
        let portable = portable_of(&mut *copy, context, &self.limits, &mut self.applied)?;
        drop(copy);
        let portable = match portable {
            Ok(portable) => portable,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut fresh = match self.loader.instantiate(new, &self.limits, context)? {
            Ok(fresh) => fresh,
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        let restored =
            restore_portable(&mut *fresh, portable, context, &self.limits, &mut self.applied)?;
        // Here nobody waits for it.
        fresh.prepare()?;
        Ok(restored.map(|()| fresh))
    }
}

/// An instance with the state of an image.
///
/// # Errors
/// [`HostFailure`]: the node must stop. A sentence, which is the same on every node: the module, or that state
/// of it, is not accepted under these limits.
pub(super) fn copy_of(
    loader: &SharedLoader,
    module: &Bytes,
    limits: &Limits,
    context: Context,
    image: &dyn Image,
) -> Result<Result<Box<dyn Fsm>, String>, HostFailure> {
    let mut copy = match loader.instantiate_blank(module, limits, context)? {
        Ok(copy) => copy,
        Err(refused) => return Ok(Err(format!("the module is refused: {refused}"))),
    };
    match copy.adopt(image) {
        Ok(()) => Ok(Ok(copy)),
        Err(ImageError::Invalid(reason)) => Ok(Err(format!("the state does not fit: {reason}"))),
        Err(ImageError::Host(failure)) => Err(failure),
        Err(ImageError::Io(error)) => {
            Err(HostFailure(format!("handing over the state of the module: {error}")))
        }
    }
}
