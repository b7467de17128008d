//! What a client must not send, and the alert that it gets.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use crate::fuzzing::tls_opener::{Run, tls_opener, truncated};

/// A client sends these, content and type, of which the last one is refused.
fn refused(records: &[(&[u8], u8)], alert: Alert) {
    for suite in 1..=3 {
        let mut run = Run::new(suite);
        let (last, before) = records.split_last().expect("some");
        for (content, kind) in before {
            assert!(run.send(content, *kind, 3));
        }
        let mut record = run.client.seal(&[last.0, &[last.1, 0, 0, 0]].concat());
        assert_eq!(run.layer.open(&mut record), Err(alert), "{records:?}");
    }
}

#[test]
fn a_record_without_a_type_is_an_unexpected_message() {
    refused(&[(b"", 0)], Alert::UnexpectedMessage);
}

#[test]
fn a_record_of_another_type_is_an_unexpected_message() {
    for kind in [1, 20, 24, 25, 255] {
        refused(&[(b"\x01", kind)], Alert::UnexpectedMessage);
    }
}

#[test]
fn an_empty_handshake_message_or_alert_is_an_unexpected_message() {
    refused(&[(b"", 22)], Alert::UnexpectedMessage);
    refused(&[(b"\x18", 22), (b"", 22)], Alert::UnexpectedMessage);
    refused(&[(b"", 21)], Alert::UnexpectedMessage);
}

#[test]
fn any_handshake_message_but_a_key_update_is_an_unexpected_message() {
    for kind in [1, 2, 4, 5, 8, 11, 13, 15, 20, 25, 254] {
        refused(&[(&[kind], 22)], Alert::UnexpectedMessage);
        refused(&[(&[kind, 0, 0, 1, 0], 22)], Alert::UnexpectedMessage);
        refused(&[(&[kind, 0, 0, 0], 22)], Alert::UnexpectedMessage);
    }
}

#[test]
fn a_key_update_that_does_not_end_its_record_is_an_unexpected_message() {
    refused(&[(b"\x18\0\0\x01\0\x18", 22)], Alert::UnexpectedMessage);
    refused(&[(b"\x18\0\0\x01\0\x18\0\0\x01\0", 22)], Alert::UnexpectedMessage);
    refused(&[(b"\x18\0\0", 22), (b"\x01\0\x18", 22)], Alert::UnexpectedMessage);
}

#[test]
fn a_key_update_that_another_record_interrupts_is_an_unexpected_message() {
    for (content, kind) in [(&b"x"[..], 23), (b"", 23), (b"\x01\0", 21), (b"\x02\x28", 21)] {
        refused(&[(b"\x18\0\0\x01", 22), (content, kind)], Alert::UnexpectedMessage);
    }
}

#[test]
fn a_key_update_of_another_length_is_a_decode_error() {
    for length in [b"\0\0\0", b"\0\0\x02", b"\0\x01\x01", b"\x01\0\x01"] {
        let message = [b"\x18", &length[..]].concat();
        refused(&[(&[&message[..], b"\0\0\0\0"].concat(), 22)], Alert::DecodeError);
        refused(&[(&message, 22)], Alert::DecodeError);
        refused(&[(&message[..1], 22), (&message[1..], 22)], Alert::DecodeError);
    }
}

#[test]
fn a_request_that_is_neither_0_nor_1_is_an_illegal_parameter() {
    for request in 2..=255 {
        refused(&[(&[24, 0, 0, 1, request], 22)], Alert::IllegalParameter);
    }
    refused(&[(b"\x18\0\0\x01", 22), (b"\x02", 22)], Alert::IllegalParameter);
}

#[test]
fn an_alert_of_another_length_is_a_decode_error() {
    for content in [&b"\x01"[..], b"\x01\0\0", b"\x01\0\x01\0"] {
        refused(&[(content, 21)], Alert::DecodeError);
    }
}

#[test]
fn any_whole_alert_is_the_end() {
    for level in [0, 1, 2, 255] {
        for description in 0..=255 {
            assert!(!Run::new(1).send(&[level, description], 21, 0));
        }
    }
}

#[test]
fn a_key_update_is_taken_in_any_pieces() {
    for pieces in 0_u8..16 {
        for request in [0, 1] {
            let mut run = Run::new(2);
            let mut piece = Vec::new();
            for (at, byte) in [24, 0, 0, 1, request].into_iter().enumerate() {
                piece.push(byte);
                if at == 4 || pieces >> at & 1 == 1 {
                    assert!(run.send(&std::mem::take(&mut piece), 22, at));
                }
            }
            assert_eq!(run.layer.update_is_due(), request == 1);
            assert!(run.send(b"next key", 23, 0) && run.seal(10));
        }
    }
}

#[test]
fn a_record_that_is_changed_anywhere_is_refused() {
    for suite in 1..=3 {
        let length = Run::new(suite).client.seal(b"data\x17").len();
        for at in 0..length {
            for bit in 0..8 {
                let mut run = Run::new(suite);
                let mut record = run.client.seal(b"data\x17");
                record[at] ^= 1 << bit;
                run.refused(record);
            }
        }
    }
}

#[test]
fn a_record_comes_once_and_in_its_order() {
    for suite in 1..=3 {
        let mut run = Run::new(suite);
        let [first, second] = [b"1\x17", b"2\x17"].map(|data| run.client.seal(data));
        let opened = |run: &mut Run, record: &[u8]| run.layer.open(&mut record.to_vec());
        assert_eq!(opened(&mut run, &first), Ok(Received::Data));
        assert_eq!(opened(&mut run, &first), Err(Alert::BadRecordMac), "replayed");

        let mut run = Run::new(suite);
        assert_eq!(opened(&mut run, &second), Err(Alert::BadRecordMac), "reordered");
    }
}

#[test]
fn a_record_of_the_key_before_or_after_is_refused() {
    for suite in 1..=3 {
        let mut run = Run::new(suite);
        let before = run.client.seal(b"\x18\0\0\x01\0\x16");
        assert_eq!(run.layer.open(&mut before.clone()), Ok(Received::KeyUpdate));
        run.refused(before);

        let mut run = Run::new(suite);
        run.client.update();
        let after = run.client.seal(b"data\x17");
        run.refused(after);
    }
}

#[test]
fn a_record_that_is_cut_anywhere_is_refused() {
    for cut in 1..=21 {
        for mends in [false, true] {
            let mut run = Run::new(3);
            let record = run.client.seal(b"data\x17");
            run.refused(truncated(record, cut, mends));
        }
    }
}

#[test]
fn the_longest_record_opens_and_a_longer_one_overflows() {
    let data = [b'd'; CONTENT_BYTES_MAX + 1];
    for (length, padding) in [(1 << 14, 0), ((1 << 14) - 9, 9), (0, 1 << 14)] {
        assert!(Run::new(1).send(&data[..length], 23, padding));
    }
    // 2^14 + 2 bytes, in a record that is not too long; then one that is.
    for (length, padding) in [(1 << 14, 1), ((1 << 14) + 1, 0), (0, (1 << 14) + 1), (1 << 14, 255)]
    {
        let mut run = Run::new(1);
        let mut record = run.client.seal(&[&data[..length], &[23], &vec![0; padding]].concat());
        assert_eq!(run.layer.open(&mut record), Err(Alert::RecordOverflow), "{length}, {padding}");
    }
}

#[test]
fn a_header_says_how_long_its_record_is() {
    assert_eq!(record_bytes([23, 3, 3, 0x41, 0]), Ok(RECORD_BYTES_MAX));
    assert_eq!(record_bytes([23, 3, 3, 0, 0]), Ok(HEADER_BYTES));
    assert_eq!(record_bytes([23, 3, 3, 0x41, 1]), Err(Alert::RecordOverflow));
    for kind in (0..=255).filter(|kind| *kind != 23) {
        assert_eq!(record_bytes([kind, 3, 3, 0, 1]), Err(Alert::UnexpectedMessage));
    }
}

#[test]
fn what_is_not_a_record_is_refused() {
    for bytes in [&b""[..], b"\x17\x03\x03\0", b"\x17\x03\x03\0\x01", b"\x17\x03\x03\0\0x"] {
        Run::new(1).refused(bytes.to_vec());
    }
    for bytes in [&b"\x17\x03\x03\0\0"[..], b"\x17\x03\x03\0\x01x", b"\x14\x03\x03\0\x01\x01"] {
        Run::new(1).refused(bytes.to_vec());
    }
}

proptest! {
    #[test]
    fn a_naive_twin_agrees(input in vec(any::<u8>(), 0..400)) {
        tls_opener(&input);
    }

    /// Small numbers are more steps, and more of them valid.
    #[test]
    fn a_naive_twin_agrees_on_many_steps(
        suite in 0u8..3,
        steps in vec((prop::sample::select(&[0u8, 1, 1, 10, 10, 11, 12, 13][..]), 0u8..6, 0u8..6), 0..60),
    ) {
        let steps = steps.into_iter().flat_map(|(step, first, second)| {
            // A step takes as many bytes as it needs.
            let bytes = match step {
                0 | 10 => vec![step, first * 40, second],
                1 => vec![step, first % 2, second],
                _ => vec![step],
            };
            bytes.into_iter()
        });
        tls_opener(&std::iter::once(suite).chain(steps).collect::<Vec<_>>());
    }
}
