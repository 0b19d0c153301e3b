//! Any bytes as a client's side of an HTTP/2 connection: no panic, no byte more or less, and the same in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::cmp::authority::Filter;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fuzz_target!(|input: (&[u8], u8)| {
    let (frames, piece) = input;
    let stream = [PREFACE, frames].concat();
    let mut whole = stream.clone();
    Filter::default().pass(&mut whole);
    let mut pieces = stream;
    let mut filter = Filter::default();
    pieces.chunks_mut(usize::from(piece).max(1)).for_each(|piece| filter.pass(piece));
    assert_eq!(whole, pieces);
});
