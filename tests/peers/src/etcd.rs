//! The little of etcd's gRPC that load needs: KV/Put, linearizable KV/Range, Maintenance/Status.
//!
//! Messages and framing are written by hand over `h2`, so that a request costs the client little: it shares
//! its processors with the servers. See etcd's `rpc.proto` for the fields.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// gRPC puts a flag and the length before each message.
const PREFIX_BYTES: usize = 5;

/// A connection to one node. It ends with this.
#[derive(Debug)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    put: Request<()>,
    range: Request<()>,
    status: Request<()>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(crate) async fn to(address: SocketAddr) -> Result<Connection> {
        let name = || address.to_string();
        let tcp = TcpStream::connect(address).await.with_context(name)?;
        tcp.set_nodelay(true).with_context(name)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake::<_, Bytes>(tcp)
            .await
            .with_context(name)?;
        // When the connection breaks its requests fail, and say why.
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection {
            send,
            put: request(address, "/etcdserverpb.KV/Put")?,
            range: request(address, "/etcdserverpb.KV/Range")?,
            status: request(address, "/etcdserverpb.Maintenance/Status")?,
            task,
        })
    }

    pub(crate) async fn put(&self, body: Bytes) -> Result<()> {
        self.call(self.put.clone(), body).await.map(drop)
    }

    /// The length of the key's value; `None`: there is no such key.
    pub(crate) async fn range(&self, body: Bytes) -> Result<Option<usize>> {
        let answer = self.call(self.range.clone(), body).await?;
        Ok(value_len(&answer))
    }

    async fn call(&self, request: Request<()>, body: Bytes) -> Result<Bytes> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(body, true)?;
        let response = response.await?;
        if response.status() != 200 {
            bail!("HTTP {}", response.status());
        }
        if let Some(status) = status_of(response.headers()) {
            status?;
        }
        let mut body = response.into_body();
        let mut whole = Bytes::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            whole = match whole.is_empty() {
                true => part,
                false => [whole, part].concat().into(),
            };
        }
        let trailers = body.trailers().await?;
        trailers.as_ref().and_then(status_of).ok_or_else(|| anyhow!("no grpc-status"))??;
        if whole.len() < PREFIX_BYTES {
            bail!("an answer without a message");
        }
        Ok(whole.slice(PREFIX_BYTES..))
    }
}

fn request(address: SocketAddr, path: &str) -> Result<Request<()>> {
    let request = Request::builder()
        .method("POST")
        .version(http::Version::HTTP_2)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    Ok(request.body(())?)
}

fn status_of(headers: &HeaderMap) -> Option<Result<()>> {
    let status = headers.get("grpc-status")?;
    if status.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").and_then(|it| it.to_str().ok()).unwrap_or_default();
    Some(Err(anyhow!("grpc-status {}: {message}", String::from_utf8_lossy(status.as_bytes()))))
}

/// The leader among these nodes, if each of them knows one and it is the same.
pub(crate) async fn leader_of_all(nodes: &[SocketAddr]) -> Option<SocketAddr> {
    let mut known = Vec::new();
    for node in nodes {
        let connection = Connection::to(*node).await.ok()?;
        let answer = connection.call(connection.status.clone(), framed(0, |_| {})).await.ok()?;
        known.push((*node, member_and_leader(&answer)?));
    }
    let (_, (_, leader)) = *known.first()?;
    let is_agreed = leader != 0 && known.iter().all(|(_, (_, known))| *known == leader);
    known.iter().find(|(_, (member, _))| is_agreed && *member == leader).map(|(node, _)| *node)
}

/// A PutRequest (key = 1, value = 2); the value begins with some bytes that differ.
pub(crate) fn put_body(key: u32, random: u64, bytes: usize) -> Bytes {
    let key = key_name(key);
    framed(bytes + 40, |body| {
        field(body, 1, key.as_bytes());
        body.put_u8(2 << 3 | 2);
        varint(body, bytes as u64);
        let random = random.to_le_bytes();
        let differing = bytes.min(random.len());
        body.put_slice(&random[..differing]);
        body.put_bytes(b'v', bytes - differing);
    })
}

/// A RangeRequest of one key (key = 1), linearizable as it is by default.
pub(crate) fn range_body(key: u32) -> Bytes {
    let key = key_name(key);
    framed(32, |body| field(body, 1, key.as_bytes()))
}

/// As long as the keys that raft-host's bench writes.
fn key_name(key: u32) -> String {
    let mut name = String::with_capacity(9);
    write!(name, "k{key:08}").expect("writing to a string");
    name
}

/// A message with its prefix.
fn framed(room: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut body = BytesMut::with_capacity(room + PREFIX_BYTES);
    body.put_bytes(0, PREFIX_BYTES);
    write(&mut body);
    let length = (body.len() - PREFIX_BYTES) as u32;
    body[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    body.freeze()
}

fn varint(body: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        body.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    body.put_u8(number as u8);
}

fn field(body: &mut BytesMut, number: u8, data: &[u8]) {
    body.put_u8(number << 3 | 2);
    varint(body, data.len() as u64);
    body.put_slice(data);
}

/// What a field holds.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift)?;
        if *first < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

/// The first field of that number in a message.
fn find(mut message: &[u8], wanted: u64) -> Option<Content<'_>> {
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let content = match tag & 7 {
            0 => Content::Number(read_varint(&mut message)?),
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                let content = message.get(..length)?;
                message = &message[length..];
                Content::Bytes(content)
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(content);
        }
    }
    None
}

fn find_bytes(message: &[u8], wanted: u64) -> Option<&[u8]> {
    match find(message, wanted)? {
        Content::Bytes(bytes) => Some(bytes),
        Content::Number(_) => None,
    }
}

fn find_number(message: &[u8], wanted: u64) -> u64 {
    match find(message, wanted) {
        Some(Content::Number(number)) => number,
        _ => 0,
    }
}

/// Of a RangeResponse (kvs = 2, in it value = 5): how long the first value is.
fn value_len(range: &[u8]) -> Option<usize> {
    let pair = find_bytes(range, 2)?;
    Some(find_bytes(pair, 5).map_or(0, <[u8]>::len))
}

/// Of a StatusResponse (header = 1, in it member_id = 2; leader = 4): who answers, and who leads.
fn member_and_leader(status: &[u8]) -> Option<(u64, u64)> {
    let header = find_bytes(status, 1)?;
    Some((find_number(header, 2), find_number(status, 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed_and_have_values_of_the_wanted_length() {
        let put = put_body(7, 1, 300);
        assert_eq!(put[..PREFIX_BYTES], [0, 0, 0, 1, 58]);
        assert_eq!(put.len() - PREFIX_BYTES, 256 + 58);
        let message = &put[PREFIX_BYTES..];
        assert_eq!(find_bytes(message, 1), Some(&b"k00000007"[..]));
        assert_eq!(find_bytes(message, 2).unwrap().len(), 300);
        assert_eq!(find_bytes(&range_body(12)[PREFIX_BYTES..], 1), Some(&b"k00000012"[..]));
        assert_eq!(find_bytes(&put_body(7, 1, 3)[PREFIX_BYTES..], 2).unwrap().len(), 3);
    }

    #[test]
    fn answers_are_read_and_broken_ones_say_nothing() {
        let mut pair = BytesMut::new();
        field(&mut pair, 1, b"key");
        field(&mut pair, 5, &[9; 200]);
        let mut range = BytesMut::new();
        field(&mut range, 1, b"header");
        assert_eq!(value_len(&range), None, "no key");
        field(&mut range, 2, &pair);
        assert_eq!(value_len(&range), Some(200));
        assert_eq!(value_len(&range[..range.len() - 1]), None);
        let mut status = BytesMut::new();
        field(&mut status, 1, &[2 << 3, 77]);
        status.put_slice(&[4 << 3, 0xac, 0x02]);
        assert_eq!(member_and_leader(&status), Some((77, 300)));
        assert_eq!(member_and_leader(&[]), None);
        assert_eq!(read_varint(&mut &[0x80; 20][..]), None);
    }
}
