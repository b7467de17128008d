//! Streams over TLS: the hub that they share with cleartext, and how they end.

use std::io::Write;
use std::time::Duration;

use socket2::SockRef;

use super::{Listener, Session, start};
use crate::support::certificate::Certificate;
use crate::support::eventually;
use crate::support::programs::{OPENSSL, requires};

#[test]
fn the_plain_address_serves_the_same_hub() {
    requires!(OPENSSL);
    let server = start(&[]);
    let mut secure = Listener::open(&server, &Certificate::of_tests());
    let mut plain = server.stream("acme");
    plain.connected();
    server.publish("acme", &["posts"]);
    secure.receive("posts");
    assert!(plain.next().contains("posts"));
}

/// A way in which a client ends its connection.
type Disconnect = fn(Session);

/// A client ends its connection with close_notify, without it, or with a reset.
#[test]
fn a_close_and_a_reset_over_tls_are_counted_separately() {
    requires!(OPENSSL);
    let server = start(&[]);
    let ends: [(&str, Disconnect); 3] = [
        ("client", |mut session| {
            session.conn.send_close_notify();
            session.flush().expect("sent");
        }),
        ("client", drop),
        ("reset", |session| {
            SockRef::from(&session.sock).set_linger(Some(Duration::ZERO)).expect("a socket");
        }),
    ];
    let closed = |reason: &str| server.closed().get(reason).copied().unwrap_or_default();
    let mut total = 0;
    for (reason, end) in ends {
        let before = closed(reason);
        (0..5).for_each(|_| end(Listener::open(&server, &Certificate::of_tests()).0));
        total += 5;
        eventually("five more are counted", || closed(reason) == before + 5);
    }
    assert_eq!(server.closed().values().sum::<u64>(), total);
}
