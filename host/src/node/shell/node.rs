//! A node with its threads.
//!
//! Log writer, log reader, snapshot writer, event loop and watchdog are the node's; each group has an
//! apply thread of its own beside them, because a guest may take its time.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::assemble::{Assembled, Common, Loops, assemble, loops};
use super::environment::Environment;
use super::error::StartError;
use super::options::{GroupOptions, NodeChannel, NodeOptions};
use super::threads::{Stragglers, join_within};
use super::watchdog::Watchdog;
use super::{log_reader, log_writer, snapshot_writer};
use crate::fsm::{GUEST_STACK_BYTES, on_guest_stack};
use crate::node::handle::{Drained, NodeHandle};
use crate::node::message::Mail;
use crate::node::stop::{StopOnPanic, StopReason, Stops};
use crate::transport::Transport;
use crate::types::GroupId;

/// A running node.
pub struct Node {
    handle: NodeHandle,
    common: Common,
    threads: Mutex<Vec<JoinHandle<()>>>,
    watchdog: Watchdog,
}

impl Node {
    /// Recovers what the stores hold and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        options: NodeOptions,
        channel: NodeChannel,
        transport: Arc<dyn Transport>,
    ) -> Result<Node, StartError> {
        let NodeOptions { identity, group, config, consensus, stores, loader, .. } = options;
        let NodeOptions { introduced, evidence, .. } = options;
        let Loops { common, event_loop, driver, writes, reads, saves } =
            loops(identity, config, stores, channel, transport);
        let watchdog = Watchdog::spawn(common.config.slow_apply_ms, common.stops.clone())?;
        let options = GroupOptions { group, consensus, loader, introduced, evidence };
        let assembled = assemble_on_large_stack(options, &common)?;
        let (mail, stops, stores) = (&common.mail, &common.stops, &common.stores);
        let mut threads = vec![
            log_reader::spawn(Arc::clone(&stores.log), reads, mail.clone(), stops.clone())?,
            log_writer::spawn(
                Arc::clone(&stores.log),
                writes,
                mail.clone(),
                Arc::clone(&common.metrics),
                stops.clone(),
            )?,
            snapshot_writer::spawn(Arc::clone(&stores.snapshots), saves, stops.clone())?,
        ];
        let (handle, apply_thread) = seat(assembled, &common, &watchdog)?;
        threads.push(apply_thread);
        let guard = stops.clone();
        driver.start(event_loop, stops.clone());
        let event_thread =
            std::thread::Builder::new().name("event-loop".into()).spawn(move || {
                let _guard = StopOnPanic(guard, "event loop");
                driver.run();
            })?;
        threads.push(event_thread);
        Ok(Node { handle, common, threads: Mutex::new(threads), watchdog })
    }

    /// A handle for callers, to the group that the node was started with.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Serves a further group, of which the stores hold something or which others will send its state.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn open_group(&self, options: GroupOptions) -> Result<NodeHandle, StartError> {
        let assembled = assemble_on_large_stack(options, &self.common)?;
        let (handle, apply_thread) = seat(assembled, &self.common, &self.watchdog)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(apply_thread);
        self.common.mail.send(Mail::Look).map_err(|_| StartError::Stopped)?;
        Ok(handle)
    }

    /// Ends one group; the others go on. Whether it was there.
    pub fn close_group(&self, group: GroupId) -> bool {
        let was_there = self.common.stops.stop(group, StopReason::Requested);
        // A loop that has ended needs no waking.
        let _ = self.common.mail.send(Mail::Look);
        was_there
    }

    /// See [`NodeHandle::drain`].
    pub async fn drain(&self) -> Drained {
        self.handle.drain().await
    }

    /// As [`Node::stop_within`], for who can wait: a stuck disk may hold it up for ever.
    pub fn stop(self) -> StopReason {
        self.stop_within(Duration::MAX).0
    }

    /// Ends the threads; what was handed to the log writer is flushed. Blocks, for as long as
    /// `patience` at most: threads that are stuck by then are returned as they are.
    pub fn stop_within(self, patience: Duration) -> (StopReason, Option<Stragglers>) {
        let Node { handle, common, threads, watchdog: _watchdog } = self;
        common.stops.stop_all(&StopReason::Requested);
        // A loop that has ended needs no waking.
        let _ = common.mail.send(Mail::Look);
        // The snapshot writer ends with the last of those who may want something of it.
        drop(common);
        let threads = threads.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stragglers = join_within(threads, patience);
        (handle.stop_reason().expect("set above"), stragglers)
    }
}

/// Has the group applied by a thread of its own, and driven by the event loop.
fn seat(
    assembled: Assembled,
    common: &Common,
    watchdog: &Watchdog,
) -> Result<(NodeHandle, JoinHandle<()>), StartError> {
    let Assembled { handle, seat, apply_loop, stop, work } = assembled;
    watchdog.add(&work);
    let own = Stops::of(handle.group(), stop.clone());
    // Before its machine has anything to say: the loop looks here for groups that it does not know.
    common.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(seat);
    let apply_thread = std::thread::Builder::new()
        .name("apply".into())
        .stack_size(GUEST_STACK_BYTES)
        .spawn(move || {
            let _guard = StopOnPanic(own, "apply");
            apply_loop.run();
        })
        .inspect_err(|error| stop.fail("no thread to apply", error))?;
    Ok((handle, apply_thread))
}

/// On a thread like the one that will apply: to restore a snapshot is to run the module's
/// initialisers, on a stack that the limits may have made larger than the caller's.
fn assemble_on_large_stack(
    options: GroupOptions,
    common: &Common,
) -> Result<Assembled, StartError> {
    on_guest_stack("recovery", || assemble(options, common, Environment::real()))?
}
