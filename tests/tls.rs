//! TLS: certificates that are replaced while streams go on, versions, resumption, and handshakes that
//! never end.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use support::tls::Certificate;
use support::{BOUND, Client, Server, eventually};

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

/// A client's end of a connection behind TLS.
type Session = StreamOwned<ClientConnection, TcpStream>;

// ===== impl Folder =====

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tls-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// A new certificate, with a name that nothing else has.
    fn certificate(&self, name: &str) -> Certificate {
        Certificate::make(&self.0.join(name), name)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A client that believes this certificate only.
fn client(trusted: &Certificate, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(&trusted.certificate).expect("PEM");
    roots.add(trusted).expect("a certificate");
    ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A server with a door beside for what the test asks of it, which is its first address.
fn start_as(command: Command, flags: &[&str]) -> Server {
    let beside = ["--plain-listen", "127.0.0.1:0", "--coalesce", "0"];
    let mut server = Server::start_as(command, &[flags, &beside].concat());
    server.addresses.reverse();
    server
}

fn start(more: &[&str]) -> Server {
    start_as(Server::command(), &[&Certificate::of_tests().flags()[..], more].concat())
}

/// The address that speaks TLS.
fn secure(server: &Server) -> SocketAddr {
    server.addresses[1]
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(secure(server)).expect("it listens");
    socket.set_read_timeout(Some(BOUND)).expect("a socket");
    socket.set_write_timeout(Some(BOUND)).expect("a socket");
    socket
}

/// Does the handshake, and says why it fails.
fn handshake(server: &Server, config: &Arc<ClientConfig>) -> std::io::Result<Session> {
    let name = ServerName::from(secure(server).ip());
    let session = ClientConnection::new(config.clone(), name).expect("a name");
    let mut session = StreamOwned::new(session, connect(server));
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock)?;
    }
    Ok(session)
}

/// Whether new handshakes are done with this certificate.
fn presents(server: &Server, certificate: &Certificate) -> bool {
    handshake(server, &client(certificate, ALL_VERSIONS).into()).is_ok()
}

/// Asks on a session, and reads to its end.
fn get_livez(session: &mut Session) -> String {
    session
        .write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    session.read_to_string(&mut answer).expect("an answer and an orderly end");
    answer
}

/// Puts a certificate in the place of another, each file at once.
fn replace(certificate: &str, key: &str, by: &Certificate) {
    for (file, by) in [(key, &by.key), (certificate, &by.certificate)] {
        let beside = format!("{file}.new");
        std::fs::copy(by, &beside).expect("a copy");
        std::fs::rename(&beside, file).expect("a rename");
    }
}

/// A server with a certificate that can be replaced, its log, and a stream on it.
fn server(files: [&str; 2]) -> (Server, std::process::ChildStderr) {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let flags = ["--tls-cert", files[0], "--tls-key", files[1], "--log", "info"];
    let mut server = start_as(command, &flags);
    let log = server.take_stderr();
    (server, log)
}

/// Reads the log up to a line with these words.
fn await_line(log: &mut std::process::ChildStderr, words: &str) -> String {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        log.read_exact(&mut byte).expect("a log");
        if byte == *b"\n" {
            if line.contains(words) {
                return line;
            }
            line.clear();
        } else {
            line.push(byte[0].into());
        }
    }
}

/// A stream through TLS, read as it comes.
struct Listener(Session);

impl Listener {
    fn open(server: &Server, trusted: &Certificate) -> Self {
        let mut session =
            handshake(server, &client(trusted, ALL_VERSIONS).into()).expect("a handshake");
        session.write_all(b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n").expect("sent");
        let mut listener = Self(session);
        listener.hear("event: connected");
        listener
    }

    /// Reads until it has heard these words.
    fn hear(&mut self, words: &str) {
        let mut heard = String::new();
        let mut bytes = [0; 1024];
        while !heard.contains(words) {
            let n = self.0.read(&mut bytes).expect("it goes on");
            assert!(n > 0, "it ended after {heard:?}");
            heard.push_str(std::str::from_utf8(&bytes[..n]).expect("UTF-8"));
        }
    }
}

#[test]
fn a_new_certificate_is_for_new_handshakes_and_open_streams_go_on() {
    let folder = Folder::new();
    let [first, second, third] = ["first", "second", "third"].map(|name| folder.certificate(name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    replace(&files[0], &files[1], &first);
    let (server, mut log) = server([&files[0], &files[1]]);
    let mut stream = Listener::open(&server, &first);

    replace(&files[0], &files[1], &second);
    server.signal("HUP");
    await_line(&mut log, "the certificate was read again");
    assert!(presents(&server, &second) && !presents(&server, &first));
    server.publish("acme", &["after-hup"]);
    stream.hear("after-hup");

    // Nobody says that it has changed.
    replace(&files[0], &files[1], &third);
    eventually("the third is presented", || presents(&server, &third));
    server.publish("acme", &["after-change"]);
    stream.hear("after-change");
}

/// Kubernetes has each file be a link into a folder that is a link itself, which it replaces.
#[test]
fn a_swapped_link_is_a_change() {
    let folder = Folder::new();
    let [first, second] = ["first", "second"].map(|name| folder.certificate(name));
    let data = folder.0.join("..data");
    symlink("first", &data).expect("a link");
    let files = ["certificate.pem", "key.pem"].map(|name| {
        symlink(format!("..data/{name}"), folder.0.join(name)).expect("a link");
        folder.file(name)
    });
    let (server, _log) = server([&files[0], &files[1]]);
    assert!(presents(&server, &first));
    let beside = folder.0.join("..data_tmp");
    symlink("second", &beside).expect("a link");
    std::fs::rename(beside, data).expect("a rename");
    eventually("the second is presented", || presents(&server, &second));
}

type Spoil = Box<dyn Fn()>;

/// What is wrong with a pair, which is put into the place of a good one.
fn bad_pairs(files: &[String; 2], other: &Certificate) -> [(&'static str, Spoil); 5] {
    let [chain, private] = files.clone();
    let (c, p, other) = (chain.clone(), private.clone(), other.clone());
    let write = |file: &str, text: &'static str| {
        let file = file.to_owned();
        move || std::fs::write(&file, text).expect("a file")
    };
    let remove = |file: String| move || std::fs::remove_file(&file).expect("a file");
    [
        (
            "cannot be used together",
            Box::new(move || _ = std::fs::copy(&other.key, &p).expect("a copy")),
        ),
        ("no PEM section CERTIFICATE", Box::new(write(&c, "garbage\n"))),
        ("no PEM section of a private key", Box::new(write(&private, "garbage\n"))),
        ("chain.pem: ", Box::new(remove(chain))),
        ("private.pem: ", Box::new(remove(private))),
    ]
}

#[test]
fn a_bad_certificate_keeps_the_one_in_use_and_is_named_in_the_log() {
    let folder = Folder::new();
    let [first, second] = ["first", "second"].map(|name| folder.certificate(name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    replace(&files[0], &files[1], &first);
    let (server, mut log) = server([&files[0], &files[1]]);
    let mut stream = Listener::open(&server, &first);
    for (what, spoil) in bad_pairs(&files, &second) {
        spoil();
        server.signal("HUP");
        let line = await_line(&mut log, "the certificate in use stays");
        assert!(line.contains("ERROR") && line.contains(what), "{line}");
        assert!(presents(&server, &first), "{what}");
        server.publish("acme", &["still"]);
        stream.hear("still");
        replace(&files[0], &files[1], &first);
        server.signal("HUP");
        await_line(&mut log, "the certificate was read again");
    }
    replace(&files[0], &files[1], &second);
    eventually("a good one is used", || presents(&server, &second));
}

#[test]
fn a_bad_certificate_at_the_start_is_a_wrong_setting() {
    let folder = Folder::new();
    let [first, second] = ["first", "second"].map(|name| folder.certificate(name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    let flags = ["--listen", "127.0.0.1:0", "--tls-cert", &files[0], "--tls-key", &files[1]];
    for (what, spoil) in bad_pairs(&files, &second) {
        replace(&files[0], &files[1], &first);
        spoil();
        let (code, said) = Server::refuses_to_start(&flags);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("cannot use the certificate") && said.contains(what), "{said}");
    }
    for flags in [&flags[..4], &[flags[0], flags[1], flags[4], flags[5]]] {
        assert_eq!(Server::refuses_to_start(flags).0, Some(2), "one without the other");
    }
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_resumed_and_1_1_is_not() {
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
fn the_protocol_is_agreed_on_in_the_handshake() {
    let server = start(&[]);
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
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

/// It would see no more than that its connection ends, and not know why.
#[test]
fn a_client_without_tls_is_told_what_is_wrong() {
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

/// The door beside speaks no TLS, and leads to the same hub.
#[test]
fn the_plain_door_is_beside() {
    let server = start(&[]);
    let mut secure = Listener::open(&server, &Certificate::of_tests());
    let mut plain = server.stream("acme");
    plain.connected();
    server.publish("acme", &["posts"]);
    secure.hear("posts");
    assert!(plain.next().contains("posts"));
}

/// What a handshake that never ends may cost, and for how long.
#[test]
fn a_handshake_that_never_ends_is_given_up_and_costs_little() {
    const SLOW: usize = 3_000;
    const SILENT: usize = 12 * 1024;
    const HALFWAY: usize = 24 * 1024;
    rlimit::increase_nofile_limit(u64::MAX).expect("more files");
    let mut hello = Vec::new();
    let config = Arc::new(client(&Certificate::of_tests(), ALL_VERSIONS));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    session.write_tls(&mut hello).expect("a hello");
    for (begins, bound) in
        [(&b""[..], SILENT), (&hello[..hello.len() / 2], HALFWAY), (&hello, HALFWAY)]
    {
        let server = start(&["--head-timeout", "8s"]);
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
        eventually("all of them are in", || connections() == SLOW as u64 + 1);
        if begins.len() == hello.len() {
            // The last are answered, and wait for the rest.
            (&slow[SLOW - 1]).read_exact(&mut [0]).expect("its hello");
        }
        let each = (server.memory() - before) as usize / SLOW;
        println!("{each} bytes each after {} bytes", begins.len());
        assert!(each < bound, "{each} bytes each after {} bytes", begins.len());
        server.publish("acme", &["posts"]);
        listener.hear("posts");
        eventually("they are given up", || connections() == 1);
        drop(slow);
    }
}

/// How a client lets go of its connection.
type Ends = fn(Session);

/// A client goes with a word of TLS, without one, or with a reset, and each is told from the others.
#[test]
fn how_a_client_goes_is_counted() {
    let server = start(&[]);
    let ends: [(&str, Ends); 3] = [
        ("client", |mut session| {
            session.conn.send_close_notify();
            session.flush().expect("sent");
        }),
        ("client", drop),
        ("reset", |session| {
            socket2::SockRef::from(&session.sock)
                .set_linger(Some(std::time::Duration::ZERO))
                .expect("a socket");
        }),
    ];
    let closed = |reason: &str| server.closed().get(reason).copied().unwrap_or_default();
    let mut total = 0;
    for (reason, end) in ends {
        let before = closed(reason);
        (0..5).for_each(|_| end(Listener::open(&server, &Certificate::of_tests()).0));
        total += 5;
        eventually("five more ended so", || closed(reason) == before + 5);
    }
    assert_eq!(server.closed().values().sum::<u64>(), total);
}
