//! Lets HTTP/2 clients in whose `:authority` the HTTP stack would refuse.
//!
//! grpc-go dials a unix socket with the socket's path as authority, percent-encoded or raw
//! (`home%2Fargocd%2F….sock`, `/home/argocd/….sock`), and Argo CD leaves it at that. Rust's HTTP stack answers such
//! a request with `PROTOCOL_ERROR`. This filter stands below it, follows the frames (RFC 9113) and the fields in
//! their header blocks (RFC 7541), and alters the few characters that offend, in place.
//!
//! Each is altered into one whose code has the same length, plain and in Huffman coding. So no length changes
//! anywhere, no byte is held back or moved, and the client's compression table and the server's stay equal entry by
//! entry, which is why the filter needs no table. What it does not understand it passes on as it came: judging is
//! the HTTP stack's work. A client that names `:authority` other than by its place in the static table is not
//! helped; no known one does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Length of the client's connection preface.
const PREFACE: usize = 24;
/// Length of a frame's head.
const HEAD: usize = 9;
/// Place of `:authority` in HPACK's static table.
const AUTHORITY_INDEX: u8 = 1;

/// What the next bytes of a connection are.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The head of a frame, of which so many bytes were seen.
    Head(usize),
    /// The length of the padding, in a frame with these lengths yet unpadded.
    PadLength { before: usize, block: usize },
    /// Something else, up to the next head. `before` and `after` a header block are priority and padding.
    Payload { before: usize, block: usize, after: usize },
}

/// The filter: fed with everything that a client sends.
#[derive(Debug)]
pub struct Filter {
    part: Part,
    head: [u8; HEAD],
    ends_block: bool,
    fields: Fields,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            part: Part::Payload { before: PREFACE, block: 0, after: 0 },
            head: [0; HEAD],
            ends_block: false,
            fields: Fields::default(),
        }
    }
}

impl Filter {
    /// Passes the next bytes of the connection, altering them in place. They may be cut anywhere.
    pub fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &mut bytes[taken..];
        }
    }

    /// Passes some bytes, at least one, and says how many. `bytes` is not empty.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match self.part {
            Part::Head(seen) => {
                let taken = bytes.len().min(HEAD - seen);
                self.head[seen..seen + taken].copy_from_slice(&bytes[..taken]);
                self.part = if seen + taken == HEAD { self.payload() } else { Part::Head(seen + taken) };
                taken
            }
            Part::PadLength { before, block } => {
                let after = block.min(usize::from(bytes[0]));
                self.part = Part::section(before, block - after, after);
                1
            }
            Part::Payload { before, block, after } if before > 0 => {
                let taken = bytes.len().min(before);
                self.part = Part::section(before - taken, block, after);
                taken
            }
            Part::Payload { block, after, .. } if block > 0 => {
                let taken = bytes.len().min(block);
                self.fields.pass(&mut bytes[..taken]);
                self.part = Part::section(0, block - taken, after);
                taken
            }
            Part::Payload { after, .. } => {
                let taken = bytes.len().min(after);
                self.part = Part::section(0, 0, after - taken);
                taken
            }
        }
    }

    /// What follows the head just seen.
    fn payload(&mut self) -> Part {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        const END_HEADERS: u8 = 0x4;
        const PADDED: u8 = 0x8;
        const PRIORITY: u8 = 0x20;

        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if self.ends_block {
            self.fields = Fields::default();
        }
        self.ends_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        match kind {
            CONTINUATION => Part::section(0, length, 0),
            HEADERS => {
                let padded = flags & PADDED != 0 && length > 0;
                let length = length - usize::from(padded);
                let before = if flags & PRIORITY != 0 { length.min(5) } else { 0 };
                let block = length - before;
                if padded { Part::PadLength { before, block } } else { Part::section(before, block, 0) }
            }
            _ => Part::section(length, 0, 0),
        }
    }
}

impl Part {
    /// A payload, or the next head when nothing is left of it.
    fn section(before: usize, block: usize, after: usize) -> Self {
        if before + block + after == 0 { Self::Head(0) } else { Self::Payload { before, block, after } }
    }
}

/// A string of a header field.
#[derive(Clone, Copy, Debug)]
enum Text {
    Name,
    Value,
    Authority,
}

/// What the next byte of a header block is.
#[derive(Clone, Copy, Debug, Default)]
enum Fields {
    /// The first byte of a field.
    #[default]
    Start,
    /// A later byte of a number that does not matter, before a string or the next field.
    Number { then: Option<Text> },
    /// The first byte of a string's length.
    Length(Text),
    /// A later byte of a string's length.
    LongLength { text: Text, huffman: bool, length: usize, shift: u32 },
    /// A string, of which so many bytes are left.
    Body { text: Text, huffman: Option<Code>, left: usize },
    /// Not HPACK; the HTTP stack will say so.
    Lost,
}

impl Fields {
    /// Passes the next bytes of a header block.
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while let Some(&first) = bytes.first() {
            let mut taken = 1;
            *self = match *self {
                Self::Start => Self::start(first),
                Self::Number { then } if first & 0x80 != 0 => Self::Number { then },
                Self::Number { then } => then.map_or(Self::Start, Self::Length),
                Self::Length(text) => {
                    let (huffman, length) = (first & 0x80 != 0, usize::from(first & 0x7f));
                    if length == 0x7f {
                        Self::LongLength { text, huffman, length, shift: 0 }
                    } else {
                        Self::body(text, huffman, length)
                    }
                }
                Self::LongLength { text, huffman, length, shift } => {
                    let length = length + (usize::from(first & 0x7f) << shift);
                    match (first & 0x80 != 0, shift) {
                        (false, _) => Self::body(text, huffman, length),
                        (true, 0..=14) => Self::LongLength { text, huffman, length, shift: shift + 7 },
                        (true, _) => Self::Lost,
                    }
                }
                Self::Body { text, mut huffman, left } => {
                    taken = bytes.len().min(left);
                    if matches!(text, Text::Authority) {
                        alter(&mut bytes[..taken], huffman.as_mut());
                    }
                    if taken == left {
                        Self::after(text)
                    } else {
                        Self::Body { text, huffman, left: left - taken }
                    }
                }
                Self::Lost => return,
            };
            bytes = &mut bytes[taken..];
        }
    }

    /// What follows a field's first byte.
    fn start(first: u8) -> Self {
        let (mask, literal) = match first {
            0x80.. => (0x7f, false),
            0x40.. => (0x3f, true),
            0x20.. => (0x1f, false),
            _ => (0x0f, true),
        };
        let then = literal.then_some(match first & mask {
            0 => Text::Name,
            AUTHORITY_INDEX => Text::Authority,
            _ => Text::Value,
        });
        if first & mask == mask { Self::Number { then } } else { then.map_or(Self::Start, Self::Length) }
    }

    fn body(text: Text, huffman: bool, left: usize) -> Self {
        if left == 0 {
            Self::after(text)
        } else {
            Self::Body { text, huffman: huffman.then(Code::default), left }
        }
    }

    fn after(text: Text) -> Self {
        match text {
            Text::Name => Self::Length(Text::Value),
            Text::Value | Text::Authority => Self::Start,
        }
    }
}

/// Alters what offends in the next bytes of an authority: `%` to `.`, `/` to `3`, a space to `-`.
fn alter(bytes: &mut [u8], huffman: Option<&mut Code>) {
    if let Some(code) = huffman {
        for byte in bytes {
            *byte = code.alter(*byte);
        }
        return;
    }
    for byte in bytes {
        *byte = match *byte {
            b'%' => b'.',
            b'/' => b'3',
            b' ' => b'-',
            other => other,
        };
    }
}

/// The bits seen of a character in Huffman coding.
#[derive(Clone, Copy, Debug, Default)]
struct Code {
    bits: u16,
    length: usize,
}

/// RFC 7541's code is canonical: a prefix of this length below this bound is a whole character. Longer ones do not
/// occur in an authority.
const BOUNDS: [u16; 16] =
    [0, 0, 0, 0, 0, 0x0a, 0x2e, 0x7c, 0xfe, 0, 0x3fd, 0x7fd, 0xffc, 0x1ffe, 0x3ffe, 0x7fff];

impl Code {
    /// Passes eight bits.
    ///
    /// A space, `%`, `-`, `.`, `/`, `3` are 010100 to 011001 in that order: the first two become the next two by their
    /// fifth bit, and `/` becomes `3` by its sixth, so that no bit already passed on ever has to change.
    fn alter(&mut self, byte: u8) -> u8 {
        (0..8).rev().fold(byte, |byte, place| {
            self.bits = self.bits << 1 | u16::from(byte >> place & 1);
            self.length += 1;
            let flip = matches!((self.length, self.bits), (5, 0b01010) | (6, 0b01_1000));
            self.bits |= u16::from(flip);
            match BOUNDS.get(self.length) {
                Some(&bound) if self.bits >= bound => {}
                Some(_) => *self = Self::default(),
                // Too long for an authority: never whole again.
                None => *self = Self { bits: 0, length: BOUNDS.len() },
            }
            byte | u8::from(flip) << place
        })
    }
}

/// A connection whose incoming bytes pass a [`Filter`].
#[derive(Debug)]
pub struct AnyAuthority<IO> {
    io: IO,
    filter: Filter,
}

impl<IO> AnyAuthority<IO> {
    /// Wraps a connection of which nothing was read yet.
    pub fn new(io: IO) -> Self {
        Self { io, filter: Filter::default() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for AnyAuthority<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.filter.pass(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<IO: Connected> Connected for AnyAuthority<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Header blocks as the encoder of grpc-go writes them: a first request and, served from its table, a second.
    const ESCAPED: &str = "838645a762ba2d98d52f78f54a69b40ea1cc5a4b5275d16cc6ab716cee62158c45a8b60d25d03a8d29509f\
        41a79cf49551611d931c922a2c24a6b5905b3b96c54586ba2d98d5215161426c3d535873d2ba0e4ebf5f8b1d75d0620d263d4c4d65647a\
        8a9acac8b4c7602bbae2e040027465864d833505b11f40899acac8b24d494f6a7f856df7df7e9f";
    const RAW_PATH: &str = "838645a762ba2d98d52f78f54a69b40ea1cc5a4b5275d16cc6ab716cee62158c45a8b60d25d03a8d29509f\
        41a26273d2560764c7248c129ad6416cee5b18ae8b6635486109b0f54d61cf4ae8393aff5f8b1d75d0620d263d4c4d65647a\
        8a9acac8b4c7602bbae2e040027465864d833505b11f40899acac8b24d494f6a7f856df7df7e9f";
    const LONG_CODES: &str = "838645a762ba2d98d52f78f54a69b40ea1cc5a4b5275d16cc6ab716cee62158c45a8b60d25d03a8d29509f\
        41965458534d6a8b0ae3ffec7fec8a88122a2c285d07275f5f8b1d75d0620d263d4c4d65647a\
        8a9acac8b4c7602bbae2e040027465864d833505b11f40899acac8b24d494f6a7f856df7df7e9f";
    const AGAIN: &str = "8386c3c2c1c0bfbe";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn opening() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat()
    }

    /// What the real HTTP stack makes of requests behind the filter: the authority of each.
    async fn authorities(sent: Vec<u8>, requests: usize) -> Vec<String> {
        let (mut client, server) = tokio::io::duplex(sent.len() + 4096);
        tokio::io::AsyncWriteExt::write_all(&mut client, &sent).await.unwrap();
        let mut connection = h2::server::handshake(AnyAuthority::new(server)).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..requests {
            let (request, _respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!(request.uri().path(), "/plugin.ConfigManagementPluginService/GenerateManifest");
            assert_eq!(request.headers()["grpc-timeout"], "59999m");
            seen.push(request.uri().authority().unwrap().to_string());
        }
        seen
    }

    #[tokio::test]
    async fn the_authorities_that_grpc_go_sends_are_let_in_twice_over() {
        let rows = [
            (ESCAPED, "home.2Fargocd.2Fcmp-server.2Fplugins.2Fstrongroom.sock"),
            (RAW_PATH, "3home3argocd3cmp-server3plugins3strongroom.sock"),
            (LONG_CODES, ".2Ftmp.2F.a~b+c.20d.2Fs.sock"),
        ];
        for (block, expected) in rows {
            let sent = [opening(), frame(1, 5, 1, &hex(block)), frame(1, 5, 3, &hex(AGAIN))].concat();
            assert_eq!(authorities(sent, 2).await, [expected, expected]);
        }
    }

    #[tokio::test]
    async fn padding_priority_and_continuation_are_followed() {
        let block = hex(ESCAPED);
        let padded = [&[3, 0, 0, 0, 0, 9], &block[..50], &[0; 3]].concat();
        let sent = [
            opening(),
            frame(1, 0x29, 1, &padded),
            frame(9, 0, 1, &[]),
            frame(9, 0, 1, &block[50..51]),
            frame(9, 4, 1, &block[51..]),
            frame(1, 5, 3, &hex(AGAIN)),
        ]
        .concat();
        assert_eq!(authorities(sent, 2).await[1], "home.2Fargocd.2Fcmp-server.2Fplugins.2Fstrongroom.sock");
    }

    #[test]
    fn an_authority_without_huffman_coding_is_altered_too() {
        let block = [b"\x00\x04path\x01/\x01\x06/a%2 b".as_slice(), &[0x82]].concat();
        let mut sent = [opening(), frame(1, 4, 1, &block)].concat();
        Filter::default().pass(&mut sent);
        assert!(sent.ends_with(b"\x00\x04path\x01/\x01\x063a.2-b\x82"));
    }

    #[test]
    fn nothing_but_authorities_is_touched() {
        let data = frame(0, 1, 1, &hex(ESCAPED));
        let localhost = hex("8386c4418 6a0e41d139d09".replace(' ', "").as_str());
        let sent = [opening(), frame(1, 4, 1, &localhost), data].concat();
        let mut passed = sent.clone();
        Filter::default().pass(&mut passed);
        assert_eq!(passed, sent);
    }

    /// A connection made of frames with header blocks, hostile ones among them.
    fn connection() -> impl Strategy<Value = Vec<u8>> {
        let block = prop_oneof![
            Just(hex(ESCAPED)),
            Just(hex(RAW_PATH)),
            Just(b"\x41\x0a/a/b%2Fc d".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..200),
        ];
        let kind = prop_oneof![Just(1u8), Just(9), Just(0), any::<u8>()];
        let frames = proptest::collection::vec((kind, any::<u8>(), block), 0..6);
        frames.prop_map(|frames| {
            let frames = frames.into_iter().flat_map(|(kind, flags, block)| frame(kind, flags, 1, &block));
            opening().into_iter().chain(frames).collect()
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_output(sent in connection(), cuts in proptest::collection::vec(1usize..40, 1..60)) {
            let mut whole = sent.clone();
            Filter::default().pass(&mut whole);
            let mut pieces = sent;
            let mut filter = Filter::default();
            let mut rest = pieces.as_mut_slice();
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at_mut(cut.min(rest.len()));
                filter.pass(piece);
                rest = later;
            }
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn passing_twice_changes_nothing_more(sent in connection()) {
            let mut once = sent;
            Filter::default().pass(&mut once);
            let mut twice = once.clone();
            Filter::default().pass(&mut twice);
            prop_assert_eq!(twice, once);
        }
    }
}
