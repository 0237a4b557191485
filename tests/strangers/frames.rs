//! Frames of HTTP/2 (RFC 9113 §6), also such as nobody may send.

/// What a client of HTTP/2 says first, with an empty SETTINGS frame (§3.4).
pub const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Bytes of a call.
pub const DATA: u8 = 0;
/// What a call begins with.
pub const HEADERS: u8 = 1;
/// What nobody heeds any more.
pub const PRIORITY: u8 = 2;
/// The end of a call.
pub const RST_STREAM: u8 = 3;
/// What holds for a connection.
pub const SETTINGS: u8 = 4;
/// A question whether somebody is there.
pub const PING: u8 = 6;
/// Leave to send more.
pub const WINDOW_UPDATE: u8 = 8;
/// More headers.
pub const CONTINUATION: u8 = 9;
/// The flag of the last of these.
pub const END_HEADERS: u8 = 4;
/// None.
pub const NO_FLAGS: u8 = 0;

/// A frame with this content.
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    let mut frame = [&length[1..], &[kind, flags]].concat();
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

/// The head of a frame that announces so many bytes.
pub fn head(kind: u8, flags: u8, stream: u32, announced: u32) -> Vec<u8> {
    let mut head = announced.to_be_bytes()[1..].to_vec();
    head.extend([kind, flags]);
    head.extend(stream.to_be_bytes());
    head
}

/// The headers of a gRPC call, as literals without indexing (RFC 7541 §6.2.2).
pub fn call_block(path: &str) -> Vec<u8> {
    // :method POST, :scheme http.
    let mut block = vec![0x83, 0x86];
    let mut say = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend(value.as_bytes());
    };
    say(&[0x04], path);
    say(&[0x01], "localhost");
    say(&[0x0f, 0x10], "application/grpc");
    say(&[0x00, 2, b't', b'e'], "trailers");
    block
}

/// The headers of a gRPC call, in a frame that leaves the stream open.
pub fn open_call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_block(path))
}

/// The end of a call whose answer nobody wants (CANCEL).
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, NO_FLAGS, stream, &8_u32.to_be_bytes())
}

/// A header of so many bytes, without indexing.
pub fn long_header(bytes: usize) -> Vec<u8> {
    let mut block = vec![0x00, 1, b'x'];
    block.extend(integer(bytes));
    block.extend(std::iter::repeat_n(b'v', bytes));
    block
}

/// A length of seven bits and more (RFC 7541 §5.1).
fn integer(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![u8::try_from(value).expect("short")];
    }
    let mut bytes = vec![127];
    value -= 127;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}
