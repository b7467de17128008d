//! What a handshake negotiates, and the cost of one that never ends.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConnection, HandshakeKind, StreamOwned, version};

use super::{Listener, client, connect, get_livez, handshake, secure, start};
use crate::support::certificate::Certificate;
use crate::support::exclusive::many_connections;
use crate::support::programs::{OPENSSL, requires};
use crate::support::{Client, eventually};

#[test]
fn tls_1_2_and_1_3_are_accepted_and_resumed_and_1_1_is_refused() {
    requires!(OPENSSL);
    let server = start(&[]);
    for version in [&version::TLS12, &version::TLS13] {
        let config = Arc::new(client(&Certificate::of_tests(), &[version]));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut session = handshake(&server, &config).expect("a handshake");
            assert_eq!(session.conn.protocol_version(), Some(version.version));
            assert!(get_livez(&mut session).ends_with("live\n"));
            assert_eq!(session.conn.handshake_kind(), Some(kind), "{version:?}");
        }
    }
    let address = secure(&server).to_string();
    let openssl = |flags: &[&str]| {
        let args = [&["s_client", "-connect", &address, "-cipher", "ALL:@SECLEVEL=0"], flags];
        let output = Command::new("openssl").args(args.concat()).stdin(Stdio::null()).output();
        output.expect("openssl is installed").status.success()
    };
    assert!(openssl(&["-tls1_2"]) && !openssl(&["-tls1_1"]));
}

#[test]
fn the_protocol_is_negotiated_in_the_handshake() {
    requires!(OPENSSL);
    let server = start(&[]);
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        // `curl --http1.0` offers nothing else.
        (&["http/1.0"], Some("http/1.0")),
        (&["http/1.0", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut config = client(&Certificate::of_tests(), ALL_VERSIONS);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut session = handshake(&server, &config.into()).expect("a handshake");
        assert_eq!(session.conn.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        if chosen != Some("h2") {
            assert!(get_livez(&mut session).ends_with("live\n"));
        }
    }
    let mut config = client(&Certificate::of_tests(), ALL_VERSIONS);
    config.alpn_protocols = vec![b"spdy/1".to_vec()];
    handshake(&server, &config.into()).expect_err("nothing in common (RFC 7301, 3.2)");
}

/// Otherwise the client would see a closed connection without a reason.
#[test]
fn plain_http_on_a_tls_port_is_refused_with_the_reason() {
    requires!(OPENSSL);
    let server = start(&[]);
    for request in
        ["GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n", "P", "PUT / HTTP/1.0\r\n\r\n"]
    {
        let mut client = Client::on(connect(&server));
        client.send(request);
        if request == "P" {
            client.send("OST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
        }
        let answer = client.read_answer();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.problem(), "this address speaks TLS; ask for https");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        client.read_to_end();
    }
    let mut session =
        handshake(&server, &client(&Certificate::of_tests(), ALL_VERSIONS).into()).expect("fine");
    assert!(get_livez(&mut session).ends_with("live\n"));
}

#[test]
fn a_handshake_that_never_ends_times_out_and_costs_little() {
    requires!(OPENSSL);
    const SLOW: usize = 1_000;
    const SILENT: usize = 12 * 1024;
    const HALFWAY: usize = 24 * 1024;
    let _alone = many_connections();
    rlimit::increase_nofile_limit(u64::MAX).expect("more files");
    let mut hello = Vec::new();
    let config = Arc::new(client(&Certificate::of_tests(), ALL_VERSIONS));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    session.write_tls(&mut hello).expect("a hello");
    for (begins, bound) in
        [(&b""[..], SILENT), (&hello[..hello.len() / 2], HALFWAY), (&hello, HALFWAY)]
    {
        let server = start(&["--head-timeout", "10s"]);
        let connections = || server.metric("nudged_connections") - 1;
        let mut listener = Listener::open(&server, &Certificate::of_tests());
        let before = server.memory();
        let slow: Vec<_> = (0..SLOW)
            .map(|_| {
                let mut socket = connect(&server);
                socket.write_all(begins).expect("it reads");
                socket
            })
            .collect();
        eventually("all of them are accepted", || connections() == SLOW as u64 + 1);
        if begins.len() == hello.len() {
            // The server has replied to the last one, and waits for the rest of its handshake.
            (&slow[SLOW - 1]).read_exact(&mut [0]).expect("the server's hello");
        }
        let each = (server.memory() - before) as usize / SLOW;
        println!("{each} bytes each after {} bytes", begins.len());
        assert!(each < bound, "{each} bytes each after {} bytes", begins.len());
        server.publish("acme", &["posts"]);
        listener.receive("posts");
        eventually("they have timed out", || connections() == 1);
        drop(slow);
    }
}

/// SCENARIO: the process is stopped while clients do their handshakes.
/// BUG: when it went on their time was over, and they were closed, though what they had sent was there.
/// FIX: it is read first, and the limit counts from the end of the pause.
#[test]
fn a_handshake_during_a_pause_succeeds() {
    requires!(OPENSSL);
    const LIMIT: Duration = Duration::from_secs(6);
    let server = start(&["--head-timeout", "6s", "--workers", "1"]);
    let config = Arc::new(client(&Certificate::of_tests(), ALL_VERSIONS));
    let begin = |sent: usize| {
        let name = ServerName::from(secure(&server).ip());
        let mut session = ClientConnection::new(config.clone(), name).expect("a name");
        let (mut hello, mut socket) = (Vec::new(), connect(&server));
        session.write_tls(&mut hello).expect("memory");
        socket.write_all(&hello[..sent]).expect("it listens");
        (session, socket, hello.split_off(sent))
    };
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..20).map(|n| begin(n % 2 * 30)).collect();
    // They are accepted in order.
    get_livez(&mut handshake(&server, &config).expect("a handshake"));
    assert!(begun.elapsed() < LIMIT, "the machine is too slow for this test");
    server.pause(LIMIT + Duration::from_secs(2), || {
        for (_, socket, rest) in &mut clients {
            socket.write_all(rest).expect("it listens");
        }
    });
    let completed = clients.into_iter().filter_map(|(mut session, mut socket, _)| {
        while session.is_handshaking() {
            session.complete_io(&mut socket).ok()?;
        }
        let (mut session, mut answer) = (StreamOwned::new(session, socket), String::new());
        let request = b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        session.write_all(request).ok()?;
        session.read_to_string(&mut answer).ok().filter(|_| answer.ends_with("live\n"))
    });
    assert_eq!(completed.count(), 20);
}
