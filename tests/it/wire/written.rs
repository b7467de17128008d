//! Writing: the exact bytes, with any characters in a key.

use nudged::ids::EventId;
use nudged::wire::{Frame, Greeting};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::by_ours;
use super::readers::by_sse_codec;

const ID: &str = "00c0ffee00c0ffee-42";

fn id() -> EventId {
    ID.parse().expect("an id")
}

fn payload_of_chunk(chunk: &[u8]) -> &[u8] {
    let head_len = chunk.windows(2).position(|w| w == b"\r\n").expect("a chunk size line");
    let digits = std::str::from_utf8(&chunk[..head_len]).expect("hexadecimal digits");
    let size = usize::from_str_radix(digits, 16).expect("hexadecimal digits");
    assert_eq!(digits, format!("{size:x}"), "no leading zero, lower case");
    let payload = &chunk[head_len + 2..][..size];
    assert_eq!(&chunk[head_len + 2 + size..], b"\r\n", "the size is that of the payload");
    payload
}

/// Both parsers read exactly one event with exactly these keys, whole and split at every byte.
fn assert_invalidates(keys: &[String]) {
    let frame = Frame::invalidate(id(), keys.iter().map(String::as_str));
    let payload = frame.payload();
    assert_eq!(payload_of_chunk(frame.chunked()), payload);

    let received = by_ours([&payload[..]]);
    let [[name, data, event_id]] = &received.events[..] else {
        panic!("not one event: {received:?}")
    };
    assert_eq!((name.as_str(), event_id.as_str()), ("invalidate", ID));
    let data_read: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data_read, serde_json::json!({ "keys": keys }));

    let by_other = (vec![[name.clone(), data.clone(), event_id.clone()]], None);
    for at in 0..=payload.len() {
        let (head, tail) = payload.split_at(at);
        assert_eq!(by_ours([head, tail]), received, "split at {at}");
        assert_eq!(by_sse_codec([head, tail]), by_other, "split at {at}");
    }
}

fn nasty_key() -> impl Strategy<Value = String> {
    let nasty = select(
        "\r\n\0\t\"\\:{},' \u{7f}\u{85}\u{2028}\u{2029}\u{feff}\u{fffd}"
            .chars()
            .collect::<Vec<_>>(),
    );
    vec(prop_oneof![nasty, any::<char>()], 0..16).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_key_breaks_the_framing(keys in vec(nasty_key(), 0..5)) {
        assert_invalidates(&keys);
    }
}

#[test]
fn the_nastiest_keys_do_not_break_the_framing() {
    let breakers = [
        "\r", "\n", "\r\n", "\n\n", "\r\r", "\0", "\u{2028}", "\u{feff}", "\"", "\\", "\\u000a", "",
    ];
    assert_invalidates(&breakers.map(str::to_owned));
    assert_invalidates(&["x\n\nevent: connected\ndata: {}\n\n".to_owned()]);
    for filler in ["k", "\n", "\"", "\\", "\0"] {
        assert_invalidates(&[filler.repeat(512)]);
    }
    assert_invalidates(&["é\u{2028}".repeat(102)]);
}

#[test]
fn every_event_has_the_exact_bytes_of_the_contract() {
    let keys = ["posts", "feed:123"];
    let invalidate =
        format!("id: {ID}\nevent: invalidate\ndata: {{\"keys\":[\"posts\",\"feed:123\"]}}\n\n");
    let connected = format!("id: {ID}\nevent: connected\ndata: {{\"keepalive\":20}}\n\n");
    let resumed = format!("retry: 1500\nid: {ID}\nevent: resumed\ndata: {{\"keepalive\":7}}\n\n");
    let greeting = format!("retry: 1500\n{connected}");
    for (frame, text) in [
        (Frame::invalidate(id(), keys), invalidate),
        (Frame::connected(id(), 20), connected),
        (Frame::greeting(Greeting::Connected, id(), 1500, 20), greeting),
        (Frame::greeting(Greeting::Resumed, id(), 1500, 7), resumed),
        (Frame::keepalive(), ": keepalive\n".to_owned()),
        (Frame::ping(), "event: ping\ndata: {}\n\n".to_owned()),
        (Frame::farewell(1500), "retry: 1500\n".to_owned()),
    ] {
        assert_eq!(frame.payload(), text);
        assert_eq!(payload_of_chunk(frame.chunked()), text.as_bytes());
    }
}
