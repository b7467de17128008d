//! What `cargo bench --bench compare -- reliability` reads of the kernel, and the events that it publishes.

#[path = "../../benches/compare/reliability/padded.rs"]
mod padded;
#[path = "../../benches/compare/reliability/sockets.rs"]
mod sockets;

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;

use padded::padded;
use sockets::{find, held, parse};

use crate::support::eventually;
use crate::support::temp_dir::TempDir;

/// As Linux prints it on a machine whose numbers are little-endian, as all are that this runs on.
const IPV4: &str = "  \
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 0100007F:1AB2 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 663 1 00000000260d0f53 100 0 0 10 0
   1: 0100007F:1AB2 0207FB0A:8B5E 01 0000A402:00000001 01:00000031 00000002   107        0 11586500 2 00000000260d0f53 20 4 30 10 -1
   2: 0100007F:1AB2 0207FB0A:8B60 04 00000001:00000000 01:00000031 00000007     0        0 0 1 00000000260d0f53 20 4 30 10 -1
";

const IPV6: &str = "  \
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:1AB2 0000000000000000FFFF00000207FB0A:8B5E 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0000000000000000 20 4 30 10 -1
   1: B80D01200000000000000000EFBEADDE:0050 00000000000000000000000001000000:FFFF 01 00000000:00000000 00:00000000 00000000     0        0 43 1 0000000000000000 20 4 30 10 -1
";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A folder such as that of a process, with links to these sockets.
fn process(proc: &Path, id: u32, stat: &str, targets: &[&str]) {
    let descriptors = proc.join(id.to_string()).join("fd");
    fs::create_dir_all(&descriptors).unwrap();
    fs::write(proc.join(id.to_string()).join("stat"), stat).unwrap();
    for (number, target) in targets.iter().enumerate() {
        symlink(target, descriptors.join(number.to_string())).unwrap();
    }
}

#[test]
fn a_socket_is_read_with_its_ends_its_queue_and_its_number() {
    let all = parse(IPV4).unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[1].local, address("127.0.0.1:6834"));
    assert_eq!(all[1].remote, address("10.251.7.2:35678"));
    assert_eq!(all[1].queued, 0xa402);
    assert_eq!(all.iter().map(|socket| socket.inode).collect::<Vec<_>>(), [663, 11_586_500, 0]);
}

#[test]
fn an_ipv4_address_of_a_socket_of_ipv6_is_read_as_one() {
    let all = parse(IPV6).unwrap();
    assert_eq!(all[0].local, address("127.0.0.1:6834"));
    assert_eq!(all[0].remote, address("10.251.7.2:35678"));
    assert_eq!(all[1].local, address("[2001:db8::dead:beef]:80"));
    assert_eq!(all[1].remote, address("[::1]:65535"));
}

#[test]
fn a_table_of_another_form_is_not_read() {
    assert!(parse("a head\nand something else\n").is_none());
    assert!(parse(&IPV4.replace("0207FB0A:", "0207FB0AFF:")).is_none());
}

#[test]
fn the_sockets_of_a_process_are_its_own_and_those_of_its_descendants() {
    let proc = TempDir::new();
    let socket = ["/dev/null", "socket:[10]", "pipe:[11]", "anon_inode:[eventpoll]"];
    process(proc.path(), 7, "7 (nginx) S 1 7 7 0", &socket);
    process(proc.path(), 8, "8 (nginx: (1) worker) S 7 7 7 0", &["socket:[20]", "socket:[21]"]);
    process(proc.path(), 9, "9 (cache) S 8 7 7 0", &["socket:[30]"]);
    process(proc.path(), 70, "70 (another) S 1 7 7 0", &["socket:[40]"]);
    fs::write(proc.path().join("version"), "Linux").unwrap();
    assert_eq!(held(proc.path(), 7).unwrap(), HashSet::from([10, 20, 21, 30]));
}

#[test]
fn a_process_without_a_socket_has_ended() {
    let proc = TempDir::new();
    process(proc.path(), 7, "7 (nginx) Z 1 7 7 0", &[]);
    let why = held(proc.path(), 7).unwrap_err().to_string();
    assert_eq!(why, "process 7 has ended");
    assert_eq!(held(proc.path(), 8).unwrap_err().to_string(), "process 8 has ended");
}

#[test]
fn a_server_end_is_found_and_is_held_until_it_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = listener.local_addr().unwrap();
    let _client = TcpStream::connect(ours).unwrap();
    let (server, theirs) = listener.accept().unwrap();
    // Another server may have a client with the same port.
    let found = find(1, |socket| socket.local == ours && socket.remote == theirs).unwrap();
    let is_held = || {
        let held = held(Path::new("/proc"), std::process::id()).unwrap();
        held.intersection(&found).count() == 1
    };
    assert!(is_held());
    drop(server);
    eventually("the server's end is closed", || !is_held());
}

#[test]
fn a_publish_is_padded_as_its_keys_are_quoted() {
    let keys = "x".repeat(480);
    let json = format!(r#"{{"keys":["{{n}}","{keys}","{keys}"]}}"#);
    assert_eq!(padded(r#"{"keys":["{n}"]}"#).unwrap(), json);
    let within = json.replace('"', r#"\""#);
    assert_eq!(padded(r#"{\"keys\":[\"{n}\"]}"#).unwrap(), within);
    let form = json.replace('"', "%22");
    assert_eq!(padded("{%22keys%22:[%22{n}%22]}").unwrap(), form);
    assert_eq!(padded(r#"{"keys":[]}"#), None);
}
