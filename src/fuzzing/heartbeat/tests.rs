//! Every split of the streams of a corpus, with every silence.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Streams with all that the standard knows, and what is odd about them.
const STREAMS: [&[u8]; 25] = [
    b"",
    b"\n",
    b"data: a\n\ndata: b\n\n",
    b"data: a\r\n\r\ndata: b\r\n\r\n",
    b"data: a\r\rdata: b\r\r",
    b"data: a\r\r\ndata: b\n\r\ndata: c\r\n\n\n\r\r",
    b"\r\n\r\r\n\n\r\rdata\n\n",
    b"\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n",
    b"data: a\n\n\xef\xbb\xbfdata: b\n\n",
    b"\xef\xbb\xbf\r\n:\r\n\xef\xbb\xbfdata\n\n",
    b"\xef\xbf\xbd: a\ndata\n\n",
    b"\xef\xbb\xbeid:1\ndata\n\n",
    b": a\n\ndata: b\n: c\n\n: d\n: e\r\n\n: f\r",
    b"id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
    b"id:1\r\n\r\ndata\r\rid\rdata\r\n\r\nid:\n\n",
    b"data: a\n\nid: a\0b\ndata: b\n\nids: 1\n iid: 2\nid : 3\n\ndata: c\n\n",
    b"event: e\ndata: a\ndata\ndata:  b\n\nevent: f\n\nevent:\ndata: c\n\n",
    b"retry: 1500\n\ndata: a\n\nretry: 7\nretry: x\n\n",
    b"data: a\n\ndata: cut",
    b"id: 7\n\nid: lost\ndata: cut\n",
    b"data: \xe2\x80\xa6\xf0\x9f\x98\x80\n\n\xe2\x80\xa6: x\n\n",
    b"data: \xff\xc3\n\n\xff\n\n",
    b"unknown\nunknown: x\n\n:\n\n\n\ndata: a\n\n",
    b"id: 0-0\ndata: \n\nretry: 500\n\nevent: message\nid: 0-1\ndata: {\"id\":1}\n\n",
];

/// And those of the seeds for our parser, whose first byte is no part of the stream.
fn streams() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/sse_parse");
    let seeds = fs::read_dir(folder).expect("the folder of seeds").map(|file| {
        let bytes = fs::read(file.expect("a readable folder").path()).expect("a readable file");
        bytes[1..].to_vec()
    });
    STREAMS.iter().map(|stream| stream.to_vec()).chain(seeds).collect()
}

/// Compares these pieces with a silence at each place that has a bit: before, between and after them.
fn compare_pieces(pieces: &[&[u8]], silences: u32) -> u64 {
    let pieces = pieces.iter().map(|piece| Step::Bytes(piece)).chain([Step::Bytes(b"")]);
    let steps = pieces.enumerate().flat_map(|(n, piece)| {
        let silence = (silences >> (n % 32) & 1 == 1).then_some(Step::Silence);
        silence.into_iter().chain([piece])
    });
    compare(&steps.collect::<Vec<_>>())
}

#[test]
fn two_pieces_with_any_silences_give_the_same_events() {
    let mut pings = 0;
    for stream in streams() {
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            pings += (0..8).map(|silences| compare_pieces(&[a, b], silences)).sum::<u64>();
        }
    }
    println!("{pings} pings");
    assert!(pings > 5_000);
}

#[test]
fn three_pieces_of_a_short_stream_with_any_silences_give_the_same_events() {
    let mut pings = 0;
    for stream in streams().iter().filter(|stream| stream.len() <= 24) {
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                pings += (0..16).map(|silences| compare_pieces(&pieces, silences)).sum::<u64>();
            }
        }
    }
    println!("{pings} pings");
    assert!(pings > 5_000);
}

#[test]
fn single_bytes_with_one_silence_or_all_give_the_same_events() {
    let mut pings = 0;
    for stream in streams() {
        let bytes: Vec<_> = stream.chunks(1).collect();
        pings += compare_pieces(&bytes, u32::MAX);
        pings += (0..32).map(|at| compare_pieces(&bytes, 1 << at)).sum::<u64>();
        pings += (0..32).map(|at| compare_pieces(&bytes, 1 | 1 << at)).sum::<u64>();
    }
    println!("{pings} pings");
    assert!(pings > 1_000);
}

/// All streams of four of the bytes that matter, each with every subset of silences.
#[test]
fn all_short_streams_with_any_silences_give_the_same_events() {
    let bytes: [&[u8]; 7] = [b"\n", b"\r", b":", b"id", b"data:x", b"\xef", b"\xbb\xbf"];
    let mut pings = 0;
    for n in 0..7_usize.pow(4) {
        let pieces = [n % 7, n / 7 % 7, n / 49 % 7, n / 343].map(|index| bytes[index]);
        pings += (0..32).map(|silences| compare_pieces(&pieces, silences)).sum::<u64>();
    }
    println!("{pings} pings");
    assert!(pings > 50_000);
}

fn bytes_like_a_stream() -> impl Strategy<Value = Vec<&'static [u8]>> {
    let tokens: &[&[u8]] = &[
        b"data: a\n",
        b"data\r",
        b"d",
        b"event: e\r\n",
        b"i",
        b"d:",
        b"id",
        b"id: 7\n",
        b"id: a\0b\n",
        b"retry: 10\n",
        b":",
        b": c\n",
        b" ",
        b"x",
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
        b"\xe2\x80\xa6",
        b"",
    ];
    vec(select(tokens), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn any_pieces_with_any_silences_give_the_same_events(
        pieces in bytes_like_a_stream(),
        silences in prop_oneof![Just(u32::MAX), any::<u32>()],
        bom in any::<bool>(),
    ) {
        let bom: &[u8] = if bom { b"\xef\xbb\xbf" } else { b"" };
        compare_pieces(&[&[bom], &pieces[..]].concat(), silences);
    }
}
