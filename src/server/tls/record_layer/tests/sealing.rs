//! What is sealed, and when its key changes.

use super::super::*;
use crate::fuzzing::tls_opener::Run;

#[test]
fn a_record_has_as_much_as_fits_and_the_rest_is_left() {
    for length in [1, 2, 3, 16_383, 16_384, 16_385, 100_000] {
        assert!(Run::new(1).seal(length));
    }
    let mut run = Run::new(2);
    let data = vec![7; CONTENT_BYTES_MAX];
    let parts = [IoSlice::new(&data[1..]), IoSlice::new(&data)];
    let mut wire = Vec::new();
    assert_eq!(run.layer.seal(&parts, &mut wire), CONTENT_BYTES_MAX);
    assert_eq!(wire.len(), HEADER_BYTES + CONTENT_BYTES_MAX + 1 + TAG_BYTES);
    assert_eq!(run.layer.records_sealed(), 1);
}

#[test]
fn without_data_nothing_is_sealed_and_no_number_is_used() {
    let mut run = Run::new(1);
    assert!(run.send(b"\x18\0\0\x01\x01", 22, 0));
    let mut wire = Vec::new();
    assert_eq!(run.layer.seal(&[], &mut wire), 0);
    assert_eq!(run.layer.seal(&[IoSlice::new(b""), IoSlice::new(b"")], &mut wire), 0);
    assert!(wire.is_empty() && run.layer.update_is_due());
    assert_eq!(run.layer.records_sealed(), 0);
}

#[test]
fn several_requests_before_a_record_are_answered_once() {
    for suite in 1..=3 {
        let mut run = Run::new(suite);
        for _ in 0..100 {
            assert!(run.send(b"\x18\0\0\x01\x01", 22, 0));
        }
        // One KeyUpdate and the data, and then data only.
        assert!(run.seal(10) && run.seal(10));
        assert_eq!(run.layer.records_sealed(), 2);
    }
}

#[test]
fn a_key_seals_a_bounded_number_of_records() {
    let mut run = Run::with_sealed(1, RECORDS_MAX - 1);
    assert!(run.seal(5));
    assert_eq!(run.layer.records_sealed(), RECORDS_MAX);
    run.expect_update();
    assert!(run.seal(5));
    assert_eq!(run.layer.records_sealed(), 1);
}

#[test]
fn an_alert_has_its_level_and_description() {
    let errors = [
        (Alert::CloseNotify, [1, 0], "close_notify"),
        (Alert::UnexpectedMessage, [2, 10], "unexpected_message"),
        (Alert::BadRecordMac, [2, 20], "bad_record_mac"),
        (Alert::RecordOverflow, [2, 22], "record_overflow"),
        (Alert::IllegalParameter, [2, 47], "illegal_parameter"),
        (Alert::DecodeError, [2, 50], "decode_error"),
    ];
    for (alert, bytes, name) in errors {
        assert_eq!((alert.to_bytes(), alert.to_string()), (bytes, name.to_owned()));
    }
}
