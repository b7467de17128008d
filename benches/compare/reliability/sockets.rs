//! The TCP sockets of this machine, and which of them a process has.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// One end of a connection, as `proc_pid_net(5)` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Bytes that the other end has not acknowledged.
    pub(crate) queued: u64,
    /// The number by which a descriptor names it; 0 if no process has it.
    pub(crate) inode: u64,
}

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// Lengths of a word, and of addresses, in hexadecimal digits.
const WORD: usize = 8;
const IPV4: usize = WORD;
const IPV6: usize = 4 * WORD;
const HEX: u32 = 16;

/// How often sockets are looked for, and the time in between.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// All of them, with IPv4 addresses as such, also where the socket is one of IPv6. The kernel reads its table in parts:
/// while others open and close connections, one may be in it twice, or not at all.
pub(crate) fn sockets() -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(parse(&text).ok_or(io::ErrorKind::InvalidData)?),
            // A kernel without IPv6.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
    }
    Ok(all)
}

/// The numbers of these sockets, once there are so many of them and a process has each.
pub(crate) fn find(count: usize, is_one: impl Fn(&Socket) -> bool) -> io::Result<HashSet<u64>> {
    for _ in 0..LOOKS {
        let found = sockets()?.into_iter().filter(&is_one);
        let inodes: HashSet<_> = found.map(|socket| socket.inode).collect();
        if inodes.len() == count && !inodes.contains(&0) {
            return Ok(inodes);
        }
        thread::sleep(PAUSE);
    }
    Err(io::Error::other(format!("the server does not have {count} streams")))
}

/// `None` if it is no such table.
pub(crate) fn parse(table: &str) -> Option<Vec<Socket>> {
    table.lines().skip(1).map(socket).collect()
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let (queued, _) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(4)?.parse().ok()?;
    Some(Socket { local, remote, queued: u64::from_str_radix(queued, HEX).ok()?, inode })
}

/// Words of an address in network order, as this machine's numbers, then a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = address.get(at * WORD..(at + 1) * WORD)?;
        u32::from_str_radix(word, HEX).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        IPV4 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        IPV6 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, HEX).ok()?))
}

/// The numbers of the sockets that a process and its descendants have. `proc` is `/proc`. A server has at least the
/// socket that it listens on: without one, its process has ended.
pub(crate) fn held(proc: &Path, process: u32) -> io::Result<HashSet<u64>> {
    let mut all = HashSet::new();
    for process in family(proc, process)? {
        // A process may end meanwhile, and a descriptor be closed.
        let descriptors = fs::read_dir(proc.join(process.to_string()).join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:["));
            all.extend(inode.and_then(|inode| inode.strip_suffix(']')?.parse::<u64>().ok()));
        }
    }
    match all.is_empty() {
        true => Err(io::Error::other(format!("process {process} has ended"))),
        false => Ok(all),
    }
}

/// The process and its descendants.
pub(crate) fn family(proc: &Path, process: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        parents.extend(id.and_then(|id| Some((id, parent(&entry.path())?))));
    }
    let mut all = vec![process];
    let mut at = 0;
    while let Some(one) = all.get(at).copied() {
        all.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(id, _)| *id));
        at += 1;
    }
    Ok(all)
}

/// The second field after the name, which may contain spaces and parentheses (`proc_pid_stat(5)`).
fn parent(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}
