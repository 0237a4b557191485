//! What a normal entry is for, seen without decoding all of it.

use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};

/// What the body of a normal entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the messages in log.proto")]
pub enum BodyKind {
    /// No bytes at all: a new leader's first entry.
    Nothing,
    /// A batch of commands, most often of one.
    Command,
    OpenSession,
    CloseSession,
    ModuleChunk,
    ActivateModule,
    SetLimits,
    DigestPoint,
    DigestVerdict,
    /// Nothing that this version knows.
    Unknown,
    SetEngine,
    SetClock,
    KeepSession,
    SetLevel,
    SetKeys,
    SetAccess,
    ForkState,
    RecordReceipt,
    SettleUpgrade,
}

impl BodyKind {
    /// Every kind, in an order that only ever grows at its end.
    pub const ALL: [BodyKind; 19] = [
        BodyKind::Nothing,
        BodyKind::Command,
        BodyKind::OpenSession,
        BodyKind::CloseSession,
        BodyKind::ModuleChunk,
        BodyKind::ActivateModule,
        BodyKind::SetLimits,
        BodyKind::DigestPoint,
        BodyKind::DigestVerdict,
        BodyKind::Unknown,
        BodyKind::SetEngine,
        BodyKind::SetClock,
        BodyKind::KeepSession,
        BodyKind::SetLevel,
        BodyKind::SetKeys,
        BodyKind::SetAccess,
        BodyKind::ForkState,
        BodyKind::RecordReceipt,
        BodyKind::SettleUpgrade,
    ];

    /// The kind of an encoded `raft_host.storage.v1.Entry`; what it says is checked by whoever decodes it.
    pub fn of(data: &[u8]) -> BodyKind {
        if data.is_empty() {
            return BodyKind::Nothing;
        }
        let mut rest = data;
        while let Ok((tag, wire_type)) = decode_key(&mut rest) {
            let skipped = match tag {
                1 => decode_varint(&mut rest).map(drop),
                2 => return BodyKind::Command,
                3 => return BodyKind::OpenSession,
                4 => return BodyKind::CloseSession,
                5 => return BodyKind::ModuleChunk,
                6 => return BodyKind::ActivateModule,
                7 => return BodyKind::SetLimits,
                8 => return BodyKind::DigestPoint,
                9 => return BodyKind::DigestVerdict,
                10 => return BodyKind::SetEngine,
                11 => return BodyKind::SetClock,
                12 => return BodyKind::SetLevel,
                15 => return BodyKind::SetKeys,
                14 => return BodyKind::SetAccess,
                16 => return BodyKind::ForkState,
                17 => return BodyKind::RecordReceipt,
                18 => return BodyKind::SettleUpgrade,
                20 => return BodyKind::KeepSession,
                _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default()),
            };
            if skipped.is_err() {
                break;
            }
        }
        BodyKind::Unknown
    }

    /// Its name in metrics, JSON and texts.
    pub fn name(self) -> &'static str {
        match self {
            BodyKind::Nothing => "nothing",
            BodyKind::Command => "command",
            BodyKind::OpenSession => "open_session",
            BodyKind::CloseSession => "close_session",
            BodyKind::ModuleChunk => "module_chunk",
            BodyKind::ActivateModule => "activate_module",
            BodyKind::SetLimits => "set_limits",
            BodyKind::DigestPoint => "digest_point",
            BodyKind::DigestVerdict => "digest_verdict",
            BodyKind::Unknown => "unknown",
            BodyKind::SetEngine => "set_engine",
            BodyKind::SetClock => "set_clock",
            BodyKind::KeepSession => "keep_session",
            BodyKind::SetLevel => "set_level",
            BodyKind::SetKeys => "set_keys",
            BodyKind::SetAccess => "set_access",
            BodyKind::ForkState => "fork_state",
            BodyKind::RecordReceipt => "record_receipt",
            BodyKind::SettleUpgrade => "settle_upgrade",
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use raft_host_proto::stored;
    use raft_host_proto::stored::entry::Body;

    use super::*;

    #[test]
    fn every_kind_of_entry_is_told_without_decoding_it() {
        let bodies = [
            (stored::Command::default().into(), BodyKind::Command),
            (Body::OpenSession(stored::OpenSession::default()), BodyKind::OpenSession),
            (Body::CloseSession(stored::CloseSession { session_id: 7 }), BodyKind::CloseSession),
            (Body::ModuleChunk(stored::ModuleChunk::default()), BodyKind::ModuleChunk),
            (Body::ActivateModule(stored::ActivateModule::default()), BodyKind::ActivateModule),
            (Body::SetLimits(stored::SetLimits::default()), BodyKind::SetLimits),
            (Body::DigestPoint(stored::DigestPoint {}), BodyKind::DigestPoint),
            (Body::DigestVerdict(stored::DigestVerdict::default()), BodyKind::DigestVerdict),
            (Body::SetEngine(stored::SetEngine::default()), BodyKind::SetEngine),
            (Body::SetClock(stored::SetClock { time_ms: 7 }), BodyKind::SetClock),
            (Body::KeepSession(stored::KeepSession::default()), BodyKind::KeepSession),
            (Body::SetLevel(stored::SetLevel { level: 7 }), BodyKind::SetLevel),
            (Body::SetKeys(stored::SetKeys::default()), BodyKind::SetKeys),
            (Body::SetAccess(stored::SetAccess::default()), BodyKind::SetAccess),
            (Body::ForkState(stored::ForkState::default()), BodyKind::ForkState),
            (Body::RecordReceipt(stored::RecordReceipt::default()), BodyKind::RecordReceipt),
            (
                Body::SettleUpgrade(stored::SettleUpgrade { activated_at: 7 }),
                BodyKind::SettleUpgrade,
            ),
        ];
        for (body, kind) in bodies {
            for time_ms in [0, u64::MAX] {
                for actor in [None, Some(stored::Actor::default())] {
                    let entry = stored::Entry { time_ms, actor, body: Some(body.clone()) };
                    assert_eq!(BodyKind::of(&entry.encode_to_vec()), kind);
                }
            }
        }
        assert_eq!(BodyKind::of(b""), BodyKind::Nothing);
        assert_eq!(BodyKind::of(b"\xff\xff\xff"), BodyKind::Unknown);
        // Field 99, as an entry of a later version may have it.
        assert_eq!(BodyKind::of(&[0x9a, 0x06, 0x00]), BodyKind::Unknown);
        let names: std::collections::BTreeSet<_> =
            BodyKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), BodyKind::ALL.len());
    }
}
