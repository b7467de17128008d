//! The file of a socket: made with its permissions, replaced if it is stale, kept if it is anything else, and removed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Place;
use crate::support::server::Signal;
use crate::support::{Server, Transport, eventually};

/// Servers that start at the same moment.
const RIVALS: usize = 6;

fn refusal(args: &[&str]) -> String {
    let (code, message) = Server::refuses_to_start(args);
    assert_eq!(code, Some(2), "{message}");
    message
}

/// The report on settings that are valid.
fn checked(args: &[&str]) -> String {
    let output = Server::command().arg("--check").args(args).output().expect("a program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_file_is_removed_when_the_server_ends_and_replaced_if_it_was_killed() {
    let place = Place::new();
    let mut server = place.serve(&["--drain-window", "0"]);
    assert!(fs::symlink_metadata(&place.path).expect("a file").file_type().is_socket());
    assert_eq!(place.get("/livez", "host: test\r\n").status(), 200);
    server.signal(Signal::KILL);
    server.wait();
    assert!(place.path.exists(), "it is stale");

    let mut server = place.serve(&["--drain-window", "0"]);
    assert_eq!(place.get("/livez", "host: test\r\n").status(), 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(!fs::exists(&place.path).expect("a folder"), "it is removed");
    // Neither of them leaves anything else.
    assert_eq!(fs::read_dir(place.dir.path()).expect("a folder").count(), 0);
}

#[test]
fn a_server_that_listens_is_not_replaced() {
    let place = Place::new();
    let server = place.serve(&[]);
    let message = refusal(&["--listen", &place.flag()]);
    assert!(message.contains("another server does (maybe another nudged)"), "{message}");
    assert!(message.contains(&place.flag()), "{message}");
    assert_eq!(place.get("/livez", "host: test\r\n").status(), 200);
    // Nor one that is too busy to accept.
    server.signal(Signal::STOP);
    let message = refusal(&["--listen", &place.flag()]);
    server.signal(Signal::CONT);
    assert!(message.contains("another server does"), "{message}");
    // A socket of another kind is one that is used.
    let other = Place::new();
    let _datagrams = UnixDatagram::bind(&other.path).expect("a socket");
    let message = refusal(&["--listen", &other.flag()]);
    assert!(message.contains("another server does"), "{message}");
}

#[test]
fn any_other_file_is_kept() {
    let place = Place::new();
    let target = place.dir.path().join("target");
    type Make = fn(&Path, &Path);
    let kinds: [Make; 4] = [
        |path, _| fs::write(path, "mine").expect("a file"),
        |path, _| fs::create_dir(path).expect("a folder"),
        |path, _| symlink("/nowhere", path).expect("a link"),
        |path, target| {
            drop(UnixListener::bind(target).expect("a stale socket"));
            symlink(target, path).expect("a link");
        },
    ];
    for make in kinds {
        make(&place.path, &target);
        let before = fs::symlink_metadata(&place.path).expect("a file").file_type();
        let message = refusal(&["--listen", &place.flag()]);
        assert!(message.contains("there is a file that is no socket, and is kept"), "{message}");
        let after = fs::symlink_metadata(&place.path).expect("it is there").file_type();
        assert_eq!(after, before);
        if before.is_dir() { fs::remove_dir(&place.path) } else { fs::remove_file(&place.path) }
            .expect("it is there");
    }
}

/// At the end the path may lead to what is another's by then.
#[test]
fn a_file_that_has_replaced_it_is_kept() {
    let place = Place::new();
    let mut server = place.serve(&["--drain-window", "0"]);
    fs::remove_file(&place.path).expect("it is there");
    let _other = UnixListener::bind(&place.path).expect("the path is free");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(place.path.exists());
}

#[test]
fn a_path_at_which_no_server_can_listen_is_refused_with_the_reason() {
    let place = Place::new();
    let folder = place.dir.path().display().to_string();
    let long = format!("{folder}/{}", "x".repeat(107 - folder.len()));
    for (path, why) in [
        (format!("{folder}/none/socket"), format!("the folder {folder}/none does not exist")),
        (long, "the path has 108 bytes, and that of a socket has 107 at most".into()),
        ("@nudged".into(), "an abstract name has no permissions".into()),
        (String::new(), "the path is empty".into()),
    ] {
        let listen = format!("unix:{path}");
        for check in [&[][..], &["--check"]] {
            let message = refusal(&[&["--listen", &listen], check].concat());
            assert!(message.contains(&why), "{message}");
        }
    }
    let longest = format!("unix:{folder}/{}", "x".repeat(106 - folder.len()));
    let _server = Server::start(&["--listen", &format!("127.0.0.1:0,{longest}")]);
    let mode = refusal(&["--listen-mode", "600"]);
    assert!(mode.contains("--listen-mode does nothing without an address like unix:"), "{mode}");
    for mode in ["888", "1777", "+7", "", "rw"] {
        let message = refusal(&["--listen", &place.flag(), "--listen-mode", mode]);
        assert!(message.contains("from 0 to 777"), "{message}");
    }
}

/// SCENARIO: an operator sets `--proxy-protocol-from unix`, and the server listens on TCP, or has the Unix socket for its
/// internal address, where no header is read.
/// BUG: it starts, and its clients are the balancer to it.
/// FIX: a setting that does nothing is an error, as others are; sockets of the service manager count.
#[test]
fn peers_of_unix_sockets_are_refused_where_there_is_no_such_socket_for_them() {
    let place = Place::new();
    let limit = ["--address-streams", "1"];
    for (flag, listen) in [
        ("--trust-forwarded-for", &[][..]),
        ("--proxy-protocol-from", &[]),
        ("--proxy-protocol-from", &["--internal-listen", &place.flag()]),
    ] {
        let message = refusal(&[&[flag, "10.0.0.0/8,unix"][..], &limit, listen].concat());
        let why = format!("{flag} unix does nothing without an address like unix:");
        assert!(message.contains(&why), "{message}");
    }
    let (listen, internal) = (["--listen", &place.flag()], ["--internal-listen", &place.flag()]);
    for (flag, listen) in [
        ("--trust-forwarded-for", listen),
        ("--trust-forwarded-for", internal),
        ("--proxy-protocol-from", listen),
    ] {
        checked(&[&[flag, "unix"][..], &limit, &listen].concat());
    }
}

/// Whatever the umask is.
#[test]
fn the_file_has_the_permissions_that_are_asked_for() {
    for umask in ["0", "022", "777"] {
        for (flags, mode) in [(&[][..], 0o660), (&["--listen-mode", "606"], 0o606)] {
            let place = Place::new();
            let script = format!("umask {umask} && exec \"$0\" \"$@\"");
            let listen = format!("127.0.0.1:0,{}", place.flag());
            let args = [&["--listen", &listen], flags].concat();
            let command = Server::command_by(&["sh", "-c", &script]);
            let _server = Server::start_as(command, Transport::Http1, &args);
            let file = fs::metadata(&place.path).expect("a file");
            assert_eq!(file.permissions().mode() & 0o777, mode, "umask {umask}");
        }
    }
}

/// A stale file must not be taken away from the one that has just replaced it.
#[test]
fn of_servers_that_start_together_at_one_path_exactly_one_serves() {
    for is_stale in [true, false] {
        let place = Place::new();
        if is_stale {
            drop(UnixListener::bind(&place.path).expect("a socket"));
        }
        let start = || -> Child {
            let mut command = Server::command();
            command.args(["--listen", &place.flag()]).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("a program")
        };
        let mut rivals: Vec<_> = (0..RIVALS).map(|_| start()).collect();
        let mut running = RIVALS;
        eventually("all but one have ended", || {
            let alive = |child: &mut Child| child.try_wait().expect("a child").is_none();
            running = rivals.iter_mut().map(alive).filter(|alive| *alive).count();
            running <= 1
        });
        eventually("it listens", || std::os::unix::net::UnixStream::connect(&place.path).is_ok());
        let answer = place.get("/livez", "host: test\r\n");
        rivals.iter_mut().for_each(|rival| _ = rival.kill());
        for rival in rivals {
            let output = rival.wait_with_output().expect("it has ended");
            let message = String::from_utf8_lossy(&output.stderr);
            let refused = message.contains("another server does (maybe another nudged)");
            assert!(refused || output.status.code().is_none(), "{message}");
        }
        assert_eq!((answer.status(), running), (200, 1), "stale: {is_stale}");
    }
}

/// It belongs to the service manager.
#[test]
fn a_socket_of_the_service_manager_is_served_and_its_file_kept() {
    let place = Place::new();
    let socket = UnixListener::bind(&place.path).expect("a socket");
    // Its family does not matter to what passes it on.
    let socket = TcpListener::from(OwnedFd::from(socket));
    let args = ["--internal-listen", "127.0.0.1:0", "--workers", "3", "--drain-window", "0"];
    let mut server = Server::start_as(Server::activated(&socket), Transport::Http1, &args);
    let mut streams = place.streams("acme", 30);
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(place.path.exists());
    let _next = Server::start_as(Server::activated(&socket), Transport::Http1, &args);
    _ = place.streams("acme", 3);
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let (one, _other) = UnixDatagram::pair().expect("sockets");
    let socket = TcpListener::from(OwnedFd::from(one));
    let (code, message) = Server::refuses_to_start_as(Server::activated(&socket), &[]);
    assert_eq!(code, Some(2));
    assert!(message.contains("descriptor 3 is no TCP socket, and no Unix socket"), "{message}");
}

#[test]
fn a_check_makes_no_file_and_may_be_run_beside_the_server() {
    let place = Place::new();
    let check = || checked(&["--listen", &place.flag()]);
    let report = check();
    assert!(report.contains(&format!("address: {}\n", place.flag())), "{report}");
    assert!(report.contains("have no address"), "{report}");
    assert!(!place.path.exists());
    let _server = place.serve(&[]);
    check();
    assert_eq!(place.get("/livez", "host: test\r\n").status(), 200);
}

/// The program, run as a user without privileges: file permissions would not apply to it where root runs the tests.
fn unprivileged(place: &Place) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if !is_root {
        return Server::command();
    }
    const USER: u32 = 65_534;
    chown(place.dir.path(), Some(USER), Some(USER)).expect("a folder");
    // That user may not be able to look into the folders above the program: its descriptor leads past them.
    let command = Server::command();
    let program = File::open(command.get_program()).expect("the program");
    // It stays open until the tests end.
    let path = Path::new("/proc/self/fd").join(program.into_raw_fd().to_string());
    let mut command = Server::command_at(&path);
    command.uid(USER).gid(USER);
    command
}

/// The file is made in it, under a lock of it, for which it is read.
#[test]
fn the_folder_has_to_be_writable_and_readable() {
    for mode in [0o500, 0o300] {
        let place = Place::new();
        let flag = place.flag();
        for check in [&[][..], &["--check"]] {
            let command = unprivileged(&place);
            fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(mode)).expect("one");
            let listen = [check, &["--listen", &flag]].concat();
            let (code, message) = Server::refuses_to_start_as(command, &listen);
            assert_eq!(code, Some(2), "{mode:o} {check:?} {message}");
            assert!(message.contains("Permission denied"), "{mode:o} {check:?} {message}");
        }
        fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o700)).expect("a folder");
    }
}
