//! The listening sockets of one address, one per worker. They share the port (`SO_REUSEPORT`), and no other server
//! does.
//!
//! That option alone would let a second server of the same user bind the same port, and silently take a part of the
//! connections. So the first socket listens without it: while a socket without the option listens, the kernel lets no
//! other socket listen on an address that overlaps with its own, and of servers that start together at most one passes
//! this check of listen(2). Only then does the socket get the option, and the others join it. A second server begins
//! without the option too, so the first one's sockets refuse it for as long as they listen. The kernel decides, so it
//! holds for wildcard addresses, for each network namespace and each user, and no other program can take anything by
//! which it would keep the server from starting, but the port itself.
//!
//! Only Linux spreads connections over such sockets; elsewhere the workers share one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::listen::set_options;
use crate::config::Config;

/// Length of the accept queue; the kernel lowers it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Whether each worker listens with a socket of its own.
const REUSE_PORT: bool = cfg!(target_os = "linux");

/// How often an address that is in use is tried again. Of servers that start together, each may meet the listen(2) of
/// another one that then fails.
const RETRIES: u32 = 8;

/// The longest wait before the first retry; each further one may take twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(1);

/// A listening socket for each of `workers`, at least one. With port 0, all have the port that the system chose.
pub(super) fn listen(
    address: SocketAddr,
    workers: usize,
    config: &Config,
) -> io::Result<Vec<TcpListener>> {
    let first = unless_in_use(|| listening(address, false, config))?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    if REUSE_PORT && workers > 1 {
        SockRef::from(&sockets[0]).set_reuse_port(true)?;
    }
    while sockets.len() < workers {
        sockets.push(match REUSE_PORT {
            true => unless_in_use(|| listening(address, true, config))?,
            false => sockets[0].try_clone()?,
        });
    }
    Ok(sockets)
}

/// Tries again for a moment while the address is in use.
fn unless_in_use<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut wait = FIRST_WAIT;
    for _ in 0..RETRIES {
        match attempt() {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
                // Random, so that servers that hinder each other do not do so for ever.
                thread::sleep(wait.mul_f64(fastrand::f64()));
                wait *= 2;
            }
            result => return result,
        }
    }
    attempt()
}

/// Whether the address is one of this machine that this process may bind. Another socket may be bound to it, and none
/// is kept from it: this one does not listen.
pub(super) fn can_bind(address: SocketAddr) -> io::Result<()> {
    match socket(address)?.bind(&address.into()) {
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => Ok(()),
        bound => bound,
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listening(address: SocketAddr, shared: bool, config: &Config) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    set_options(&socket, config)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::server::Server;

    /// Servers that start at the same moment.
    const SERVERS: usize = 4;

    const ROUNDS: usize = 100;

    /// A port that was free a moment ago.
    fn port() -> u16 {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("bound").port()
    }

    fn config(address: SocketAddr) -> Config {
        Config {
            listen: vec![address.into()],
            workers: 2,
            insecure_open: true,
            ..Config::default()
        }
    }

    /// How many of the servers that start together on these addresses, in turn, have started.
    fn started(addresses: &[SocketAddr]) -> usize {
        let barrier = Barrier::new(SERVERS);
        let start = |index: usize| {
            let config = config(addresses[index % addresses.len()]);
            barrier.wait();
            Server::bind(config).ok()
        };
        let servers: Vec<_> = thread::scope(|scope| {
            let start = &start;
            #[expect(clippy::needless_collect, reason = "they have to run at the same time")]
            let threads: Vec<_> =
                (0..SERVERS).map(|index| scope.spawn(move || start(index))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        servers.iter().flatten().count()
    }

    /// SCENARIO: two servers are started together on the same address, by a supervisor and by hand, say.
    /// BUG: each checked that nothing listened and then listened, with `SO_REUSEPORT`. Once in 20 to 70 times both
    /// passed the check, and each got half of the clients and half of the publishes.
    /// FIX: the kernel decides, when the first socket listens, for the server's life.
    #[test]
    fn of_servers_that_start_together_exactly_one_gets_the_port() {
        for round in 0..ROUNDS {
            assert_eq!(started(&[([127, 0, 0, 1], port()).into()]), 1, "round {round}");
        }
    }

    /// The same where the addresses are not equal, but overlap.
    #[cfg(target_os = "linux")]
    #[test]
    fn of_servers_on_overlapping_addresses_exactly_one_starts() {
        for round in 0..ROUNDS / 2 {
            let port = port();
            let addresses = [([127, 0, 0, 1], port).into(), ([0, 0, 0, 0], port).into()];
            assert_eq!(started(&addresses), 1, "round {round}");
        }
    }

    /// The option is set on a socket that listens already; the kernel has to count it in.
    #[cfg(target_os = "linux")]
    #[test]
    fn connections_spread_over_the_sockets_of_all_workers() {
        let sockets = listen(([127, 0, 0, 1], 0).into(), 3, &Config::default()).expect("a port");
        let address = sockets[0].local_addr().expect("bound");
        let clients: Vec<_> =
            (0..120).map(|_| std::net::TcpStream::connect(address).expect("it listens")).collect();
        let mut accepted = [0; 3];
        while accepted.iter().sum::<usize>() < clients.len() {
            for (count, socket) in accepted.iter_mut().zip(&sockets) {
                *count += std::iter::from_fn(|| socket.accept().ok()).count();
            }
            thread::yield_now();
        }
        assert!(accepted.iter().all(|n| *n > 0), "{accepted:?}");
    }
}
