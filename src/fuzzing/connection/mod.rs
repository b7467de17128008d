//! Whole connections over loopback, in cleartext and behind TLS: a client does anything, in virtual time.

mod check;
mod client;
mod received;
mod script;
mod tls;

use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::SockRef;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use self::client::Client;
use self::received::Received;
use super::http::factory;
use crate::admission::Entrance;
use crate::config::HubConfig;
use crate::hub::Hub;
use crate::server::acceptor::Acceptor;
use crate::server::conn_context::ConnContext;
use crate::server::proxy_protocol::HeaderState;
use crate::server::reactor::{Accepted, Handle, Reactor};
use crate::stream::{Clock, drive_with};

/// How long anything may take, in virtual time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Requests that one HTTP/2 connection may have open, the default of `connection_streams_max`.
const STREAMS_MAX: usize = 256;

/// A client that does what the input says (its language is in `script`). Whatever that is: the server sends what the
/// protocol permits, and a bounded multiple of what it receives and publishes; the connection ends; no seat is left.
pub fn http_bytes(input: &[u8]) {
    let Some((flags, input)) = input.split_first() else { return };
    run(*flags, input).check();
}

fn run(flags: u8, input: &[u8]) -> Received {
    // Virtual time, in which waiting for a timeout takes no real time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let hub = Hub::new(HubConfig::default());
    let received = runtime.block_on(exchange(flags, input, &hub));
    assert_eq!(hub.seats(), 0, "a seat leaked");
    received
}

/// Does the steps, then closes the sending half, and returns what was received until nothing more happens.
#[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
async fn exchange(flags: u8, input: &[u8], hub: &Hub) -> Received {
    // Rust's `main` ignores SIGPIPE, which a write to a closed socket raises; the `main` of a fuzzer does not.
    _ = signal(SignalKind::pipe());
    let (factory, admission) = factory(hub);
    let (_draining, draining) = watch::channel(false);
    let context = ConnContext { factory, reactor: Handle::new(hub.clone()), draining };
    let acceptor = Acceptor::new(context.clone());
    let factory = context.factory.clone();
    let reactor = Reactor::new(context).expect("a poller");
    let clock = Clock::start();
    // Its keepalives detect disconnected clients that hyper does not notice, because they sent more than it read.
    let driver = tokio::spawn(drive_with(hub.clone(), clock, reactor));

    let (ours, socket) = pair().expect("a connection on loopback");
    if flags & script::SMALL_BUFFERS != 0 {
        SockRef::from(&ours).set_recv_buffer_size(1).expect("a socket");
        SockRef::from(&socket).set_send_buffer_size(1).expect("a socket");
    }
    let admitted = factory.admit(Some(Ipv4Addr::LOCALHOST.into()), Entrance::Public).await;
    let tls = (flags & script::TLS != 0).then_some(&*tls::SERVER);
    let mut client = Client::new(ours, flags);
    let mut steps = script::steps(input).into_iter();
    // The first piece may be a complete request in cleartext, which the reactor serves without hyper.
    if tls.is_none() {
        let before = steps.as_slice().iter().take_while(|step| step.is_setting()).count();
        for step in steps.by_ref().take(before + 1) {
            client.perform(step, hub, clock).await;
        }
    }
    acceptor.dispatch(Accepted { socket, admitted, header: HeaderState::Done }, tls);
    for step in steps {
        client.perform(step, hub, clock).await;
        assert!(hub.seats() <= STREAMS_MAX, "more seats than requests that may be open");
    }
    let received = client.finish().await;
    // Virtual time passes at once. Real time does too, because the kernel may need some to pass on the client's end.
    for _ in 0..2 * TIMEOUT.as_secs() {
        if admission.connections(Entrance::Public) == 0 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(admission.connections(Entrance::Public), 0, "a connection outlives its client");
    driver.abort();
    _ = driver.await;
    received
}

/// Both ends of a connection on loopback. Without Nagle's algorithm, whose delays take real time.
fn pair() -> std::io::Result<(tokio::net::TcpStream, mio::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok((tokio::net::TcpStream::from_std(client)?, mio::net::TcpStream::from_std(server)))
}

#[cfg(test)]
mod tests {
    use super::received::Data;
    use super::*;

    /// What a client receives that does this.
    fn received(flags: u8, steps: &[&[u8]]) -> String {
        let received = match run(flags, &steps.concat()).into_data() {
            Data::Http1(data) | Data::Http2(data) | Data::Records(data) => data,
        };
        String::from_utf8_lossy(&received).into_owned()
    }

    /// The checks of the target hold for a client that receives nothing too, so this makes sure that it receives.
    #[test]
    fn a_script_opens_streams_and_receives_events_on_every_transport() {
        const GET: &[u8] = b"w\x2aGET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
        const PREFACE: &[u8] = b"w\x18PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nf\x04\0\0\0";
        const HEADERS: &[u8] = b"f\x01\x05\x01\x17\x82\x87\x04\x10/api/acme/events\x01\x01t";
        // Key updates of both kinds, with an empty record between them, and bytes one by one.
        const UPDATES: &[u8] = b"k\0x\x1ee\x17\0k\x01c\x01k\x01c\0";
        for (flags, request) in [
            (0, [GET, b""]),
            (0, [PREFACE, HEADERS]),
            (script::TLS, [GET, b""]),
            (script::TLS | script::ALPN_H2, [PREFACE, HEADERS]),
        ] {
            let [first, second] = request;
            for more in [b"".as_slice(), UPDATES] {
                let text =
                    received(flags, &[more, first, second, more, b"p\0n\x01p\x01n\x01p\x46"]);
                let events = text.matches("event: invalidate").count();
                assert_eq!(events, 2, "{flags} {text}");
                assert!(text.contains(": keepalive"), "{flags} {text}");
            }
        }
    }

    #[test]
    fn a_record_that_is_cut_ends_a_script_without_an_answer() {
        let livez = b"w\x20GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";
        for cut in 1..40 {
            let text = received(script::TLS, &[livez, b"p\x01t", &[cut], livez, b"p\x0b"]);
            assert_eq!(text.matches("live\n").count(), 1, "{text}");
        }
    }
}
