//! Bytes as a parser of event streams may meet them, for property tests.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Texts of fields, ends of lines, and bytes that are none, in any order.
pub(crate) fn bytes_like_a_stream() -> impl Strategy<Value = Vec<u8>> {
    let tokens: &[&[u8]] = &[
        b"data",
        b"event",
        b"id",
        b"retry",
        b"data: a\n",
        b"data:\n",
        b"data: \xe2\x80\xa8b\xe2\x80\xa9\n", // U+2028 and U+2029 are no line ends
        b"id: 7\r",
        b"id: 8\n\n",
        b"id\n",
        b"event: e\r\n",
        b"event: ping\n",
        b"retry: 10\n",
        b"retry: 2500\r\n",
        b": a comment\n",
        b":",
        b" ",
        b"x",
        b"7",
        b"\0",
        b"\n",
        b"\n",
        b"\r",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xbf",
        b"\xff",
        b"\xc3",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f\x98",
        b"\xe2\x80\xa6",
        b"Data",
        b"retry: 99999999999999999999\n",
    ];
    vec(select(tokens), 0..40).prop_map(|tokens| tokens.concat())
}

/// Pieces of these lengths, and what is left.
pub(crate) fn cut<'a>(stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, tail) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}
