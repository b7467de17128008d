//! What another process goes on with.

use super::super::*;
use super::pair::{Pair, SUITES};
use crate::fuzzing::tls_opener::Run;
use crate::fuzzing::tls_opener::naive::Naive;

fn encoded(layer: &RecordLayer) -> Vec<u8> {
    minicbor::to_vec(layer.state()).expect("memory")
}

fn restored(state: &[u8]) -> Option<RecordLayer> {
    RecordLayer::restore(minicbor::decode(state).ok()?)
}

#[test]
fn another_process_goes_on_in_the_middle_of_key_updates() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        let hand_over = |pair: &mut Pair| {
            pair.layer = restored(&encoded(&pair.layer)).expect("valid");
        };
        hand_over(&mut pair);
        pair.client.refresh_traffic_keys().expect("TLS 1.3");
        for mut record in pair.client_records() {
            hand_over(&mut pair);
            assert_eq!(pair.layer.open(&mut record), Ok(Received::KeyUpdate));
        }
        hand_over(&mut pair);
        assert!(pair.layer.update_is_due());
        let wire = pair.seal(b"data: 1\n\n");
        hand_over(&mut pair);
        let more = pair.seal(b"data: 2\n\n");
        assert_eq!(pair.client_reads(&[wire, more].concat()), b"data: 1\n\ndata: 2\n\n");
    }
}

#[test]
fn the_beginning_of_a_key_update_is_handed_over() {
    let mut run = Run::new(3);
    assert!(run.send(b"\x18\0\0", 22, 0));
    run.layer = restored(&encoded(&run.layer)).expect("valid");
    assert!(run.send(b"\x01\x01", 22, 0));
    assert!(run.seal(3) && run.send(b"x", 23, 0));
}

#[test]
fn a_state_is_what_its_format_says() {
    let layer = Run::with(Naive::new(1, &[1; 32]), Naive::new(1, &[2; 32]).at(7)).layer;
    let state = encoded(&layer);
    // An array of five; of the sealing half: suite, and the secret in 48 bytes.
    let secret = [&[2; 32][..], &[0; 16]].concat();
    assert!(state.starts_with(&[&[0x85, 0x85, 1, 0x58, 48][..], &secret].concat()));
    assert!(state.ends_with(&[0x44, 0, 0, 0, 0, 0, 0xf4]), "{state:?}");
    assert_eq!(state.len(), 208);
    let again = restored(&state).expect("valid");
    assert_eq!(encoded(&again), state);
    assert_eq!(again.records_sealed(), 7);
}

#[test]
fn what_is_not_a_state_is_refused() {
    let valid = encoded(&Run::new(1).layer);
    assert!(restored(&valid).is_some());
    for cut in 0..valid.len() {
        assert!(restored(&valid[..cut]).is_none());
    }
    // An unknown suite; two suites; a fragment that is a whole message.
    let suites: Vec<_> = [2, 102].into_iter().filter(|at| valid[*at] == 1).collect();
    assert_eq!(suites.len(), 2);
    for (at, byte) in [(suites[0], 4), (suites[0], 2), (suites[1], 3), (valid.len() - 2, 5)] {
        let mut state = valid.clone();
        state[at] = byte;
        assert!(restored(&state).is_none(), "{byte} at {at}");
    }
}

#[test]
fn numbers_that_could_wrap_are_refused() {
    for sequence in [SEQUENCE_MAX + 1, u64::MAX] {
        let naive = || Naive::new(1, &[1; 32]);
        let far = || naive().at(sequence);
        assert!(Run::layer(&far(), &naive()).is_none());
        assert!(Run::layer(&naive(), &far()).is_none());
    }
}

#[test]
fn nothing_secret_is_shown() {
    let layer = Run::with(Naive::new(1, &[0xab; 32]), Naive::new(1, &[0xcd; 32])).layer;
    let shown =
        "RecordLayer { sealing: Aes128GcmSha256, record 0, opening: Aes128GcmSha256, record 0 }";
    assert_eq!(format!("{layer:?}"), shown);
    assert_eq!(format!("{:?}", layer.state()), "RecordLayerState");
}

/// What a stream keeps of its session.
#[test]
fn a_record_layer_is_small() {
    assert_eq!((size_of::<RecordLayer>(), size_of::<Layer>()), (8, 216));
}
