//! A module on its way in: as it comes from a client, and as it is passed on to the leader.

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use raft_host_proto::v1::{self, Effect, Reason, upgrade_request::Part};
use tonic::Status;

use super::context::Context;
use super::convert::incumbent_from_wire;
use super::failure::Failure;
use super::keys::signatures_from_wire;
use crate::fsm::Limits;
use crate::machine::{CHUNK_MAX_BYTES, Incumbent, LABEL_MAX_BYTES};
use crate::signing::ModuleSignature;
use crate::types::{Exceeded, ModuleHash};

/// A module as it was uploaded, complete and with the hash that was announced.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) header: v1::UpgradeHeader,
    pub(super) hash: ModuleHash,
    pub(super) replaces: Option<Incumbent>,
    pub(super) signatures: Vec<ModuleSignature>,
    pub(super) module: Bytes,
}

/// Most bytes of what the cluster takes in, and which limit says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maxima {
    module: u64,
    state: u64,
}

impl Maxima {
    fn of(self, is_state: bool) -> (&'static str, &'static str, u64) {
        match is_state {
            true => ("portable state", "snapshot_max_bytes", self.state),
            false => ("module", "module_max_bytes", self.module),
        }
    }
}

/// As this node has applied them.
pub(super) fn maxima(context: &Context) -> Maxima {
    let view = context.handle.machine().borrow().clone();
    let limits = view.map_or_else(Limits::default, |view| view.info.limits.clone());
    Maxima { module: limits.module_max_bytes, state: limits.snapshot_max_bytes }
}

/// Refuses a label that none can be.
pub(super) fn check_label(label: &str) -> Result<(), Failure> {
    if label.len() <= LABEL_MAX_BYTES && !label.contains(char::is_control) {
        return Ok(());
    }
    let words = format!(
        "a module's label may have {LABEL_MAX_BYTES} bytes and no control characters; give it another one \
         (--label)"
    );
    let failure = Failure::none(Reason::InvalidRequest, words);
    Err(failure.exceeding_if("label_max_bytes", label.len() as u64, LABEL_MAX_BYTES as u64))
}

/// Takes the parts in and checks what was announced against what came.
pub(super) async fn receive(
    maxima: Maxima,
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
    check_label(&header.label)?;
    let announced = ModuleHash::try_from(&header.module_hash[..])
        .map_err(|error| bad(format!("the header's module hash: {error}")))?;
    let replaces = header.replaces.as_ref().map(incumbent_from_wire).transpose()?;
    let signatures = signatures_from_wire(&header.signatures)?;
    let (what, limit, max) = maxima.of(header.is_state);
    if header.total_bytes > max {
        let bytes = header.total_bytes;
        let words = format!("the {what} has {bytes} bytes and the cluster allows {max}");
        return Err(Failure::too_large(Exceeded { limit, value: bytes, max }, words));
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

/// The same again.
pub(super) fn parts(upload: &Upload) -> Vec<v1::UpgradeRequest> {
    let header = v1::UpgradeRequest { part: Some(Part::Header(upload.header.clone())) };
    let chunks = (0..upload.module.len()).step_by(CHUNK_MAX_BYTES).map(|at| {
        let end = upload.module.len().min(at + CHUNK_MAX_BYTES);
        v1::UpgradeRequest { part: Some(Part::Data(upload.module.slice(at..end))) }
    });
    std::iter::once(header).chain(chunks).collect()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const SIX: Maxima = Maxima { module: 6, state: 6 };

    async fn received(max: u64, parts: Vec<Part>) -> Result<Bytes, String> {
        let parts = parts.into_iter().map(|part| Ok(v1::UpgradeRequest { part: Some(part) }));
        let maxima = Maxima { module: max, state: max };
        let upload = receive(maxima, tokio_stream::iter(parts), |_| {}).await;
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
            let failure = receive(SIX, tokio_stream::iter(parts), |_| {}).await.unwrap_err();
            assert_eq!(failure.reason(), Reason::BrokenOff, "{failure:?}");
            assert_eq!((failure.code(), failure.effect()), (Code::Cancelled, Effect::None));
        }
        // What else the library refuses keeps its reason.
        let parts = [Err(Status::out_of_range("long"))];
        let failure = receive(SIX, tokio_stream::iter(parts), |_| {}).await.unwrap_err();
        assert_eq!(failure.reason(), Reason::TooLarge, "{failure:?}");
    }
}
