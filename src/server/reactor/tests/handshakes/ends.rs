//! Handshakes that do not end in a request: refusals, bounds, and a worker that stops.

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::*;
use crate::config::TLS_OVERHEAD_MAX;
use crate::server::reactor::READ_BYTES;
use crate::server::reactor::handshakes::HANDSHAKES_PER_TURN;
use crate::server::tls::test_sessions::{client, configs};
use crate::stream::Sockets as _;
use crate::time::Time;

/// Panics when it is asked for a certificate.
#[derive(Debug)]
struct Panics;

// ===== impl Panics =====

impl ResolvesServerCert for Panics {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        panic!("on purpose")
    }
}

/// With FIN or RST.
#[tokio::test]
async fn a_connection_that_ends_in_its_handshake_is_released() {
    let mut rig = TlsRig::new();
    for resets in [false, true] {
        let mut clients =
            [rig.connect().await, rig.connect().await, rig.hello().await, rig.handshake().await];
        let hello = clients[1].records();
        clients[1].write(&hello[..hello.len() / 2]);
        rig.rig.run().await;
        assert_eq!(rig.connections(), 4);
        for client in clients {
            if resets {
                SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
            }
        }
        rig.until_released().await;
    }
}

/// The alert says why (RFC 8446, 6.2).
#[tokio::test]
async fn what_is_no_tls_is_refused_with_an_alert() {
    for (bytes, alert) in [
        (&[22, 3, 1, 0xff, 0xff][..], 50),
        (&[99, 3, 1, 0, 1, 0], 50),
        (&[23, 3, 1, 0, 1, 0], 10),
        (&[22, 3, 1, 0, 4, 2, 0, 0, 0], 50),
    ] {
        let mut rig = TlsRig::new();
        let mut client = rig.connect().await;
        client.write(bytes);
        rig.until_released().await;
        let mut answer = Vec::new();
        client.socket.set_nonblocking(false).expect("a socket");
        client.socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        client.socket.read_to_end(&mut answer).expect("the end");
        let (header, alerts) = answer.split_at_checked(5).expect("a record");
        assert_eq!((header[0], alerts), (21, &[2, alert][..]), "{bytes:?}");
    }
}

/// SCENARIO: thousands of clients begin with a hello that fills the buffer of a read.
/// BUG: each of them got a task, and all of these handshakes ran before the next deliveries.
/// FIX: a turn goes on with so many of them, as with any others, and reads what is left in a later one.
#[tokio::test]
async fn a_hello_that_fills_a_read_stays_in_the_reactor() {
    let mut rig = TlsRig::new();
    let long = (0..32).map(|number| vec![b'a' + number; 250]);
    let protocols = long.chain([b"http/1.1".to_vec()]);
    Arc::make_mut(&mut rig.client).alpn_protocols = protocols.collect();
    let mut client = rig.connect().await;
    let hello = client.records();
    assert!(hello.len() > READ_BYTES, "{} bytes", hello.len());
    client.write(&hello);
    rig.rig
        .run_until(|| {
            assert_eq!(tasks(), 0);
            client.receive();
            client.session.wants_write()
        })
        .await;
    client.send(STREAM);
    rig.assert_streams(&mut client).await;
}

/// SCENARIO: a client sends its request, and with it a record that was tampered with.
/// BUG: the connection was closed without the alert that rustls had made.
/// FIX: it is sent, if the socket takes it.
#[tokio::test]
async fn a_bad_record_after_the_request_is_refused_with_an_alert() {
    for sort in SORTS {
        let mut rig = TlsRig::of(sort);
        let mut client = rig.handshake().await;
        client.session.writer().write_all(STREAM).expect("a session");
        let request = client.records();
        client.write(&[&request[..], &[23, 3, 3, 0, 30], &[0; 30]].concat());
        let mut alert = None;
        rig.rig
            .run_until(|| {
                _ = client.session.read_tls(&mut client.socket);
                alert = client.session.process_new_packets().err();
                alert.is_some()
            })
            .await;
        let refused = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(alert, Some(refused), "{sort:?}");
        rig.until_released().await;
    }
}

/// A hello of 64 KiB in records of one byte.
#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_after_so_many_bytes() {
    let mut rig = TlsRig::new();
    let mut client = rig.connect().await;
    client.write(&[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff]);
    let mut sent = 0;
    while rig.connections() > 0 {
        // The connection may end at any time.
        sent += client.socket.write(&[22, 3, 1, 0, 1, 0].repeat(100)).unwrap_or_default();
        assert!(sent < 4 * TLS_OVERHEAD_MAX, "{sent} bytes");
        std::thread::sleep(Duration::from_millis(1));
        rig.rig.run().await;
    }
    assert!(sent > TLS_OVERHEAD_MAX / 2, "{sent} bytes");
    assert_eq!(tasks(), 0);
}

/// It has as long as any first request, from when it was accepted.
#[tokio::test]
async fn a_handshake_ends_at_the_head_timeout() {
    let hub = Hub::new(uncoalesced(8));
    let (context, admission, _draining) = context(&hub, Clock::start());
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (server, config) = configs();
    let mut sockets = Vec::new();
    for sent in [0, 1, 100, usize::MAX] {
        let (mut socket, accepted) = connect(&admission).await;
        handle.accept(accepted, Some(Handshake::Silent(server.clone())));
        reactor.turn(Time(5_000));
        let hello = records(&mut client(config.clone()));
        socket.write_all(&hello[..sent.min(hello.len())]).expect("connected");
        sockets.push(socket);
    }
    // The last one is served: its hello is whole.
    poll_until(|| {
        reactor.turn(Time(14_000));
        sockets[3].peek(&mut [0; 1]).is_ok()
    })
    .await;
    reactor.tick(Time(14_999));
    assert_eq!(admission.connections(Entrance::Public), 4, "they have ten seconds");
    reactor.tick(Time(15_000));
    assert_eq!(admission.connections(Entrance::Public), 0);
    assert_eq!(tasks(), 0);
}

/// Others have their turn in between: deliveries too.
#[tokio::test]
async fn a_turn_has_so_many_handshakes() {
    const CLIENTS: usize = 5 * HANDSHAKES_PER_TURN;
    let mut rig = TlsRig::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(rig.connect().await);
    }
    let mut plain = rig.rig.connect().await;
    plain.write_all(STREAM).expect("connected");
    let hub = rig.rig.hub.clone();
    rig.rig.run_until(|| hub.seats() == 1).await;
    let mut plain = Client::new(plain);
    for client in &mut clients {
        client.send(b"");
    }
    // All of them have arrived.
    std::thread::sleep(Duration::from_millis(20));
    yield_now().await;
    let (mut served, mut turns) = (0, 0);
    rig.rig.publish("meanwhile");
    loop {
        let more = rig.rig.driver.turn();
        let answered = |client: &&mut TlsClient| client.socket.peek(&mut [0; 1]).is_ok();
        let now = clients.iter_mut().filter(answered).count();
        assert!(now - served <= HANDSHAKES_PER_TURN, "{served} and {now} in turn {turns}");
        served = now;
        turns += 1;
        if turns == 2 {
            plain.read(4096);
            assert_eq!(plain.keys(), ["meanwhile"], "after {served} handshakes");
        }
        if !more {
            yield_now().await;
        }
        if served == CLIENTS {
            break;
        }
        assert!(turns < 20_000);
    }
}

#[tokio::test]
async fn a_panic_in_a_handshake_ends_its_connection_only() {
    let mut rig = TlsRig::new();
    let sound = rig.server.clone();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let panics = ServerConfig::builder_with_provider(provider.into());
    let panics = panics.with_safe_default_protocol_versions().expect("versions");
    rig.server = panics.with_no_client_auth().with_cert_resolver(Arc::new(Panics)).into();
    let mut client = rig.connect().await;
    client.send(b"");
    rig.until_released().await;
    rig.server = sound;
    let mut client = rig.handshake().await;
    client.send(STREAM);
    rig.assert_streams(&mut client).await;
}

/// What has begun goes on in a task, wherever it is.
#[tokio::test]
async fn a_reactor_that_ends_hands_its_handshakes_to_tasks() {
    let hub = Hub::new(uncoalesced(8));
    let (context, admission, _draining) = context(&hub, Clock::start());
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (server, config) = configs();
    let mut clients = Vec::new();
    for sent in [0, 100, usize::MAX] {
        let (socket, accepted) = connect(&admission).await;
        handle.accept(accepted, Some(Handshake::Silent(server.clone())));
        let session = client(config.clone());
        let mut client = TlsClient { socket, session, received: Vec::new() };
        let mut hello = client.records();
        let rest = hello.split_off(sent.min(hello.len()));
        client.write(&hello);
        clients.push((client, rest));
    }
    let last = clients[2].0.socket.try_clone().expect("a descriptor");
    poll_until(|| {
        reactor.turn(Time(0));
        last.peek(&mut [0; 1]).is_ok()
    })
    .await;
    assert_eq!(tasks(), 0);
    reactor.drain();
    assert_eq!(tasks(), 3);
    for (mut client, rest) in clients {
        client.write(&rest);
        poll_until(|| {
            client.send(b"");
            client.receive();
            !client.session.is_handshaking()
        })
        .await;
        client.send(LIVEZ);
        poll_until(|| client.has_received("live\n")).await;
    }
}

/// Nothing was read of the first two: one has not sent its hello, the other has while the workers stood still. The
/// session of the third is this process's, whose task serves it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_successor_gets_the_connections_of_which_nothing_was_read() {
    use crate::server::upgrade::message::Message;

    let mut rig = TlsRig::new();
    let (_silent, mut sends, mut begun) =
        (rig.connect().await, rig.connect().await, rig.hello().await);
    sends.send(b"");
    let next = Rig::new(uncoalesced(8));
    let (new, _) = rig.rig.give(&next).await;
    for _ in 0..2 {
        let mut message = None;
        rig.rig
            .run_until(|| {
                message = new.new.receive(tokio::time::Instant::now()).ok();
                message.is_some()
            })
            .await;
        let Some((Message::Connection { secure: true, first, .. }, _)) = message else {
            panic!("{message:?}");
        };
        assert!(first.is_empty());
    }
    assert_eq!((rig.connections(), tasks()), (1, 1));
    begun.send(LIVEZ);
    rig.rig.run_until(|| begun.has_received("live\n")).await;
}
