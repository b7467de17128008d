use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The bytes of every message of version 1, in hexadecimal, as this build wrote them when the version was made. Never
/// change one: another version of the program sends and expects them.
fn version_1() -> Vec<(&'static str, Message)> {
    let versions = Versions { first: 1, last: 1 };
    let build = || "0.1.0".to_owned();
    let socket = |worker, address, secure, internal| {
        let file = (address > 1).then_some(FileId { device: 64, inode: 1 << 40 });
        ListeningState { worker, address, secure, internal, file }
    };
    vec![
        (
            "82008582010165302e312e3082840000f5f48419012c01f4f502193a98",
            Message::Listeners {
                versions,
                build: build(),
                sockets: vec![socket(0, 0, true, false), socket(300, 1, false, true)],
                left: 2,
                connections: 15_000,
            },
        ),
        (
            "82008582010165302e312e3081850002f4f48218401b00000100000000000000",
            Message::Listeners {
                versions,
                build: build(),
                sockets: vec![socket(0, 2, false, false)],
                left: 0,
                connections: 0,
            },
        ),
        (
            "82018682010165302e312e30021a001000001bffffffffffffffff07",
            Message::Hello {
                versions,
                build: build(),
                workers: 2,
                descriptors: 1 << 20,
                streams_max: u64::MAX,
                process: 7,
            },
        ),
        ("820280", Message::Ready),
        ("82038102", Message::Hub { lanes: 2 }),
        ("82048201193a98", Message::Streams { lane: 1, count: 15_000 }),
        ("82058101", Message::Sockets { lane: 1 }),
        ("820681193a98", Message::Took { count: 15_000 }),
        ("820780", Message::Commit),
        ("820880", Message::Live),
        ("820980", Message::IsMain),
        (
            "820a84715b323030313a6462383a3a315d3a343433f4f543160301",
            Message::Connection {
                peer: "[2001:db8::1]:443".into(),
                internal: false,
                secure: true,
                first: vec![0x16, 0x03, 0x01],
                named: None,
            },
        ),
        (
            "820a856b3139322e302e322e313a30f4f540f5",
            Message::Connection {
                peer: "192.0.2.1:0".into(),
                internal: false,
                secure: true,
                first: Vec::new(),
                named: Some(true),
            },
        ),
        ("820b8207f4", Message::Operation { number: 7, all: false }),
        (
            "820c8407f5821bc0ffee00c0ffee000903",
            Message::Done {
                number: 7,
                performed: true,
                epoch_seq: Some((0xc0ff_ee00_c0ff_ee00, 9)),
                streams: 3,
            },
        ),
        (
            "820c8408f4f600",
            Message::Done { number: 8, performed: false, epoch_seq: None, streams: 0 },
        ),
        ("820d81626e6f", Message::Refused { why: "no".into() }),
        ("820e80", Message::Histories),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}

#[test]
fn messages_of_version_1_are_written_and_read_as_they_were_recorded() {
    let written: Vec<_> =
        version_1().iter().map(|(_, message)| hex(&message.encode().expect("short"))).collect();
    let recorded: Vec<_> = version_1().iter().map(|(recorded, _)| *recorded).collect();
    assert_eq!(written, recorded);
    for (recorded, message) in version_1() {
        assert_eq!(Message::decode(&bytes(recorded)), Ok(Some(message)), "{recorded}");
    }
}

/// The list above has them all: each kind from 0 to the last one.
#[test]
fn every_kind_is_recorded() {
    let mut kinds: Vec<_> = version_1().iter().map(|(hex, _)| bytes(hex)[1]).collect();
    kinds.dedup();
    assert_eq!(kinds, (0..=14).collect::<Vec<_>>());
    assert_eq!(
        Message::decode(&[0x82, 15, 0x80]).map_err(|why| why.contains("kind 15")),
        Err(true)
    );
}

#[test]
fn a_later_version_may_add_fields_and_kinds_that_may_be_skipped() {
    // `Took` with a second field, and `Ready` with one.
    assert_eq!(Message::decode(&bytes("8206820963666f6f")), Ok(Some(Message::Took { count: 9 })));
    assert_eq!(Message::decode(&bytes("82028101")), Ok(Some(Message::Ready)));
    assert_eq!(Message::decode(&bytes("82188080")), Ok(None));
    assert_eq!(Message::decode(&bytes("8218ff8163666f6f")), Ok(None));
    // The last kind that has to be known.
    assert!(Message::decode(&bytes("82187f80")).is_err());
}

#[test]
fn a_packet_that_is_no_message_is_refused() {
    for packet in ["", "82", "8206", "820680", "80", "830680f6", "8206816161", "82068109ff", "f6"] {
        assert!(Message::decode(&bytes(packet)).is_err(), "{packet}");
    }
}

#[test]
fn a_message_is_not_longer_than_a_packet() {
    let connection = |length| Message::Connection {
        peer: String::new(),
        internal: false,
        secure: false,
        first: vec![0; length],
        named: None,
    };
    let beside = connection(PACKET_MAX / 2).encode().expect("short").len() - PACKET_MAX / 2;
    assert_eq!(connection(PACKET_MAX - beside).encode().map(|packet| packet.len()), Ok(PACKET_MAX));
    let refused = connection(PACKET_MAX - beside + 1).encode().expect_err("too long");
    assert_eq!(refused, "65537 bytes are more than the 65536 of a packet");
    let reason = Message::refused(&"é".repeat(PACKET_MAX));
    assert!(reason.encode().is_ok());
}

#[test]
fn the_newest_version_that_both_speak_is_spoken() {
    let versions = |first, last| Versions { first, last };
    for (ours, theirs, common) in [
        (versions(1, 1), versions(1, 1), Some(1)),
        (versions(1, 2), versions(2, 3), Some(2)),
        (versions(2, 3), versions(1, 2), Some(2)),
        (versions(1, 1), versions(2, 3), None),
        (versions(3, 4), versions(1, 2), None),
        (versions(1, 9), versions(3, 4), Some(4)),
    ] {
        assert_eq!(ours.common(theirs), common, "{ours:?} {theirs:?}");
    }
}

fn message() -> impl Strategy<Value = Message> {
    let version =
        || (any::<u32>(), any::<u32>()).prop_map(|(first, last)| Versions { first, last });
    let file = any::<Option<(u64, u64)>>();
    let socket = (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>(), file);
    let socket = socket.prop_map(|(worker, address, secure, internal, file)| ListeningState {
        worker,
        address,
        secure,
        internal,
        file: file.map(|(device, inode)| FileId { device, inode }),
    });
    prop_oneof![
        (version(), ".{0,20}", vec(socket, 0..253), any::<(u32, u64)>()).prop_map(
            |(versions, build, sockets, (left, connections))| Message::Listeners {
                versions,
                build,
                sockets,
                left,
                connections
            }
        ),
        (version(), ".{0,20}", any::<(u32, u64, u64, u32)>()).prop_map(
            |(versions, build, (workers, descriptors, streams_max, process))| Message::Hello {
                versions,
                build,
                workers,
                descriptors,
                streams_max,
                process
            }
        ),
        (any::<u32>(), any::<u64>()).prop_map(|(lane, count)| Message::Streams { lane, count }),
        (".{0,60}", any::<[bool; 2]>(), vec(any::<u8>(), 0..4096), any::<Option<bool>>()).prop_map(
            |(peer, [internal, secure], first, named)| Message::Connection {
                peer,
                internal,
                secure,
                first,
                named
            }
        ),
        (any::<u64>(), any::<bool>(), any::<Option<(u64, u64)>>(), any::<u64>()).prop_map(
            |(number, performed, epoch_seq, streams)| Message::Done {
                number,
                performed,
                epoch_seq,
                streams
            }
        ),
        ".{0,2000}".prop_map(|why| Message::refused(&why)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in message()) {
        let packet = message.encode().expect("short");
        prop_assert_eq!(Message::decode(&packet), Ok(Some(message)));
    }

    /// Nor is memory allocated for lengths that are claimed.
    #[test]
    fn no_packet_makes_it_panic(packet in vec(any::<u8>(), 0..200)) {
        _ = Message::decode(&packet);
    }

    #[test]
    fn a_message_that_is_cut_is_refused(message in message(), part in 0.0..1.0_f64) {
        let packet = message.encode().expect("short");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of it")]
        let cut = (packet.len() as f64 * part) as usize;
        prop_assert!(Message::decode(&packet[..cut]).is_err());
    }
}
