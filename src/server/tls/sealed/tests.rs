//! Streams on sockets that take, and bring, any number of bytes at any time. Clients are sessions of rustls.

use std::collections::VecDeque;

use proptest::prelude::*;
use rustls::{AlertDescription, ClientConnection, Error};

use super::*;
use crate::server::tls::record_layer::RECORD_BYTES_MAX;
use crate::server::tls::test_sealed::{open, sealed};
use crate::server::tls::test_sessions::records;

/// A socket in memory.
#[derive(Debug, Default)]
struct Socket {
    /// Bytes that it still takes.
    room: usize,
    taken: Vec<u8>,
    /// Writes of which it took something.
    writes: usize,
    /// What the client has sent.
    sent: VecDeque<u8>,
}

/// Both ends of a session.
struct Ends {
    server: SealedTransport<Socket>,
    client: ClientConnection,
    /// What the client has received.
    data: Vec<u8>,
    closed: bool,
}

/// A KeyUpdate in a record (RFC 8446, 4.6.3, 5.2), and an alert.
const KEY_UPDATE_BYTES: usize = 5 + 5 + 1 + 16;
const ALERT_BYTES: usize = 5 + 2 + 1 + 16;

// ===== impl Socket =====

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.sent.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { self.sent.read(bytes) }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.writes += 1;
        self.taken.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ===== impl Ends =====

impl Ends {
    fn new(room: usize) -> Self {
        let (server, client) = sealed(Socket { room, ..Socket::default() });
        Self { server, client, data: Vec::new(), closed: false }
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.server.write(&parts)
    }

    /// The client has something to send.
    fn client_sends(&mut self) {
        self.server.socket.sent.extend(records(&mut self.client));
    }

    /// The server reads all that was sent, so many bytes at a time.
    fn server_reads(&mut self, most: usize) -> io::Result<usize> {
        let mut read = 0;
        loop {
            match self.server.discard(&mut vec![0; most]) {
                Ok(0) => return Ok(read),
                Ok(some) => read += some,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(read),
                Err(why) => return Err(why),
            }
        }
    }

    /// The client reads what the socket has taken.
    fn client_reads(&mut self) -> Result<(), Error> {
        let taken = std::mem::take(&mut self.server.socket.taken);
        self.closed |= open(&mut self.client, &taken, &mut self.data)?;
        Ok(())
    }

    /// The stream goes to another process.
    fn moves(self) -> Self {
        let Self { server, client, data, closed } = self;
        let mut state = Vec::new();
        minicbor::encode(server.state(), &mut state).expect("memory");
        let state = minicbor::decode(&state).expect("a state");
        let server = SealedTransport::restore(server.socket, state).expect("keys");
        Self { server, client, data, closed }
    }

    fn has_room(&mut self, room: usize) {
        self.server.socket.room = room;
    }
}

/// The lengths of the records of a whole number of them.
fn lengths(mut wire: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some(header) = wire.first_chunk() {
        let length = record_bytes(*header).expect("a record");
        lengths.push(length);
        wire = &wire[length..];
    }
    lengths
}

fn would_block<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.is_err_and(|why| why.kind() == ErrorKind::WouldBlock)
}

/// What may happen to a stream.
#[derive(Clone, Debug)]
enum Step {
    /// Parts of these lengths are written.
    Writes(Vec<usize>),
    Flushes,
    /// The socket takes so many bytes more.
    Room(usize),
    /// The client requests so many key updates, and sends so much data.
    ClientSends(usize, usize),
    /// The server reads so many bytes, so often.
    Reads(usize, usize),
    RequestsUpdate,
    Moves,
    ClientReads,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0..20_000_usize, 1..4).prop_map(Step::Writes),
        4 => proptest::collection::vec(0..90_usize, 1..4).prop_map(Step::Writes),
        2 => Just(Step::Flushes),
        3 => (0..40_000_usize).prop_map(Step::Room),
        3 => (0..60_usize).prop_map(Step::Room),
        2 => (0..4_usize, 0..20_000_usize).prop_map(|(updates, data)| Step::ClientSends(updates, data)),
        2 => (1..5_000_usize, 1..8_usize).prop_map(|(most, times)| Step::Reads(most, times)),
        1 => Just(Step::RequestsUpdate),
        1 => Just(Step::Moves),
        2 => Just(Step::ClientReads),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The client receives the bytes that were taken, as a socket in the clear would have had them, whatever either side
    /// does with its keys meanwhile.

#[test]
    fn a_client_receives_what_was_written(steps in steps()) {
        let (mut ends, mut clear, mut next) = (Ends::new(0), Vec::<u8>::new(), 0_u8);
        for step in steps {
            match step {
                Step::Writes(lengths) => {
                    let parts: Vec<Vec<u8>> = lengths.into_iter().map(|length| {
                        (0..length).map(|_| { next = next.wrapping_add(1); next }).collect()
                    }).collect();
                    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    let pending = ends.server.pending.is_some();
                    match ends.write(&slices) {
                        Ok(taken) => {
                            let all = parts.concat();
                            prop_assert!(taken == all.len().min(1 << 14), "{taken} of {}", all.len());
                            clear.extend_from_slice(&all[..taken]);
                        }
                        Err(why) => prop_assert!(pending && why.kind() == ErrorKind::WouldBlock),
                    }
                }
                Step::Flushes => {
                    let flushed = ends.server.flush();
                    prop_assert_eq!(would_block(flushed), ends.server.has_pending());
                }
                Step::Room(room) => ends.has_room(room),
                Step::ClientSends(updates, data) => {
                    (0..updates).for_each(|_| ends.client.refresh_traffic_keys().expect("TLS 1.3"));
                    ends.client.writer().write_all(&vec![b'x'; data]).expect("a session");
                    ends.client_sends();
                }
                Step::Reads(most, times) => {
                    for _ in 0..times {
                        let before = ends.server.socket.sent.len();
                        match ends.server.discard(&mut vec![0; most]) {
                            Ok(read) => prop_assert_eq!(before - read, ends.server.socket.sent.len()),
                            Err(why) => prop_assert!(before == 0 && why.kind() == ErrorKind::WouldBlock),
                        }
                    }
                }
                Step::RequestsUpdate => _ = ends.server.request_key_update(),
                Step::Moves => ends = ends.moves(),
                Step::ClientReads => ends.client_reads().expect("valid records"),
            }
            let pending = ends.server.pending.as_ref().map_or(0, |pending| pending.len());
            prop_assert!(pending <= RECORD_BYTES_MAX + KEY_UPDATE_BYTES, "{pending} bytes");
            let partial = ends.server.partial.as_ref().map_or(0, |partial| partial.capacity());
            prop_assert!(partial <= RECORD_BYTES_MAX, "{partial} bytes");
        }
        ends.has_room(usize::MAX);
        ends.server_reads(4_096).expect("valid records");
        ends.server.close().expect("there is room");
        prop_assert!(ends.server.pending.is_none() && ends.server.partial.is_none());
        ends.client_reads().expect("valid records");
        prop_assert!(ends.closed);
        prop_assert_eq!(ends.data, clear);
    }
}

/// Also if the socket takes them in pieces, or not at all at first.
#[test]
fn what_a_session_left_to_send_goes_with_the_first_record() {
    for (room, writes) in [(10_000, 1), (7, 2), (0, 1)] {
        let mut ends = Ends::new(room);
        let mut left = Vec::new();
        ends.server.layer.seal(&[IoSlice::new(b"left ")], &mut left);
        (ends.server.pending, ends.server.begins) = (Some(Box::new(left.into())), true);
        assert_eq!(ends.write(&[b"first "]).expect("sealed"), 6);
        let next = ends.write(&[b"next"]);
        assert_eq!(next.is_err(), room < 10_000, "nothing is sealed while something is pending");
        ends.has_room(10_000);
        ends.server.flush().expect("room");
        assert_eq!(ends.server.socket.writes, writes + usize::from(next.is_ok()), "{room}");
        ends.client_reads().expect("records");
        assert_eq!(
            ends.data,
            if next.is_ok() { b"left first next".to_vec() } else { b"left first ".to_vec() }
        );
    }
}

/// SCENARIO: a client requests key updates again and again while its socket is full.
/// The record that was cut goes on under the key with which it was sealed, then comes one answer, then the next event.
#[test]
fn key_updates_are_answered_once_and_before_the_next_event() {
    for updates in [1, 2, 30] {
        let mut ends = Ends::new(50);
        assert_eq!(ends.write(&[b"an event that is cut by a full socket"]).expect("sealed"), 37);
        assert!(would_block(ends.server.flush()));
        (0..updates).for_each(|_| ends.client.refresh_traffic_keys().expect("TLS 1.3"));
        ends.client_sends();
        ends.server_reads(7).expect("valid records");
        assert!(would_block(ends.write(&[b"refused"])));
        assert!(ends.server.has_pending());
        ends.has_room(usize::MAX);
        assert_eq!(ends.write(&[b"next"]).expect("there is room"), 4);
        let wire = [5 + 37 + 1 + 16, KEY_UPDATE_BYTES, 5 + 4 + 1 + 16];
        assert_eq!(lengths(&ends.server.socket.taken), wire, "{updates} updates");
        ends.client_reads().expect("valid records");
        assert_eq!(ends.data, b"an event that is cut by a full socketnext");
        assert!(!ends.server.has_pending());
    }
}

/// Without an event the answer is sent when the socket has been read.
#[test]
fn a_key_update_is_answered_without_an_event() {
    let mut ends = Ends::new(usize::MAX);
    ends.client.refresh_traffic_keys().expect("TLS 1.3");
    ends.client_sends();
    ends.server_reads(100).expect("valid records");
    assert!(ends.server.has_pending());
    ends.server.flush().expect("there is room");
    assert_eq!(lengths(&ends.server.socket.taken), [KEY_UPDATE_BYTES]);
    assert_eq!(ends.server.records_sealed(), 0, "the key is new");
    ends.server.flush().expect("nothing is left");
    assert_eq!(lengths(&ends.server.socket.taken), [KEY_UPDATE_BYTES]);
}

/// The header is enough: no memory is held for a record that is refused, and its client receives the reason.
#[test]
fn what_is_no_record_ends_the_session_with_an_alert() {
    for (bytes, alert) in [
        (&[23, 3, 3, 0x41, 0x01][..], AlertDescription::RecordOverflow),
        (&[20, 3, 3, 0, 1], AlertDescription::UnexpectedMessage),
        (&[22, 3, 3, 0, 100], AlertDescription::UnexpectedMessage),
        (b"GET / HTTP/1.1\r\n\r\n", AlertDescription::UnexpectedMessage),
        (&[23, 3, 3, 0, 0], AlertDescription::BadRecordMac),
        (&[[23, 3, 3, 0, 17].as_slice(), &[7; 17]].concat(), AlertDescription::BadRecordMac),
    ] {
        for most in [1, 3, 100] {
            let mut ends = Ends::new(usize::MAX);
            ends.server.socket.sent.extend(bytes);
            let why = ends.server_reads(most).expect_err("refused");
            assert_eq!(why.kind(), ErrorKind::InvalidData);
            assert!(ends.server.partial.is_none());
            assert_eq!(lengths(&ends.server.socket.taken), [ALERT_BYTES]);
            assert_eq!(ends.client_reads(), Err(Error::AlertReceived(alert)), "{bytes:?}");
            assert!(ends.write(&[b"more"]).is_err(), "nothing follows it");
            ends.server.close().expect("nothing is left");
            assert!(ends.server.socket.taken.is_empty());
        }
    }
}

/// An alert in the middle of another record would be none.
#[test]
fn no_alert_is_written_into_a_record_that_was_cut() {
    let mut ends = Ends::new(20);
    ends.write(&[b"an event"]).expect("sealed");
    ends.server.socket.sent.extend([23, 3, 3, 0xff, 0xff]);
    ends.server_reads(100).expect_err("refused");
    assert_eq!(ends.server.socket.taken.len(), 20);
    ends.has_room(usize::MAX);
    ends.server.flush().expect("there is room");
    ends.client_reads().expect("a valid record");
    assert_eq!(ends.data, b"an event");
    // If the rest fits by then, it follows.
    let mut ends = Ends::new(20);
    ends.write(&[b"an event"]).expect("sealed");
    ends.has_room(usize::MAX);
    ends.server.socket.sent.extend([23, 3, 3, 0xff, 0xff]);
    ends.server_reads(100).expect_err("refused");
    assert_eq!(ends.client_reads(), Err(Error::AlertReceived(AlertDescription::RecordOverflow)));
    assert_eq!(ends.data, b"an event");
}

/// Wherever a full socket cuts it.
#[test]
fn close_notify_is_sent_once_and_whole() {
    for room in 0..ALERT_BYTES {
        let mut ends = Ends::new(room);
        assert!(would_block(ends.server.close()));
        assert!(would_block(ends.server.close()));
        ends.has_room(usize::MAX);
        ends.server.close().expect("there is room");
        ends.server.close().expect("nothing is left");
        assert_eq!(lengths(&ends.server.socket.taken), [ALERT_BYTES]);
        ends.client_reads().expect("valid records");
        assert!(ends.closed);
        assert!(ends.write(&[b"more"]).is_err(), "nothing follows it");
    }
}

/// What was read with the request may be whole records, and the beginning of another one.
#[test]
fn what_was_read_before_the_stream_is_discarded() {
    for closes in [false, true] {
        let mut ends = Ends::new(usize::MAX);
        ends.client.refresh_traffic_keys().expect("TLS 1.3");
        ends.client.writer().write_all(&[b'x'; 900]).expect("a session");
        if closes {
            ends.client.send_close_notify();
        } else {
            ends.client.writer().write_all(b"rest").expect("a session");
        }
        let sent = records(&mut ends.client);
        let (held, rest) = sent.split_at(sent.len() - if closes { 0 } else { 3 });
        ends.server.partial = Some(Box::new(held.to_vec()));
        assert_eq!(ends.server.discard_held().expect("valid records"), closes);
        if !closes {
            assert_eq!(
                ends.server.partial.as_ref().map(|held| held.len()),
                Some(5 + 4 + 1 + 16 - 3)
            );
            assert!(!ends.server.discard_held().expect("it is not whole"));
            ends.server.socket.sent.extend(rest);
            assert_eq!(ends.server_reads(100).expect("valid records"), 3);
        }
        assert!(ends.server.partial.is_none() && ends.server.has_pending());
    }
}

/// Also if more arrives before anything asks for it.
#[test]
fn what_was_read_before_the_stream_is_opened_before_what_follows() {
    let mut ends = Ends::new(usize::MAX);
    for data in [b"one", b"two"] {
        ends.client.writer().write_all(data).expect("a session");
    }
    ends.server.partial = Some(Box::new(records(&mut ends.client)));
    ends.client.refresh_traffic_keys().expect("TLS 1.3");
    ends.client_sends();
    assert_eq!(ends.server_reads(100).expect("valid records"), KEY_UPDATE_BYTES);
    assert!(ends.server.partial.is_none() && ends.server.has_pending());
}

/// An alert of the client, whichever, is the end.
#[test]
fn a_client_that_closes_its_session_has_gone() {
    let mut ends = Ends::new(usize::MAX);
    ends.client.send_close_notify();
    ends.client_sends();
    assert_eq!(ends.server.discard(&mut [0; 100]).expect("valid records"), 0);
}

/// What the socket takes is noted, and whether it takes anything.
#[test]
fn progress_is_what_the_socket_takes() {
    let mut ends = Ends::new(10);
    assert!(!ends.server.progressed());
    ends.write(&[b"an event"]).expect("sealed");
    assert!(ends.server.progressed());
    assert!(would_block(ends.server.flush()) && !ends.server.progressed());
    ends.has_room(1);
    assert!(would_block(ends.server.flush()) && ends.server.progressed());
    assert!(!ends.server.progressed());
}
