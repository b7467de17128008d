//! A session of rustls and a record layer with its keys do the same: they seal the same bytes, and open and refuse the
//! same records.

use std::io::{Read as _, Write as _};

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::{ClientConnection, ServerConnection};

use super::super::*;
use super::pair::{SUITES, Sessions, split};
use crate::fuzzing::tls_opener::Run;
use crate::fuzzing::tls_opener::naive::Naive;
use crate::server::tls::test_sessions::records;

/// Both servers, and two clients: that of rustls, and the naive one.
struct Twins {
    session: ServerConnection,
    client: ClientConnection,
    run: Run,
}

/// Nothing, or the bytes of the alert.
type Outcome = Result<(), Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    /// The servers write.
    Write(usize),
    /// The servers update their keys, and request that the client does.
    Request,
    /// The client sends data.
    Data(usize),
    /// The client updates its keys so often, and requests that the servers do.
    Updates(usize),
}

// ===== impl Twins =====

impl Twins {
    fn new(which: usize) -> Self {
        // Tickets that were sent count, and every handshake has as many.
        let sequence = Sessions::new(SUITES[which]).take_over(0).layer.records_sealed();
        let Sessions { server: session, client, secrets } = Sessions::new(SUITES[which]);
        let naive = |secret| Naive::new(which as u8 + 1, secret);
        let server = naive(secrets.server.as_bytes()).at(sequence);
        let run = Run::with(naive(secrets.client.as_bytes()), server);
        Self { session, client, run }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(length) => {
                let data: Vec<u8> = (0..*length).map(|at| at as u8).collect();
                let mut wire = Vec::new();
                self.run.layer.seal(&[IoSlice::new(&data)], &mut wire);
                self.session.writer().write_all(&data).expect("a session");
                self.assert_sealed(&wire, &data);
            }
            Step::Request => {
                let mut wire = Vec::new();
                // rustls gives the answer first, which is due by itself.
                self.run.layer.seal_due_update(&mut wire);
                self.run.layer.request_key_update(&mut wire);
                self.session.refresh_traffic_keys().expect("TLS 1.3");
                self.assert_sealed(&wire, b"");
            }
            Step::Data(length) => {
                self.client.writer().write_all(&vec![b'd'; *length]).expect("a session");
                self.assert_opened();
            }
            Step::Updates(times) => {
                for _ in 0..*times {
                    self.client.refresh_traffic_keys().expect("TLS 1.3");
                }
                // rustls bounds key updates without data.
                self.client.writer().write_all(b"x").expect("a session");
                self.assert_opened();
            }
        }
    }

    /// Both have sealed the same, and the client reads it.
    fn assert_sealed(&mut self, wire: &[u8], data: &[u8]) {
        let mut twin = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut twin).expect("memory");
        }
        assert!(wire == twin, "{} bytes, {} of rustls", wire.len(), twin.len());
        let mut rest = wire;
        let mut read = Vec::new();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory");
            self.client.process_new_packets().expect("valid records");
            _ = self.client.reader().read_to_end(&mut read);
        }
        assert!(read == data);
    }

    /// Both open what the client sends.
    fn assert_opened(&mut self) {
        let wire = records(&mut self.client);
        let mut data = 0;
        for mut record in split(&wire) {
            if self.run.layer.open(&mut record) == Ok(Received::Data) {
                data += record.len() - HEADER_BYTES - 1 - TAG_BYTES;
            }
        }
        let mut rest = &wire[..];
        let mut read = Vec::new();
        while !rest.is_empty() {
            self.session.read_tls(&mut rest).expect("memory");
            self.session.process_new_packets().expect("valid records");
            _ = self.session.reader().read_to_end(&mut read);
        }
        assert_eq!(read.len(), data);
    }

    /// A record of the naive client: whether both go on, or what alerts both send, sealed.
    fn receive(&mut self, record: &[u8]) -> (Outcome, Outcome) {
        let opened = self.run.layer.open(&mut record.to_vec()).map(drop).map_err(|alert| {
            let mut wire = Vec::new();
            self.run.layer.seal_due_update(&mut wire);
            self.run.layer.seal_alert(alert, &mut wire);
            wire
        });
        let mut rest = record;
        let mut processed = Ok(());
        while !rest.is_empty() && processed.is_ok() {
            self.session.read_tls(&mut rest).expect("memory");
            processed = self.session.process_new_packets().map(drop);
        }
        let twin = processed.map_err(|_| {
            let mut wire = Vec::new();
            self.session.write_tls(&mut wire).expect("memory");
            wire
        });
        (opened, twin)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1usize..400).prop_map(Step::Write),
        1 => (1usize..16_384).prop_map(Step::Write),
        1 => Just(Step::Request),
        2 => (1usize..400).prop_map(Step::Data),
        1 => (1usize..40_000).prop_map(Step::Data),
        2 => (1usize..5).prop_map(Step::Updates),
    ];
    vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn both_seal_the_same_bytes_and_open_the_same_records(which in 0usize..3, steps in steps()) {
        let mut twins = Twins::new(which);
        for step in &steps {
            twins.step(step);
        }
    }
}

#[test]
fn both_close_with_the_same_bytes() {
    for which in 0..3 {
        let mut twins = Twins::new(which);
        let mut wire = Vec::new();
        twins.run.layer.seal_alert(Alert::CloseNotify, &mut wire);
        twins.session.send_close_notify();
        twins.assert_sealed(&wire, b"");
    }
}

/// What a client may send, or must not, as content, type and padding.
#[test]
fn both_refuse_the_same_records_with_the_same_bytes() {
    let long = [&[b'd'; CONTENT_BYTES_MAX + 1][..], &[23]].concat();
    let valid: [&[u8]; 7] = [
        b"data\x17",
        b"data\x17\0\0\0",
        b"\x17",
        b"\x17\0",
        &long[1..],
        b"\x18\0\0\x01\0\x16",
        b"\x18\0\0\x01\x01\x16",
    ];
    let refused: [&[u8]; 8] = [
        &long,
        b"\x18\0\0\x01\x02\x16",
        b"\x18\0\0\x01\0\x18\x16",
        b"\x18\0\0\x01\x01\x18\0\x16",
        b"\x18\0\0\0\x16",
        b"\x18\0\0\x02\0\0\x16",
        b"\x01\x14",
        b"\x01\x15",
    ];
    for which in 0..3 {
        for inner in valid {
            let mut twins = Twins::new(which);
            let record = twins.run.client.seal(inner);
            assert_eq!(twins.receive(&record), (Ok(()), Ok(())), "{inner:?}");
        }
        for inner in refused {
            let mut twins = Twins::new(which);
            let record = twins.run.client.seal(inner);
            let (opened, twin) = twins.receive(&record);
            assert_eq!(opened, twin, "{inner:?}");
            assert_eq!(opened.expect_err("refused").len(), HEADER_BYTES + 3 + TAG_BYTES);
        }
    }
}

/// Of these rustls sends another alert than the RFC says, or none, or takes them.
#[test]
fn what_only_the_rfc_refuses_so_is_refused_as_it_says() {
    // "A TLS implementation that receives an unexpected record type" (5), without one or empty (5.4); any handshake
    // message but KeyUpdate, which rustls parses before it refuses it.
    let inner: [&[u8]; 8] = [
        b"",
        b"\0\0",
        b"x\x18",
        b"x\xff",
        b"\x16",
        b"\x15",
        b"\x0b\0\0\0\x16",
        b"\x01\0\0\x01x\x16",
    ];
    for inner in inner {
        let mut twins = Twins::new(0);
        let mut record = twins.run.client.seal(inner);
        let (opened, twin) = twins.receive(&record);
        assert_ne!(opened, twin, "{inner:?}: this can move to the test above");
        let mut layer = Run::with_sealed(1, 0);
        record = layer.client.seal(inner);
        assert_eq!(layer.layer.open(&mut record), Err(Alert::UnexpectedMessage), "{inner:?}");
    }
}

/// The whole of a stream: its records changed, cut, swapped and repeated.
#[test]
fn both_refuse_what_was_changed_on_the_way() {
    for which in 0..3 {
        for at in HEADER_BYTES..HEADER_BYTES + 5 + TAG_BYTES {
            let mut twins = Twins::new(which);
            let mut record = twins.run.client.seal(b"data\x17");
            record[at] ^= 1;
            let (opened, twin) = twins.receive(&record);
            assert!(opened.is_err() && opened == twin, "byte {at}");
        }
        let mut twins = Twins::new(which);
        let [first, second] = [b"1\x17", b"2\x17"].map(|inner| twins.run.client.seal(inner));
        assert_eq!(twins.receive(&first), (Ok(()), Ok(())));
        let (opened, twin) = twins.receive(&first);
        assert!(opened.is_err() && opened == twin, "replayed");
        let mut twins = Twins::new(which);
        let (opened, twin) = twins.receive(&second);
        assert!(opened.is_err() && opened == twin, "of another session");
    }
}
