//! Copies of the state that leave the node: backups, and exports of the guest's own snapshot.
//!
//! A copy shares what does not change with the live state, so it costs what changes while it is being
//! read, and a second heap for an export. One is made at a time, and it is given up
//! when its reader takes nothing, or the node stops.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use raft_host_proto::v1::{self, Reason};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::caller::Caller;
use super::context::Context;
use super::convert::bytes;
use super::failure::Failure;
use super::streaming::UNREAD_TIME;
use crate::backup::{BackupBoard, BackupFacts, BackupWriter, wall_clock_ms};
use crate::machine::{Exported, PortableError};
use crate::node::MachineCopy;

/// What a node says of the backups that it takes by itself.
pub(super) fn backups_to_wire(board: &BackupBoard) -> v1::BackupStatus {
    let (config, report) = (board.config(), board.report());
    let directory = config.directory.as_ref().map(|dir| dir.display().to_string());
    v1::BackupStatus {
        directory: directory.unwrap_or_default(),
        every_ms: config.every_ms,
        running: report.is_running,
        last: report.last.map(|last| v1::SavedBackup {
            file: last.file.display().to_string(),
            bytes: last.bytes,
            index: last.facts.position.index.0,
            saved_ms: last.facts.saved_ms,
        }),
        last_error: report.failure.unwrap_or_default(),
        newest_ms: report.newest_ms,
        alarm: board.alarm(wall_clock_ms()).unwrap_or_default(),
    }
}

/// How much goes into one message.
const PART_BYTES: usize = 512 << 10;
/// Messages that wait for the client.
const PARTS_QUEUED: usize = 2;

pub(super) type Backups = BoxStream<'static, Result<v1::BackupResponse, Status>>;
pub(super) type Exports = BoxStream<'static, Result<v1::ExportResponse, Status>>;

/// Streams a backup of this node's state.
pub(super) async fn back_up(
    context: &Arc<Context>,
    caller: &Caller,
    request: v1::BackupRequest,
) -> Result<Backups, Failure> {
    context.check_group(&request.group)?;
    let (permit, copy) = copy(context, caller).await?;
    let (node, version) = (context.handle.identity().node, &context.info.version);
    let facts = BackupFacts::of(&copy.state, copy.position, copy.digest, node, version);
    let make = |data| v1::BackupResponse { data };
    let (outlet, answers) = Outlet::open(context.stopping.clone(), make);
    in_background(permit, outlet, move |outlet| {
        let mut writer = BackupWriter::begin(outlet, &facts)?;
        copy.state.write_to(&mut writer)?;
        writer.finish().map(drop)
    });
    Ok(answers)
}

/// Has a copy of the guest write its snapshot, and streams that.
pub(super) async fn export(
    context: &Arc<Context>,
    caller: &Caller,
    request: v1::ExportRequest,
) -> Result<Exports, Failure> {
    context.check_group(&request.group)?;
    let (permit, copy) = copy(context, caller).await?;
    let handle = context.handle.clone();
    // It has a budget of fuel of its own, and ends without anybody's help.
    let exported = tokio::task::spawn_blocking(move || (handle.export(copy.state), permit));
    let joined = caller.within_question(async { Ok(exported.await) }).await?;
    let (exported, permit) = joined.map_err(|error| {
        Failure::none(Reason::Internal, format!("the export broke off: {error}"))
    })?;
    let Exported { index, module, label, bytes: portable } = exported.map_err(refused)?;
    let info = v1::ExportInfo {
        index: index.0,
        module_hash: bytes(module.0),
        label,
        total_bytes: portable.len(),
    };
    let make = |data| v1::ExportResponse { part: Some(v1::export_response::Part::Data(data)) };
    let (outlet, answers) = Outlet::open(context.stopping.clone(), make);
    in_background(permit, outlet, move |outlet| {
        portable.into_parts().try_for_each(|part| outlet.write_all(&part))
    });
    let first = v1::ExportResponse { part: Some(v1::export_response::Part::Info(info)) };
    Ok(futures::stream::iter([Ok(first)]).chain(answers).boxed())
}

fn refused(error: PortableError) -> Failure {
    match error {
        PortableError::NoModule => Failure::none(Reason::NoModule, error.to_string()),
        PortableError::Guest(_) => Failure::none(Reason::SnapshotRefused, error.to_string()),
        PortableError::Host(_) => {
            let words = format!("this node could not make a copy, another may: {error}");
            Failure::none(Reason::CannotAnswer, words)
        }
    }
}

/// Copies the state, if nobody else is at it.
async fn copy(
    context: &Context,
    caller: &Caller,
) -> Result<(OwnedSemaphorePermit, MachineCopy), Failure> {
    let permit = Arc::clone(&context.copying).try_acquire_owned().map_err(|_| {
        let words = "this node is making a copy of its state already: try again when that is \
                     done, or ask another one";
        Failure::none(Reason::Busy, words)
    })?;
    let refused = |words| Failure::none(Reason::SnapshotRefused, words);
    let copied = async { context.handle.copy().await.map_err(refused) };
    Ok((permit, caller.within_question(copied).await?))
}

/// Runs what writes to a client that may be slow.
fn in_background<M: Send + 'static>(
    permit: OwnedSemaphorePermit,
    mut outlet: Outlet<M>,
    write: impl FnOnce(&mut Outlet<M>) -> io::Result<()> + Send + 'static,
) {
    tokio::task::spawn_blocking(move || {
        let written = write(&mut outlet).and_then(|()| outlet.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "a copy of the state was not handed out completely");
            outlet.fail(&error);
        }
        drop(permit);
    });
}

/// Bytes on their way to a client. Writes wait for it; not on the runtime's threads.
struct Outlet<M> {
    parts: mpsc::Sender<Result<M, Status>>,
    part: Vec<u8>,
    make: fn(Bytes) -> M,
    runtime: Handle,
    stopping: CancellationToken,
}

impl<M: Send + 'static> Outlet<M> {
    fn open(
        stopping: CancellationToken,
        make: fn(Bytes) -> M,
    ) -> (Outlet<M>, BoxStream<'static, Result<M, Status>>) {
        let (parts, receiver) = mpsc::channel(PARTS_QUEUED);
        let (part, runtime) = (Vec::new(), Handle::current());
        let outlet = Outlet { parts, part, make, runtime, stopping };
        (outlet, ReceiverStream::new(receiver).boxed())
    }

    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        if part.is_empty() {
            return Ok(());
        }
        let sending = self.parts.send(Ok((self.make)(part.into())));
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stopping.cancelled() => Err(io::Error::other("this node stops")),
                sent = timeout(UNREAD_TIME, sending) => match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(io::Error::other("its reader went away")),
                    Err(_) => Err(io::Error::other("its reader took nothing for too long")),
                },
            }
        })
    }

    /// Tells whoever still listens.
    fn fail(&self, error: &io::Error) {
        let reason = match self.stopping.is_cancelled() {
            true => Reason::Stopping,
            false => Reason::Internal,
        };
        let failure = Failure::none(reason, format!("the copy broke off: {error}"));
        // Without room, the client finds that the end is missing.
        let _ = self.parts.try_send(Err(failure.into_status()));
    }
}

impl<M: Send + 'static> Write for Outlet<M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() >= PART_BYTES {
            self.send()?;
        }
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
