//! Records that no client sends on its stream, or that an attacker sends in its place.

use super::peer::Peer;
use super::record::{Message, NOT_REQUESTED, REQUESTED, header, kind};
use super::server::{Local, Records};
use super::{EVERY, keys};
use crate::support::eventually;
use crate::support::programs::{OPENSSL, requires};

/// What a peer sends.
type Sends = fn(&mut Peer) -> Vec<u8>;

/// Alerts (RFC 8446, 6).
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;

/// The largest content of a record (RFC 8446, 5.1), and the largest record without its header (5.2).
const CONTENT_MAX: usize = 1 << 14;
const RECORD_MAX: usize = CONTENT_MAX + 256;

const UPDATING: Records =
    Records { request_update_after: Some(EVERY), end_after: None, keep: false };

/// Two records of handshake messages.
fn two(peer: &mut Peer, first: &[u8], second: &[u8]) -> Vec<u8> {
    [peer.keys.seal(kind::HANDSHAKE, first), peer.keys.seal(kind::HANDSHAKE, second)].concat()
}

#[test]
fn a_record_that_is_wrong_ends_its_stream_with_the_alert_for_it() {
    requires!(OPENSSL);
    let cases: [(&str, Sends, u8); 19] = [
        ("garbage", |_| b"GET / HTTP/1.1\r\n\r\n".repeat(10), UNEXPECTED_MESSAGE),
        ("an alert in cleartext", |_| vec![21, 3, 3, 0, 2, 2, 40], UNEXPECTED_MESSAGE),
        ("change_cipher_spec", |_| vec![20, 3, 3, 0, 1, 1], UNEXPECTED_MESSAGE),
        ("a hello in cleartext", |_| vec![22, 3, 3, 0, 4, 1, 0, 0, 0], UNEXPECTED_MESSAGE),
        (
            "a header that is too long",
            |_| header(kind::DATA, RECORD_MAX + 1).into(),
            RECORD_OVERFLOW,
        ),
        (
            "content that is too long",
            |peer| peer.keys.seal(kind::DATA, &[1; CONTENT_MAX + 1]),
            RECORD_OVERFLOW,
        ),
        (
            "no room for a tag",
            |_| [&header(kind::DATA, 3)[..], &[1, 2, 3]].concat(),
            BAD_RECORD_MAC,
        ),
        (
            "another tag",
            |peer| {
                let mut record = peer.keys.seal(kind::DATA, b"data");
                *record.last_mut().expect("a tag") ^= 1;
                record
            },
            BAD_RECORD_MAC,
        ),
        (
            "another header",
            |peer| {
                let mut record = peer.keys.seal(kind::DATA, b"data");
                record[2] = 1;
                record
            },
            BAD_RECORD_MAC,
        ),
        (
            "the same record twice",
            |peer| peer.keys.seal(kind::DATA, b"data").repeat(2),
            BAD_RECORD_MAC,
        ),
        (
            "the second record first",
            |peer| {
                let first = peer.keys.seal(kind::DATA, b"data");
                [peer.keys.seal(kind::DATA, b"data"), first].concat()
            },
            BAD_RECORD_MAC,
        ),
        (
            "data with the keys of before an update",
            |peer| {
                let update = peer.keys.seal(kind::HANDSHAKE, &NOT_REQUESTED);
                [update, peer.keys.seal(kind::DATA, b"data")].concat()
            },
            BAD_RECORD_MAC,
        ),
        ("nothing but padding", |peer| peer.keys.seal_inner(vec![0; 20]), UNEXPECTED_MESSAGE),
        ("another type of content", |peer| peer.keys.seal(99, b"data"), UNEXPECTED_MESSAGE),
        ("a hello", |peer| peer.keys.seal(kind::HANDSHAKE, &[1, 0, 0, 1, 0]), UNEXPECTED_MESSAGE),
        (
            "an empty handshake record",
            |peer| peer.keys.seal(kind::HANDSHAKE, &[]),
            UNEXPECTED_MESSAGE,
        ),
        (
            "two key updates in one record",
            |peer| peer.keys.seal(kind::HANDSHAKE, &REQUESTED.repeat(2)),
            UNEXPECTED_MESSAGE,
        ),
        (
            "data between the halves of a key update",
            |peer| {
                let half = peer.keys.seal(kind::HANDSHAKE, &REQUESTED[..2]);
                let data = peer.keys.seal(kind::DATA, b"data");
                [half, data].concat()
            },
            UNEXPECTED_MESSAGE,
        ),
        (
            "a request of no meaning",
            |peer| peer.keys.seal(kind::HANDSHAKE, &[24, 0, 0, 1, 2]),
            ILLEGAL_PARAMETER,
        ),
    ];
    let server = Local::start(UPDATING);
    let mut honest = Peer::open(server.secure);
    for (count, (what, sends, alert)) in (1..).zip(cases) {
        let mut peer = Peer::updated(&server);
        let bytes = sends(&mut peer);
        peer.send_bytes(&bytes);
        assert_eq!(peer.rest(), [Message::Alert(alert)], "{what}");
        eventually(&format!("its seat is free after {what}"), || server.seats() == 1);
        assert_eq!(server.closed(), [("error".to_owned(), count)].into(), "{what}");
        let last = format!("after{count}-");
        server.publish(&last);
        honest.receive(&last);
    }
}

/// The client's close_notify ends its stream, and so does any other alert, since none is sent by a client that goes on.
#[test]
fn an_alert_of_the_client_ends_its_stream() {
    requires!(OPENSSL);
    let server = Local::start(UPDATING);
    for (count, alert) in (1..).zip([[1, CLOSE_NOTIFY], [2, 80], [1, 90]]) {
        let mut peer = Peer::updated(&server);
        peer.send(kind::ALERT, &alert);
        let rest = peer.rest();
        assert!(matches!(rest[..], [] | [Message::Alert(CLOSE_NOTIFY)]), "{alert:?}: {rest:?}");
        eventually("its seat is free", || server.seats() == 0);
        assert_eq!(server.closed().values().sum::<u64>(), count);
    }
}

/// What is unusual and allowed: records of any size, in pieces, and messages over several of them.
#[test]
fn a_record_that_is_unusual_leaves_its_stream_open() {
    requires!(OPENSSL);
    let cases: [(&str, Sends, usize); 8] = [
        ("data", |peer| peer.keys.seal(kind::DATA, b"data"), 0),
        ("no data", |peer| peer.keys.seal(kind::DATA, &[]), 0),
        ("the largest content", |peer| peer.keys.seal(kind::DATA, &[1; CONTENT_MAX]), 0),
        (
            "the largest record",
            |peer| peer.keys.seal_inner([&b"data\x17"[..], &[0; CONTENT_MAX - 4]].concat()),
            0,
        ),
        ("a key update", |peer| peer.key_update(false), 0),
        ("a key update that requests one", |peer| peer.key_update(true), 1),
        (
            "a key update in pieces",
            |peer| {
                let bytes = two(peer, &REQUESTED[..1], &REQUESTED[1..]);
                peer.keys.update();
                bytes
            },
            1,
        ),
        (
            "many requests at once",
            |peer| (0..10).flat_map(|_| peer.key_update(true)).collect(),
            // They are read at once, and one answer is enough (RFC 8446, 4.6.3).
            1,
        ),
    ];
    let server = Local::start(UPDATING);
    for (what, sends, answers) in cases {
        let mut peer = Peer::updated(&server);
        let bytes = sends(&mut peer);
        peer.send_bytes(&bytes);
        peer.is_answered(&server, answers, what);
        if bytes.len() < 200 {
            // The same, byte by byte.
            for byte in sends(&mut peer) {
                peer.send_bytes(&[byte]);
            }
            peer.is_answered(&server, answers, what);
        }
        drop(peer);
        eventually("its seat is free", || server.seats() == 0);
    }
    let closed = server.closed();
    // A client that has not read everything resets its connection.
    assert!(
        closed.keys().all(|reason| ["client", "reset"].contains(&reason.as_str())),
        "{closed:?}"
    );
}

#[test]
fn half_a_record_leaves_its_stream_open() {
    requires!(OPENSSL);
    let server = Local::start(UPDATING);
    for (size, cut) in [(4, 3), (4, 10), (CONTENT_MAX, 5_000), (CONTENT_MAX, CONTENT_MAX)] {
        let mut peer = Peer::updated(&server);
        let record = peer.keys.seal(kind::DATA, &vec![1; size]);
        peer.send_bytes(&record[..cut]);
        for key in keys("half", 5) {
            server.publish(&key);
            peer.receive_only(&key);
        }
        peer.send_bytes(&record[cut..]);
        peer.answer_all();
        server.publish("whole");
        peer.receive("whole");
        drop(peer);
        eventually("its seat is free", || server.seats() == 0);
    }
    for reason in ["client", "reset"] {
        let before = server.closed().get(reason).copied().unwrap_or_default();
        let mut peer = Peer::updated(&server);
        let record = peer.keys.seal(kind::DATA, &[1; CONTENT_MAX]);
        peer.send_bytes(&record[..10_000]);
        if reason == "client" {
            drop(peer)
        } else {
            peer.reset()
        }
        eventually("its seat is free", || server.seats() == 0);
        assert_eq!(server.closed()[reason], before + 1);
    }
}

/// Key updates count as everything that a client sends: 64 KiB a minute.
#[test]
fn a_flood_of_key_updates_ends_its_stream() {
    requires!(OPENSSL);
    const ALLOWED: usize = 60 * 1024;
    const FLOOD: usize = 68 * 1024;
    let server = Local::start(UPDATING);
    let mut honest = Peer::open(server.secure);
    for (count, requested) in (1..).zip([false, true]) {
        let mut peer = Peer::updated(&server);
        let mut sent = 0;
        while sent < ALLOWED {
            let updates: Vec<u8> = (0..50).flat_map(|_| peer.key_update(requested)).collect();
            sent += updates.len();
            peer.send_bytes(&updates);
        }
        server.publish("alive");
        peer.receive("alive");
        while sent < FLOOD {
            let update = peer.key_update(requested);
            sent += update.len();
            if peer.try_send_bytes(&update).is_err() {
                break;
            }
        }
        let rest = peer.rest();
        let is_update =
            |message: &Message| matches!(message, Message::KeyUpdate { requested: false });
        assert!(rest.iter().all(is_update), "{rest:?}");
        eventually("its seat is free", || server.seats() == 1);
        assert_eq!(server.closed(), [("excess".to_owned(), count)].into());
        let last = format!("after{count}-");
        server.publish(&last);
        honest.receive(&last);
    }
}
