//! The codec of all methods: prost's, behind a look at how many parts a message has.
//!
//! A part of two bytes on the wire becomes a structure of hundreds in memory, so a limit on the
//! bytes of a message does not limit what decoding makes of it. What honest senders put into a
//! message has several bytes per part; what has more parts than that is refused before anything
//! is decoded.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::peer;

/// Parts that every message may have.
const PARTS_FREE: usize = 4_096;
/// Beyond those, bytes per part. A command in a stream takes ten, a message of a peer more.
const BYTES_PER_PART: usize = 8;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes what does not have too many parts.
#[derive(Clone, Copy, Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = buffer.remaining();
        // The buffer of a whole message is in one piece. If it ever is not, prost still refuses
        // what is malformed; what is looked at is then a part.
        if !has_few_parts(buffer.chunk(), nesting_field::<U>()) {
            return Err(Status::invalid_argument(format!(
                "a message of {length} bytes has too many parts: send fewer in one message"
            )));
        }
        let decoded = U::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(decoded))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// The field whose parts have parts of their own that are counted: a peer's messages, which have
/// entries. Other requests nest nothing that repeats.
fn nesting_field<U: 'static>() -> Option<u64> {
    let wanted = TypeId::of::<U>();
    let nests = [TypeId::of::<peer::PeerEnvelope>(), TypeId::of::<peer::SnapshotPart>()];
    nests.contains(&wanted).then_some(2)
}

/// Whether the parts of a message, and those of its parts in the field `nesting`, number no more than the bytes
/// allow: up to no place in it are there more than the bytes before allow. So the first few thousand tell of a
/// message that is made of nothing else.
fn has_few_parts(message: &[u8], nesting: Option<u64>) -> bool {
    let allowed = |rest: usize| PARTS_FREE + (message.len() - rest) / BYTES_PER_PART;
    let (mut outer, mut inner) = (0, 0);
    let mut parts = Parts(message);
    while let Some((field, part)) = parts.next() {
        outer += 1;
        if outer > allowed(parts.0.len()) {
            return false;
        }
        let mut inside = Parts(if nesting == Some(field) { part } else { &[] });
        while inside.next().is_some() {
            inner += 1;
            if inner > allowed(parts.0.len() + inside.0.len()) {
                return false;
            }
        }
    }
    true
}

/// The length-delimited fields of a message with their numbers, as far as it can be read.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        loop {
            let Field { number, content, rest } = field(self.0)?;
            self.0 = rest;
            if let Some(content) = content {
                return Some((number, content));
            }
        }
    }
}

/// A field at the beginning of a message.
struct Field<'a> {
    number: u64,
    /// If it is length-delimited.
    content: Option<&'a [u8]>,
    /// What follows.
    rest: &'a [u8],
}

/// The first field; `None` where a decoder fails as well. Groups are walked through, not over:
/// a decoder skips one that it does not know and goes on behind it. See
/// <https://protobuf.dev/programming-guides/encoding/>.
fn field(message: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = varint(message)?;
    let number = tag >> 3;
    let (content, rest) = match tag & 7 {
        0 => (None, varint(rest)?.1),
        1 => (None, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).ok()?;
            (Some(rest.get(..length)?), rest.get(length..)?)
        }
        3 | 4 => (None, rest),
        5 => (None, rest.get(4..)?),
        _ => return None,
    };
    Some(Field { number, content, rest })
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(at as u32 * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    /// An unknown group ended the count, and a decoder skips it and goes on.
    #[test]
    fn parts_behind_a_group_count() {
        let mut message = vec![15 << 3 | 3, 15 << 3 | 4];
        message.extend([0x0a, 0x00].repeat(1 << 20));
        assert!(!has_few_parts(&message, None));
    }

    #[test]
    fn what_clients_and_peers_send_has_few_parts() {
        let tiny = v1::TaggedCommand {
            tag: 300,
            request: Some(v1::ApplyRequest { command: "x".into(), ..Default::default() }),
            timeout_ms: 0,
        };
        let stream = v1::ApplyStreamRequest { commands: vec![tiny; 16_384] };
        assert!(has_few_parts(&stream.encode_to_vec(), None));
        let answer =
            peer::RaftMessage { group: 1, kind: 7, from: 1, to: 2, term: 3, ..Default::default() };
        let entry = peer::RaftEntry {
            index: 9,
            term: 3,
            data: "entry of 16 byte".into(),
            ..Default::default()
        };
        let append = peer::RaftMessage { entries: vec![entry; 40_000], ..answer.clone() };
        let mut messages = vec![answer; 16_384];
        messages.push(append);
        let envelope = peer::PeerEnvelope { hello: None, messages };
        let nesting = nesting_field::<peer::PeerEnvelope>();
        assert!(has_few_parts(&envelope.encode_to_vec(), nesting));
        // A command that happens to read like a message of two-byte parts.
        let command = b"\x0a\x00".repeat(1 << 20);
        let upload = v1::ApplyRequest { command: command.into(), ..Default::default() };
        let nesting = nesting_field::<v1::ApplyRequest>();
        assert!(has_few_parts(&upload.encode_to_vec(), nesting));
    }

    #[test]
    fn a_message_of_two_byte_parts_is_refused_whichever_way_they_are_nested() {
        assert!(!has_few_parts(&b"\x0a\x00".repeat(1 << 20), None));
        assert!(!has_few_parts(&b"\x12\x00".repeat(1 << 20), Some(2)));
        let nested = peer::RaftMessage {
            entries: vec![peer::RaftEntry::default(); 1 << 20],
            ..Default::default()
        };
        let envelope = peer::PeerEnvelope { hello: None, messages: vec![nested] };
        assert!(!has_few_parts(&envelope.encode_to_vec(), Some(2)));
        assert!(has_few_parts(&b"\x12\x00".repeat(1_000), Some(2)));
    }
}
