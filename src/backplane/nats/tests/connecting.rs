//! Servers that are there, and those that are not, or not for us.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use super::super::Nats;
use super::support::certificate::Certificate;
use super::support::port::ReservedPort;
use super::support::programs::{NATS_SERVER, OPENSSL, are_available};
use super::support::temp_dir::TempDir;
use super::support::{NatsServer, append, config, open, open_again, refusal, requires_nats};
use crate::backplane::tls::authorities;
use crate::config::BackplaneConfig;

#[tokio::test]
async fn a_login_is_a_password_or_a_token() {
    requires_nats!();
    for server in
        [NatsServer::start_with_password("me", "p@ss"), NatsServer::start_with_token("secret")]
    {
        let login = server.login.as_ref().expect("one").replace('@', "%40");
        let with = |login: &str| config(&format!("nats://{login}{}", server.address()));
        let opened = open(&with(&format!("{login}@"))).await.expect("the right login");
        assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
        for wrong in ["me:wrong@", "wrong@"] {
            let why = refusal(&with(wrong)).await;
            assert!(why.contains("it refuses the user, the password or the token"), "{why}");
            assert!(!why.contains("wrong"), "{why}");
        }
        let why = refusal(&with("")).await;
        assert!(why.contains("it requires a user and a password, or a token"), "{why}");
    }
}

#[tokio::test]
async fn tls_trusts_the_authorities_that_it_is_given() {
    if !are_available(&[&NATS_SERVER, &OPENSSL]) {
        return;
    }
    let dir = TempDir::new();
    let authority = |name: &str| {
        let extensions = ["basicConstraints=critical,CA:TRUE"];
        Certificate::make_with(&extensions, &dir.path().join(name), name)
    };
    let [trusted, other] = ["trusted", "other"].map(authority);
    let certificate = trusted.sign(&dir.path().join("server"), "server");
    let server = NatsServer::start_with_tls(&certificate.certificate, &certificate.key);
    let with = |url: String, ca: Option<&str>| BackplaneConfig {
        ca: ca.map(PathBuf::from),
        ..config(&url)
    };
    let opened = open(&with(server.url(), Some(&trusted.certificate))).await.expect("trusted");
    assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1);
    // The broker may insist on it.
    let cleartext = format!("nats://{}", server.address());
    open(&with(cleartext, Some(&trusted.certificate))).await.expect("trusted");
    for ca in [Some(other.certificate.as_str()), None] {
        let why = refusal(&with(server.url(), ca)).await;
        assert!(
            why.contains("--backplane-ca names the file") || why.contains("root cert"),
            "{why}"
        );
    }
    for missing in ["/nonexistent", &certificate.key] {
        let why = refusal(&with(server.url(), Some(missing))).await;
        assert!(why.contains(&format!("the authorities in {missing}: ")), "{why}");
    }
    let server = NatsServer::start();
    let why =
        refusal(&with(format!("tls://{}", server.address()), Some(&trusted.certificate))).await;
    assert!(why.contains("it does not speak TLS"), "{why}");
}

/// SCENARIO: the file of authorities has more than 1 MiB. BUG: the server read as much of it, and called the rest of the
/// last certificate no valid PEM. FIX: it says how large a file may be.
#[tokio::test]
async fn a_file_of_authorities_has_a_bound() {
    let dir = TempDir::new();
    let file = dir.path().join("ca.pem");
    for (len, expected) in [(1 << 20, "no certificate in PEM"), ((1 << 20) + 1, "more than 1 MiB")]
    {
        std::fs::write(&file, vec![b'#'; len]).expect("a file");
        let why = authorities(&file).expect_err("nothing in it").to_string();
        assert!(why.contains(expected), "{len}: {why}");
        let config = BackplaneConfig { ca: Some(file.clone()), ..config("tls://127.0.0.1:1") };
        let why = refusal(&config).await;
        assert!(why.contains(expected), "{len}: {why}");
    }
}

#[tokio::test]
async fn what_is_no_broker_is_named() {
    let closed = ReservedPort::new();
    let why = refusal(&config(&format!("nats://{}", closed.address))).await;
    assert!(why.contains(&format!("{}: Connection refused", closed.address)), "{why}");

    let why = refusal(&config("nats://no.such.host.invalid")).await;
    assert!(why.contains("its name is unknown") || why.contains("in 3 s"), "{why}");

    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let why = refusal(&config(&format!("nats://{}", silent.local_addr().expect("bound")))).await;
    assert!(why.contains("there is no handshake of NATS within 3 s"), "{why}");

    let other = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = other.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut socket, _) = other.accept().expect("a client");
        socket.write_all(b"220 mail.example ESMTP\r\n").expect("it reads");
    });
    let why = refusal(&config(&format!("nats://{address}"))).await;
    assert!(why.contains("220 mail.example"), "{why}");
}

#[tokio::test]
async fn a_broker_without_jetstream_or_without_rights_is_named() {
    requires_nats!();
    let accounts = "accounts { A { users: [{ user: a, password: a }] } }\nno_auth_user: a\n";
    let server = NatsServer::start_somehow(accounts);
    let why = refusal(&config(&server.url())).await;
    assert!(why.contains("JetStream not enabled for account"), "{why}");
    let server = NatsServer::start_somehow("jetstream: disabled");
    let why = refusal(&config(&server.url())).await;
    assert!(why.contains("has no JetStream: nats-server needs -js, or jetstream {}"), "{why}");

    let rights = |publish: &str| {
        format!(
            "authorization {{ users: [\
               {{ user: all, password: all }}, \
               {{ user: me, password: me, permissions: {{ publish: [{publish}], subscribe: \"_INBOX.>\" }} }}] }}\n\
             no_auth_user: all\n"
        )
    };
    let enough = [
        "log.log",
        "$JS.API.STREAM.INFO.log",
        "$JS.API.STREAM.CREATE.log",
        "$JS.API.STREAM.MSG.GET.log",
        "$JS.API.CONSUMER.CREATE.log",
        "$JS.API.CONSUMER.MSG.NEXT.log.*",
    ];
    let quoted = |subjects: &[&str]| {
        subjects.iter().map(|subject| format!("{subject:?}")).collect::<Vec<_>>().join(", ")
    };
    let server = NatsServer::start_with(&rights(&quoted(&enough)));
    let config = config(&format!("nats://me:me@{}", server.address()));
    let mut opened = open(&config).await.expect("rights enough");
    assert_eq!(append(&opened.appender, [1, 2]).await.expect("stored"), 2);
    assert_eq!(super::support::read(&mut opened.reader, 1, 2).await.expect("read").len(), 2);

    let server = NatsServer::start_with(&rights(&quoted(&enough[..1])));
    let why = refusal(&self::config(&format!("nats://me:me@{}", server.address()))).await;
    assert!(
        why.contains("Permissions Violation for Publish to \"$JS.API.STREAM.INFO.log\""),
        "{why}"
    );
}

#[tokio::test]
async fn one_server_of_several_is_enough() {
    requires_nats!();
    let (server, closed) = (NatsServer::start(), ReservedPort::new());
    let nats = Nats::new(&config(&format!("nats://{},{}", closed.address, server.address())));
    for _ in 0..8 {
        open_again(&nats).await;
    }
    let other = ReservedPort::new();
    let why = refusal(&config(&format!("nats://{},{}", closed.address, other.address))).await;
    for port in [closed, other] {
        assert!(why.contains(&port.address.to_string()), "{why}");
    }
}
