//! Servers that are there, and those that are not, or not for us.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use super::support::certificate::Certificate;
use super::support::port::ReservedPort;
use super::support::programs::{OPENSSL, REDIS_SERVER, are_available};
use super::support::temp_dir::TempDir;
use super::support::{RedisServer, append, config, open, read, refusal, requires_redis};
use crate::config::BackplaneConfig;

/// What an ACL user needs, as the guide has it.
const RIGHTS: &str =
    "resetkeys ~log:log resetchannels -@all +info +xinfo|stream +memory|usage +xadd +xread +select";

#[tokio::test]
async fn a_login_is_a_password() {
    requires_redis!();
    let server = RedisServer::start_with_password("p@ss");
    let with = |login: &str| config(&format!("redis://{login}{}", server.address()));
    for right in [":p%40ss@", "default:p%40ss@"] {
        let opened = open(&with(right)).await.expect("the right login");
        append(&opened.appender, [1]).await.expect("stored");
    }
    for wrong in [":wrong@", "me:wrong@"] {
        let why = refusal(&with(wrong)).await;
        assert!(why.contains("it refuses the user or the password"), "{why}");
        assert!(!why.contains("wrong"), "{why}");
    }
    let why = refusal(&with("")).await;
    assert!(why.contains("it asks for a login"), "{why}");
}

#[tokio::test]
async fn a_user_has_few_rights() {
    requires_redis!();
    let server = RedisServer::start_with_user("me", "pass", RIGHTS);
    let with = |path: &str| config(&format!("redis://me:pass@{}{path}", server.address()));
    for path in ["", "/3"] {
        let mut opened = open(&with(path)).await.expect("rights enough");
        assert_eq!(append(&opened.appender, [1, 2]).await.expect("stored"), 2);
        assert_eq!(read(&mut opened.reader, 1, 2).await.expect("read").len(), 2);
    }
    let mut other = with("");
    other.log = "other".parse().expect("a name");
    let why = refusal(&other).await;
    assert!(why.contains("its user lacks a right (ACL)") && why.contains("keys"), "{why}");
    for right in RIGHTS.split(' ').filter(|right| right.starts_with('+')) {
        let server = RedisServer::start_with_user("me", "pass", &RIGHTS.replace(right, ""));
        let opened = open(&config(&format!("redis://me:pass@{}/3", server.address()))).await;
        let why = match opened {
            Err(down) => down.0,
            Ok(mut opened) => match append(&opened.appender, [1]).await {
                Err(why) => why.0,
                Ok(_) => read(&mut opened.reader, 1, 1).await.expect_err("no right").0,
            },
        };
        let name = format!("'{}'", right.trim_start_matches('+'));
        assert!(why.contains("its user lacks a right (ACL)") && why.contains(&name), "{why}");
    }
}

#[tokio::test]
async fn tls_trusts_the_authorities_that_it_is_given() {
    if !are_available(&[&REDIS_SERVER, &OPENSSL]) {
        return;
    }
    let dir = TempDir::new();
    let authority = |name: &str| {
        let extensions = ["basicConstraints=critical,CA:TRUE"];
        Certificate::make_with(&extensions, &dir.path().join(name), name)
    };
    let [trusted, other] = ["trusted", "other"].map(authority);
    let certificate = trusted.sign(&dir.path().join("server"), "server");
    let server = RedisServer::start_with_tls(&certificate.certificate, &certificate.key);
    let with = |url: String, ca: Option<&str>| BackplaneConfig {
        ca: ca.map(PathBuf::from),
        ..config(&url)
    };
    let mut opened = open(&with(server.url(), Some(&trusted.certificate))).await.expect("trusted");
    assert_eq!(append(&opened.appender, 1..=3).await.expect("stored"), 3);
    assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
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
    // Each of both without the other.
    let why = refusal(&config(&format!("redis://{}", server.address()))).await;
    assert!(
        why.contains("the connection to the broker was lost") || why.contains("does not speak"),
        "{why}"
    );
    let server = RedisServer::start();
    let why =
        refusal(&with(format!("rediss://{}", server.address()), Some(&trusted.certificate))).await;
    assert!(
        why.contains(
            "it does not speak TLS, or not as Redis does, in 3 s; without TLS the URL is redis://"
        ),
        "{why}"
    );
}

/// SCENARIO: a server of another kind greets before it is asked. BUG: the test took it for granted that with a login
/// the request is first, and about once in a hundred runs it is not. FIX: both orders are named, with a login and without.
#[tokio::test]
async fn what_is_no_broker_is_named() {
    let closed = ReservedPort::new();
    let why = refusal(&config(&format!("redis://{}", closed.address))).await;
    assert!(why.contains(&format!("{}: Connection refused", closed.address)), "{why}");

    let why = refusal(&config("redis://no.such.host.invalid")).await;
    assert!(why.contains("its name is unknown") || why.contains("in 3 s"), "{why}");

    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut with_login = config(&format!("redis://:p@{}", silent.local_addr().expect("bound")));
    let why = refusal(&with_login).await;
    assert!(why.contains("it does not speak as Redis does in 3 s"), "{why}");
    with_login.url.login = None;
    with_login.timeout = std::time::Duration::from_secs(1);
    let why = refusal(&with_login).await;
    assert!(why.contains("no answer in 3s"), "a request may take as long as a connection: {why}");

    for login in ["", ":p@"] {
        let other = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = other.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut socket, _) = other.accept().expect("a client");
            socket.write_all(b"220 mail.example ESMTP\r\n").expect("it reads");
            // A reset by unread input would hide what it has sent.
            _ = std::io::copy(&mut socket, &mut std::io::sink());
        });
        let why = refusal(&config(&format!("redis://{login}{address}"))).await;
        // It may have sent that before it is asked anything.
        let is_lost = why.contains("the connection to the broker was lost");
        assert!(is_lost || why.contains("it does not speak as Redis does"), "{why}");
    }
}

/// Whatever distributes connections over a primary and its replica: one of two is to each.
#[tokio::test]
async fn two_connections_to_two_servers_are_refused() {
    requires_redis!();
    let primary = RedisServer::start();
    let replica = RedisServer::start_replica(&primary);
    let ways = [primary.address(), replica.address()];
    let why = refusal(&config(&format!("redis://{}", distribute(ways)))).await;
    assert!(why.contains("two connections to the broker have come to two servers"), "{why}");
    let ways = [replica.address(), primary.address()];
    let why = refusal(&config(&format!("redis://{}", distribute(ways)))).await;
    assert!(why.contains("it is a replica; its primary is"), "{why}");
}

/// Takes connections to these servers in turn, until the test's process ends.
fn distribute(ways: [SocketAddr; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for (socket, way) in listener.incoming().flatten().zip(ways.into_iter().cycle()) {
            let other = TcpStream::connect(way).expect("it runs");
            for (mut from, mut to) in [(&socket, &other), (&other, &socket)].map(|(from, to)| {
                (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"))
            }) {
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut to);
                    _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    address
}

/// SCENARIO: there are as many connections as the server takes. BUG: with a login it was said that the password is wrong.
/// FIX: Redis is quoted.
#[tokio::test]
async fn a_server_with_too_many_clients_is_named() {
    requires_redis!();
    let server = RedisServer::start_with_password("pass");
    let mut first = server.client();
    first.run("CONFIG SET maxclients 1");
    for login in ["", ":pass@"] {
        let why = refusal(&config(&format!("redis://{login}{}", server.address()))).await;
        // It may have closed the connection before it is asked anything.
        let is_lost = why.contains("the connection to the broker was lost");
        assert!(is_lost || why.contains("max number of clients reached"), "{why}");
        assert!(!why.contains("password"), "{why}");
    }
}

/// SCENARIO: a server does not know `AUTH` (`rename-command`), or what stands before it does not. BUG: it repeats what it was
/// sent, and the password was in the error, which is written to the server's log. FIX: what it quotes is left out.
#[tokio::test]
async fn the_refusal_of_a_login_shows_no_password() {
    requires_redis!();
    let server = RedisServer::start_with("rename-command AUTH \"\"");
    for login in ["user:hunter2", "hunter2:hunter2", ":hunter2"] {
        let why = refusal(&config(&format!("redis://{login}@{}", server.address()))).await;
        assert!(why.contains("Redis refuses AUTH: ERR unknown command"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}
