//! `Upgrade`: takes a module in, then has the leader check, replicate and activate it.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use raft_host_proto::v1::{self, Effect, Reason, upgrade_request::Part};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::caller::Caller;
use super::context::Context;
use super::convert::{bytes, incumbent_from_wire};
use super::failure::Failure;
use super::forward::{answered, passed_on};
use super::keys::signatures_from_wire;
use super::prepare;
use crate::fsm::Limits;
use crate::machine::{CHUNK_MAX_BYTES, Incumbent, LABEL_MAX_BYTES};
use crate::node::{ProposeFailure, Upgrade, UpgradeFailure};
use crate::signing::ModuleSignature;
use crate::types::{Exceeded, Member, ModuleHash};

/// How long a busy leader may keep an upgrade waiting.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a busy leader is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long the voters may take to compile a module before it is activated all the same.
const PREPARE_PATIENCE: Duration = Duration::from_secs(60);

/// A module as it was uploaded, complete and with the hash that was announced.
#[derive(Debug)]
struct Upload {
    header: v1::UpgradeHeader,
    hash: ModuleHash,
    replaces: Option<Incumbent>,
    signatures: Vec<ModuleSignature>,
    module: Bytes,
}

pub(super) async fn run(
    context: &Context,
    caller: &Caller,
    incoming: Streaming<v1::UpgradeRequest>,
    hear: impl Fn(&v1::UpgradeHeader) + Send,
) -> Result<v1::UpgradeResponse, Failure> {
    let max = context
        .handle
        .machine()
        .borrow()
        .as_ref()
        .map_or(Limits::default().module_max_bytes, |view| view.info.limits.module_max_bytes);
    let upload = receive(max, incoming, hear).await?;
    context.check_group(&upload.header.group)?;
    let upload = &upload;
    let here = || activate(context, caller, upload);
    let there = |leader: Member| async move {
        let mut admin = context.forwarder.admin(&leader)?;
        let parts = tokio_stream::iter(parts(upload));
        answered(admin.upgrade(passed_on(parts, caller, Some(caller.remaining()))).await)
    };
    context.on_leader(caller, context.election_patience() + BUSY_PATIENCE, here, there).await
}

/// Takes the parts in and checks what was announced against what came.
async fn receive(
    max: u64,
    mut incoming: impl Stream<Item = Result<v1::UpgradeRequest, Status>> + Unpin,
    hear: impl Fn(&v1::UpgradeHeader),
) -> Result<Upload, Failure> {
    let bad = |words: String| Failure::none(Reason::InvalidRequest, words);
    let header = match incoming.try_next().await.map_err(broken)?.and_then(|request| request.part) {
        Some(Part::Header(header)) => header,
        Some(Part::Data(_)) | None => {
            return Err(bad("the first message of an upgrade must be its header".to_owned()));
        }
    };
    hear(&header);
    if header.label.len() > LABEL_MAX_BYTES || header.label.contains(char::is_control) {
        let failure = bad(format!(
            "a module's label may have {LABEL_MAX_BYTES} bytes and no control characters; give \
             it another one (--label)"
        ));
        let limit = "label_max_bytes";
        return Err(failure.exceeding_if(limit, header.label.len() as u64, LABEL_MAX_BYTES as u64));
    }
    let announced = ModuleHash::try_from(&header.module_hash[..])
        .map_err(|error| bad(format!("the header's module hash: {error}")))?;
    let replaces = header.replaces.as_ref().map(incumbent_from_wire).transpose()?;
    let signatures = signatures_from_wire(&header.signatures)?;
    if header.total_bytes > max {
        let bytes = header.total_bytes;
        let words = format!("the module has {bytes} bytes and the cluster allows {max}");
        return Err(Failure::too_large(
            Exceeded { limit: "module_max_bytes", value: bytes, max },
            words,
        ));
    }
    // Grows with what really comes; the header alone costs nothing.
    let mut module = BytesMut::new();
    while let Some(request) = incoming.try_next().await.map_err(broken)? {
        let Some(Part::Data(data)) = request.part else {
            return Err(bad("after the header, every message must carry data".to_owned()));
        };
        if (module.len() + data.len()) as u64 > header.total_bytes {
            return Err(bad(format!(
                "more than the {} bytes that the header announced",
                header.total_bytes
            )));
        }
        module.extend_from_slice(&data);
    }
    if (module.len() as u64) < header.total_bytes {
        return Err(bad(format!(
            "the upload ended after {} of the {} bytes that the header announced",
            module.len(),
            header.total_bytes
        )));
    }
    let found = ModuleHash::of(&module);
    if found != announced {
        return Err(bad(format!("the module's SHA-256 is {found}, the header says {announced}")));
    }
    Ok(Upload { header, hash: found, replaces, signatures, module: module.freeze() })
}

/// Nothing is done about a part of a module.
fn broken(status: Status) -> Failure {
    let failure = Failure::of_library(&status, Effect::None);
    match failure.reason() {
        Reason::BrokenOff => Failure::none(
            Reason::BrokenOff,
            format!(
                "the upload broke off before the whole module was here ({}); nothing was changed: \
                 send it again",
                status.message()
            ),
        ),
        _ => failure,
    }
}

fn parts(upload: &Upload) -> Vec<v1::UpgradeRequest> {
    let header = v1::UpgradeRequest { part: Some(Part::Header(upload.header.clone())) };
    let chunks = (0..upload.module.len()).step_by(CHUNK_MAX_BYTES).map(|at| {
        let end = upload.module.len().min(at + CHUNK_MAX_BYTES);
        v1::UpgradeRequest { part: Some(Part::Data(upload.module.slice(at..end))) }
    });
    std::iter::once(header).chain(chunks).collect()
}

async fn activate(
    context: &Context,
    caller: &Caller,
    upload: &Upload,
) -> Result<v1::UpgradeResponse, Failure> {
    let handle = &context.handle.acting_for(caller.actor);
    let upgrade = Upgrade {
        module: upload.module.clone(),
        label: upload.header.label.clone(),
        replaces: upload.replaces,
        discard_state: upload.header.discard_state,
        signatures: upload.signatures.clone(),
    };
    if handle.check_signed(&upgrade).is_err() {
        // A leader that has just started may not have applied what made a key trusted.
        context.after_all_committed().await?;
        handle.check_signed(&upgrade)?;
    }
    unless_busy(|| handle.bring_in(&upload.module)).await?;
    let patience = PREPARE_PATIENCE.min(caller.remaining() / 2);
    prepare::when_voters_are(context, upload.hash, patience).await;
    let upgraded = unless_busy(|| handle.activate(upgrade.clone())).await?;
    Ok(v1::UpgradeResponse {
        index: upgraded.index.0,
        module_hash: bytes(upgraded.hash.0),
        previous_hash: upgraded.previous.map(|it| bytes(it.0)).unwrap_or_default(),
        already_active: upgraded.already_active,
    })
}

/// Tries again while the node has too much to do.
async fn unless_busy<T, F>(attempt: impl Fn() -> F) -> Result<T, UpgradeFailure>
where
    F: Future<Output = Result<T, UpgradeFailure>>,
{
    let give_up = Instant::now() + BUSY_PATIENCE;
    loop {
        match attempt().await {
            Err(UpgradeFailure::Propose(ProposeFailure::Busy(_))) if Instant::now() < give_up => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    async fn received(max: u64, parts: Vec<Part>) -> Result<Bytes, String> {
        let parts = parts.into_iter().map(|part| Ok(v1::UpgradeRequest { part: Some(part) }));
        let upload = receive(max, tokio_stream::iter(parts), |_| {}).await;
        upload.map(|upload| upload.module).map_err(|failure| {
            assert_eq!(failure.code(), Code::InvalidArgument);
            failure.message().to_owned()
        })
    }

    fn header(module: &[u8]) -> Part {
        Part::Header(v1::UpgradeHeader {
            module_hash: ModuleHash::of(module).0.to_vec().into(),
            total_bytes: module.len() as u64,
            ..Default::default()
        })
    }

    fn data(bytes: &'static [u8]) -> Part {
        Part::Data(Bytes::from_static(bytes))
    }

    #[tokio::test]
    async fn a_module_in_parts_is_put_together() {
        let parts = vec![header(b"abcdef"), data(b"abc"), data(b"def")];
        assert_eq!(received(6, parts).await, Ok(Bytes::from_static(b"abcdef")));
    }

    #[tokio::test]
    async fn an_upload_that_is_not_what_was_announced_is_refused_with_words() {
        let cases = [
            (vec![], "must be its header"),
            (vec![data(b"abc")], "must be its header"),
            (vec![header(b"abc"), header(b"abc")], "must carry data"),
            (vec![header(b"abcdefg")], "the cluster allows 6"),
            (vec![header(b"abc"), data(b"abcd")], "more than the 3 bytes"),
            (vec![header(b"abc"), data(b"ab")], "ended after 2 of the 3"),
            (vec![header(b"abc"), data(b"abd")], "SHA-256"),
        ];
        for (parts, words) in cases {
            let message = received(6, parts).await.unwrap_err();
            assert!(message.contains(words), "{message:?} should contain {words:?}");
        }
    }

    /// It was told as a leader that cannot be reached.
    #[tokio::test]
    async fn an_upload_whose_sender_goes_away_has_broken_off_without_effect() {
        let sent = [Ok(header(b"abcdef")), Ok(data(b"abc")), Err(Status::unavailable("reset"))];
        for arrived in 0..sent.len() {
            let lost = Err(Status::unavailable("reset"));
            let parts = sent[..arrived].iter().cloned().chain([lost]);
            let parts = parts.map(|part| Ok(v1::UpgradeRequest { part: Some(part?) }));
            let failure = receive(6, tokio_stream::iter(parts), |_| {}).await.unwrap_err();
            assert_eq!(failure.reason(), Reason::BrokenOff, "{failure:?}");
            assert_eq!((failure.code(), failure.effect()), (Code::Cancelled, Effect::None));
        }
        // What else the library refuses keeps its reason.
        let parts = [Err(Status::out_of_range("long"))];
        let failure = receive(6, tokio_stream::iter(parts), |_| {}).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::TooLarge, "{failure:?}");
    }
}
