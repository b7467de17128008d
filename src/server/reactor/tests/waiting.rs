//! Connections that wait for their first request.

use std::net::Ipv4Addr;

use super::*;
use crate::admission::Entrance;
use crate::server::proxy_protocol::HeaderState;
use crate::server::reactor::Accepted;
use crate::stream::{Sockets, drive_with};
use crate::time::Time;

pub(super) const STREAM: &[u8] = b"GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";
pub(super) const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";

impl Rig {
    /// Opens a connection that waits in the reactor. Returns the client's end of it.
    pub(super) async fn connect(&mut self) -> TcpStream {
        let (client, accepted) = connect(&self.admission).await;
        self.handle.accept(accepted, None);
        self.run().await;
        client
    }
}

/// A connection that was admitted, and the client's end of it.
pub(super) async fn connect(admission: &Admission) -> (TcpStream, Accepted) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    client.set_nonblocking(true).expect("a socket");
    let (socket, peer) = listener.accept().expect("accepted");
    socket.set_nonblocking(true).expect("a socket");
    let socket = mio::net::TcpStream::from_std(socket);
    let admitted = admission.admit(Some(peer.ip()), Entrance::Public).await;
    (client, Accepted { socket, admitted, header: HeaderState::Done })
}

/// Sends bytes, and waits until the server's end has them.
pub(super) fn send(accepted: &Accepted, mut client: &TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("connected");
    let mut arrived = vec![0; bytes.len()];
    for _ in 0..20_000 {
        if accepted.socket.peek(&mut arrived).is_ok_and(|length| length == bytes.len()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not there within twenty seconds");
}

/// The bytes that have arrived, at least one, which stay where they are.
fn received(client: &TcpStream) -> Vec<u8> {
    client.set_nonblocking(false).expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut bytes = vec![0; 1 << 18];
    let length = client.peek(&mut bytes).expect("an answer");
    client.set_nonblocking(true).expect("a socket");
    bytes.truncate(length);
    bytes
}

/// Reads the available bytes. Returns whether they are a response to [`LIVEZ`].
pub(super) fn is_answered(mut client: &TcpStream, answer: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        answer.extend_from_slice(&bytes[..length]);
    }
    answer.ends_with(b"\r\n\r\nlive\n")
}

/// The reactor serves a GET of a stream in its slot. It hands any other request to hyper, with the bytes read so far,
/// and no longer watches that socket.
#[tokio::test]
async fn the_reactor_serves_a_first_request_for_a_stream_and_hyper_any_other() {
    let mut rig = Rig::new(uncoalesced(8));
    let hub = rig.hub.clone();
    let mut listener = rig.connect().await;
    let mut prober = rig.connect().await;
    assert_eq!(hub.seats(), 0, "there was no request yet");

    listener.write_all(STREAM).expect("connected");
    rig.run_until(|| hub.seats() == 1).await;
    let mut client = Client::new(listener);
    rig.run_until(|| client.read(4096) > 0).await;

    let (first, rest) = LIVEZ.split_at(4);
    prober.write_all(first).expect("connected");
    rig.run().await;
    prober.write_all(rest).expect("connected");
    let mut answer = Vec::new();
    rig.run_until(|| is_answered(&prober, &mut answer)).await;
    rig.publish("after");
    rig.run_until(|| client.read(4096) > 0).await;
    assert_eq!(rig.admission.connections(Entrance::Public), 2);
}

/// No poller is asked between the accept and the answer: not the reactor's, and not that of the runtime, which runs
/// only when a test awaits.
#[tokio::test]
async fn a_request_that_came_with_its_connection_is_answered_in_the_same_turn() {
    let mut rig = Rig::new(uncoalesced(8));
    let (client, accepted) = connect(&rig.admission).await;
    let client = Client::new(client);
    send(&accepted, &client.socket, STREAM);
    rig.handle.accept(accepted, None);
    rig.driver.turn();
    assert_eq!(rig.hub.seats(), 1);
    let written = received(&client.socket);
    assert!(written.starts_with(b"HTTP/1.1 200 "), "{}", written.escape_ascii());
    assert!(written.ends_with(b"\n\n\r\n"), "{}", written.escape_ascii());

    // From now on its socket is watched.
    client.socket.shutdown(std::net::Shutdown::Write).expect("connected");
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 0).await;
    assert_eq!(rig.closed(CloseReason::Client), 1);
}

/// Then the poller has to watch for room too, as soon as it watches the socket at all.
#[tokio::test]
async fn an_answer_that_does_not_fit_is_completed_if_the_request_came_with_its_connection() {
    let mut rig = Rig::new(uncoalesced(256));
    let mut first = rig.connect().await;
    first.write_all(STREAM).expect("connected");
    let mut first = Client::new(first);
    rig.run_until(|| first.read(4096) > 0).await;
    let start = first.events[0].id.clone();
    let keys: Vec<_> = (0..100).map(|n| format!("{n:01000}")).collect();
    keys.iter().for_each(|key| rig.publish(key));

    let (server, mut client) = narrow_pair();
    let peer = server.peer_addr().expect("connected");
    let admitted = rig.admission.admit(Some(peer.ip()), Entrance::Public).await;
    let header = HeaderState::Done;
    let accepted = Accepted { socket: watched(server), admitted, header };
    let request =
        format!("GET /api/acme/events HTTP/1.1\r\nhost: test\r\nlast-event-id: {start}\r\n\r\n");
    send(&accepted, &client.socket, request.as_bytes());
    rig.handle.accept(accepted, None);
    rig.driver.turn();
    assert_eq!(rig.hub.seats(), 2);
    assert!(received(&client.socket).len() < 100_000, "the socket is full");
    rig.run_until(|| {
        client.read(4096);
        client.keys().len() == 100
    })
    .await;
    assert_eq!(client.keys(), keys);
}

/// No poller says that it sends no more.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_request_that_came_with_its_connection_and_the_end_of_it_opens_no_stream() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut rig = Rig::new(uncoalesced(8));
    let (client, accepted) = connect(&rig.admission).await;
    send(&accepted, &client, STREAM);
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    let arrived = PollFd::new(&accepted.socket, PollFlags::RDHUP);
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [arrived], Some(&limit)), Ok(1));
    rig.handle.accept(accepted, None);
    rig.driver.turn();
    assert_eq!(rig.admission.connections(Entrance::Public), 0);
    assert_eq!(rig.hub.counters().map(|counters| read(&counters.opened[0])).sum::<u64>(), 0);
}

/// It is not watched yet, so there is nothing to stop watching.
#[tokio::test]
async fn any_other_request_that_came_with_its_connection_goes_to_hyper() {
    let mut rig = Rig::new(uncoalesced(8));
    let (client, accepted) = connect(&rig.admission).await;
    send(&accepted, &client, LIVEZ);
    rig.handle.accept(accepted, None);
    let mut answer = Vec::new();
    rig.run_until(|| is_answered(&client, &mut answer)).await;
}

/// It may end with FIN or with RST.
#[tokio::test]
async fn a_connection_that_ends_before_its_request_is_released() {
    let mut rig = Rig::new(uncoalesced(8));
    let (first, second) = (rig.connect().await, rig.connect().await);
    drop(first);
    SockRef::from(&second).set_linger(Some(Duration::ZERO)).expect("connected");
    drop(second);
    let admission = rig.admission.clone();
    rig.run_until(|| admission.connections(Entrance::Public) == 0).await;
}

/// The request of a stream and the FIN after it may be read in one turn, and then no seat is taken, or not.
#[tokio::test]
async fn a_stream_whose_client_has_already_disconnected_frees_its_seat() {
    let mut rig = Rig::new(uncoalesced(8));
    let mut client = rig.connect().await;
    client.write_all(STREAM).expect("connected");
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    let admission = rig.admission.clone();
    rig.run_until(|| admission.connections(Entrance::Public) == 0).await;
    let opened: u64 = rig.hub.counters().map(|counters| read(&counters.opened[0])).sum();
    assert_eq!((rig.closed(CloseReason::Client), rig.hub.seats()), (opened, 0));
}

/// It is closed after `head_timeout` (10 s); a connection that carries a stream by then is not.
#[tokio::test]
async fn a_silent_connection_is_closed_at_the_head_timeout() {
    let hub = Hub::new(uncoalesced(8));
    let (context, admission, _draining) = context(&hub, Clock::start());
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (silent, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    let (mut listener, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    reactor.turn(Time(5_000));
    listener.write_all(STREAM).expect("connected");
    while hub.seats() == 0 {
        yield_now().await;
        reactor.turn(Time(6_000));
    }
    reactor.tick(Time(14_999));
    assert_eq!(admission.connections(Entrance::Public), 2, "it has ten seconds");
    reactor.tick(Time(15_000));
    silent.set_nonblocking(false).expect("a socket");
    silent.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    assert_eq!((&silent).read(&mut [0; 1]).expect("the end of the stream"), 0);
    reactor.tick(Time(60_000));
    assert_eq!((hub.seats(), admission.connections(Entrance::Public)), (1, 1));
}

/// SCENARIO: the process is stopped for longer than the head timeout; a client that is connected sends its request.
/// BUG: the clock was looked at before the sockets, and the connection was closed unanswered.
/// FIX: the time of a connection that is silent counts from the end of the pause, after which it is read.
#[tokio::test]
async fn a_pause_closes_no_silent_connection() {
    let hub = Hub::new(uncoalesced(8));
    let (context, admission, _draining) = context(&hub, Clock::start());
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (_silent, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    let (mut listener, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    reactor.turn(Time(5_000));
    listener.write_all(STREAM).expect("connected");
    hub.driver().resume(Time(60_000), Duration::from_secs(60));
    for now in [60_000, 69_999] {
        reactor.tick(Time(now));
        assert_eq!(admission.connections(Entrance::Public), 2, "at {now}");
    }
    while hub.seats() == 0 {
        yield_now().await;
        reactor.turn(Time(69_999));
    }
    reactor.tick(Time(70_000));
    assert_eq!((hub.seats(), admission.connections(Entrance::Public)), (1, 1));
}

/// A request may still arrive when the reactor ends.
#[tokio::test]
async fn a_reactor_that_ends_hands_its_waiting_connections_to_hyper() {
    let hub = Hub::new(uncoalesced(8));
    let clock = Clock::start();
    let (context, admission, _draining) = context(&hub, clock);
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (mut waiting, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    reactor.turn(Time(0));
    let (mut late, accepted) = connect(&admission).await;
    handle.accept(accepted, None);
    hub.drain(clock.now(), Duration::ZERO);
    drive_with(hub, clock, reactor).await;
    for client in [&mut late, &mut waiting] {
        client.write_all(LIVEZ).expect("connected");
        let mut answer = Vec::new();
        while !is_answered(client, &mut answer) {
            yield_now().await;
        }
    }
}

/// SCENARIO: a client asks for a stream, in cleartext, with a token that is forged, or for one of an org that is full.
/// BUG: the reactor verified the token and left the request to hyper, whose service verified it again.
/// FIX: what the reactor found goes to hyper with the connection, for its first request.
#[cfg(feature = "jwt")]
#[tokio::test]
async fn a_token_is_verified_once_if_no_stream_opens() {
    use jsonwebtoken::{EncodingKey, Header, encode};
    const SECRETS: [&str; 2] =
        ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let key = crate::config::TokenKey::from_secret(SECRETS[0]).expect("32 bytes");
    let auth = crate::config::AuthConfig { keys: vec![key], ..Default::default() };
    let hub = HubConfig { org_streams_max: Some(1), ..uncoalesced(8) };
    let mut rig = Rig::with(Config { auth, hub, ..Config::default() });
    let _seat = rig.open();
    let claims = serde_json::json!({"org": "acme", "scope": "subscribe", "exp": 1_u64 << 40});
    let [good, forged] = SECRETS.map(|secret| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::default(), &claims, &key).expect("a token")
    });
    let another = format!("{}A", &forged[..forged.len() - 1]);
    let mut verified = 0;
    for (tokens, count, status) in [
        (["x", &good], 1, "HTTP/1.1 503 "),
        ([&forged, "x"], 1, "HTTP/1.1 401 "),
        ([&forged, &good], 2, "HTTP/1.1 503 "),
        ([&good, &forged], 1, "HTTP/1.1 503 "),
        ([&forged, &forged], 1, "HTTP/1.1 401 "),
        ([&forged, &another], 2, "HTTP/1.1 401 "),
    ] {
        let mut client = rig.connect().await;
        // The second request of a connection is hyper's alone.
        for _ in 0..2 {
            let [query, cookie] = tokens;
            write!(
                client,
                "GET /api/acme/events?token={query} HTTP/1.1\r\nhost: test\r\ncookie: nudged_token={cookie}\r\n\r\n"
            )
            .expect("connected");
            let mut answer = Vec::new();
            rig.run_until(|| {
                let mut bytes = [0; 4096];
                let length = client.read(&mut bytes).unwrap_or_default();
                answer.extend_from_slice(&bytes[..length]);
                answer.ends_with(b"}")
            })
            .await;
            assert!(answer.starts_with(status.as_bytes()), "{}", answer.escape_ascii());
            verified += count;
            assert_eq!(crate::http::VERIFICATIONS.get(), verified, "{status}");
        }
    }
}
