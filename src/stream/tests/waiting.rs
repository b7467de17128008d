//! Connections that have asked for nothing yet.

use std::net::Ipv4Addr;

use super::*;
use crate::admission::Admission;
use crate::config::Config;
use crate::stream::drive_with;

impl Yard {
    /// Has a connection wait in the reactor. Returns the client's end of it.
    async fn call(&mut self, doors: &Admission) -> TcpStream {
        let (client, caller) = connect(doors).await;
        self.entrance.call(caller);
        self.run().await;
        client
    }
}

/// What its client has sent, as text of this length.
fn discarded(caller: Accepted, length: usize) -> String {
    let mut socket = TcpStream::from(caller.socket);
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).expect("it is on its way");
    String::from_utf8(bytes).expect("ASCII")
}

/// A connection that was let in.
async fn connect(doors: &Admission) -> (TcpStream, Accepted) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    client.set_nonblocking(true).expect("a socket");
    let (socket, peer) = listener.accept().expect("accepted");
    socket.set_nonblocking(true).expect("a socket");
    let socket = mio::net::TcpStream::from_std(socket);
    let admitted = Arc::new(doors.admit(peer.ip()).await.expect("there is room"));
    (client, Accepted { socket, admitted })
}

fn doors() -> Admission {
    Admission::new(&Config::default(), 1_024)
}

/// What it asks for decides: a stream is parked in its place, anything else is served elsewhere, with the
/// bytes that were read, and the reactor hears of it no more.
#[tokio::test]
async fn a_caller_becomes_a_stream_or_is_passed_on() {
    let (mut yard, doors) = (Yard::new(uncoalesced(8)), doors());
    let (hub, desk) = (yard.hub.clone(), yard.desk.clone());
    let mut listener = yard.call(&doors).await;
    let mut publisher = yard.call(&doors).await;
    assert_eq!(hub.seats(), 0, "nobody has asked for anything");

    listener.write_all(b"GET").expect("connected");
    yard.run_until(|| hub.seats() == 1).await;
    let mut client = Client::new(listener);
    yard.run_until(|| client.read(4096) > 0).await;

    publisher.write_all(b"POST").expect("connected");
    yard.run_until(|| !desk.passed_on.lock().is_empty()).await;
    publisher.write_all(b" /").expect("connected");
    yard.publish("after");
    yard.run_until(|| client.read(4096) > 0).await;
    assert_eq!(doors.connections(), 2);
    let (caller, first) = yard.desk.passed_on.lock().pop().expect("it was passed on");
    assert!(yard.desk.passed_on.lock().is_empty(), "once");
    assert_eq!((&first[..], &discarded(caller, 2)[..]), (&b"POST"[..], " /"));
}

/// Who leaves before asking is forgotten, by end of file and by reset.
#[tokio::test]
async fn a_caller_that_goes_leaves_nothing() {
    let (mut yard, doors) = (Yard::new(uncoalesced(8)), doors());
    let (first, second) = (yard.call(&doors).await, yard.call(&doors).await);
    drop(first);
    SockRef::from(&second).set_linger(Some(Duration::ZERO)).expect("connected");
    drop(second);
    yard.run_until(|| doors.connections() == 0).await;
    assert!(yard.desk.passed_on.lock().is_empty());
}

/// A request and the end of the connection that come together are both discarded.
#[tokio::test]
async fn a_caller_that_asks_and_goes_frees_its_seat() {
    let (mut yard, doors) = (Yard::new(uncoalesced(8)), doors());
    let mut client = yard.call(&doors).await;
    client.write_all(b"GET").expect("connected");
    client.shutdown(std::net::Shutdown::Write).expect("connected");
    yard.run_until(|| doors.connections() == 0).await;
    assert_eq!((yard.closed(CloseReason::Client), yard.hub.seats()), (1, 0));
}

/// Who says nothing is put out in time; who became a stream is not.
#[tokio::test]
async fn a_caller_that_says_nothing_is_put_out() {
    let (hub, doors) = (Hub::new(uncoalesced(8)), doors());
    let entrance = Entrance::new(hub.clone());
    let reactor = Reactor::new(entrance.clone(), Box::new(Desk::new(&hub)), PATIENCE);
    let mut reactor = reactor.expect("a poller");
    let (silent, caller) = connect(&doors).await;
    entrance.call(caller);
    let (mut listener, caller) = connect(&doors).await;
    entrance.call(caller);
    reactor.turn(Time(5_000));
    listener.write_all(b"GET").expect("connected");
    while hub.seats() == 0 {
        yield_now().await;
        reactor.turn(Time(6_000));
    }
    reactor.tick(Time(14_999));
    assert_eq!(doors.connections(), 2, "it has ten seconds");
    reactor.tick(Time(15_000));
    silent.set_nonblocking(false).expect("a socket");
    silent.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    assert_eq!((&silent).read(&mut [0; 1]).expect("the end of the stream"), 0);
    reactor.tick(Time(60_000));
    assert_eq!((hub.seats(), doors.connections()), (1, 1));
}

/// A reactor that ends passes on who is still there: a request may be on its way.
#[tokio::test]
async fn callers_are_passed_on_at_the_end() {
    let (hub, doors) = (Hub::new(uncoalesced(8)), doors());
    let (entrance, desk) = (Entrance::new(hub.clone()), Desk::new(&hub));
    let reactor = Reactor::new(entrance.clone(), Box::new(desk.clone()), PATIENCE);
    let mut reactor = reactor.expect("a poller");
    let (mut waiting, caller) = connect(&doors).await;
    entrance.call(caller);
    reactor.turn(Time(0));
    let (mut late, caller) = connect(&doors).await;
    entrance.call(caller);
    let clock = Clock::start();
    hub.drain(clock.now(), Duration::ZERO);
    drive_with(hub, clock, Some(reactor)).await;
    for client in [&mut late, &mut waiting] {
        client.write_all(b"GET").expect("connected");
    }
    let passed_on: Vec<_> = desk.passed_on.lock().drain(..).collect();
    assert_eq!(passed_on.len(), 2);
    for (caller, first) in passed_on {
        assert_eq!((first.len(), &discarded(caller, 3)[..]), (0, "GET"));
    }
}
