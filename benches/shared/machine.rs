//! A network namespace at the other end of a cable, as another machine would be. It needs root and `ip` (Debian's
//! iproute2).

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Deleted when this is dropped.
pub(crate) struct Machine {
    name: String,
    /// Our end of the cable.
    pub(crate) ours: Ipv4Addr,
    pub(crate) theirs: Ipv4Addr,
}

/// How a peer vanishes. Neither sends a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vanishes {
    /// The cable is pulled. The server's own kernel notices it, which must make no difference.
    Link,
    /// Its packets are lost on the path, while both ends still have a link.
    Packets,
}

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

// ===== impl Machine =====

impl Machine {
    pub(crate) fn new() -> io::Result<Self> {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Concurrent runs have different process ids and so, nearly always, different networks.
        let run = std::process::id();
        let name = format!("nd{run}-{number}");
        let network = |last| Ipv4Addr::new(10, (run % 251) as u8, number, last);
        let machine = Self { name, ours: network(1), theirs: network(2) };
        let Self { name, ours, theirs } = &machine;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name veth0 netns {name}"))?;
        ip(&format!("addr add {ours}/30 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} addr add {theirs}/30 dev veth0"))?;
        ip(&format!("-n {name} link set veth0 up"))?;
        Ok(machine)
    }

    /// Makes our 127.0.0.1 its own: servers that listen on no other address are reached over the cable.
    pub(crate) fn reach_our_loopback(&self) -> io::Result<()> {
        let Self { name, ours, .. } = self;
        let setting = |link: &str| format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
        fs::write(setting(name), "1")?;
        self.run(|| fs::write(setting("veth0"), "1"))??;
        ip(&format!("-n {name} route add {LOOPBACK} via {ours}"))
    }

    /// Runs `act` in the namespace. The sockets that it returns stay in there.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        thread::scope(|scope| {
            let on_it = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(act())
            });
            on_it.join().expect("no panic in the namespace")
        })
    }

    pub(crate) fn vanish(&self, way: Vanishes) -> io::Result<()> {
        let Self { name, ours, .. } = self;
        match way {
            Vanishes::Link => ip(&format!("-n {name} link set veth0 down")),
            Vanishes::Packets => {
                ip(&format!("-n {name} route add blackhole {ours}"))?;
                ip(&format!("-n {name} route replace blackhole {LOOPBACK}"))
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The cable first: an open socket keeps the namespace alive, and the namespace keeps its end of the cable.
        _ = ip(&format!("link del {}", self.name));
        _ = ip(&format!("netns del {}", self.name));
        _ = ip(&format!("route del unreachable {}", self.theirs));
    }
}

/// Runs `ip(8)`.
pub(crate) fn ip(arguments: &str) -> io::Result<()> {
    let done = Command::new("ip").args(arguments.split(' ')).output();
    let done = done.map_err(|why| io::Error::new(why.kind(), format!("ip(8): {why}")))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&done.stderr);
            Err(io::Error::other(format!("`ip {arguments}` failed: {}", why.trim_end())))
        }
    }
}
