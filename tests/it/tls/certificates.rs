//! Certificates that are replaced, and certificates that cannot be used.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{ChildStderr, Stdio};

use rustls::ALL_VERSIONS;

use super::{Listener, client, handshake, start_as};
use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, eventually};

/// A new certificate with a unique name.
fn make(folder: &TempDir, name: &str) -> Certificate {
    Certificate::make(&folder.path().join(name), name)
}

/// Whether the server uses this certificate for new handshakes.
fn presents(server: &Server, certificate: &Certificate) -> bool {
    handshake(server, &client(certificate, ALL_VERSIONS).into()).is_ok()
}

/// Replaces a certificate by another, each file atomically.
fn replace(certificate: &str, key: &str, by: &Certificate) {
    for (file, by) in [(key, &by.key), (certificate, &by.certificate)] {
        let new = format!("{file}.new");
        std::fs::copy(by, &new).expect("a copy");
        std::fs::rename(&new, file).expect("a rename");
    }
}

/// A server with the certificate in these files, and its log.
fn server(files: [&str; 2]) -> (Server, ChildStderr) {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let flags = ["--tls-cert", files[0], "--tls-key", files[1], "--log", "info"];
    let mut server = start_as(command, &flags);
    let log = server.take_stderr();
    (server, log)
}

/// Reads the log up to a line that contains `part`, and returns that line.
fn await_line(log: &mut ChildStderr, part: &str) -> String {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        log.read_exact(&mut byte).expect("a log");
        if byte == *b"\n" {
            if line.contains(part) {
                return line;
            }
            line.clear();
        } else {
            line.push(byte[0].into());
        }
    }
}

#[test]
fn a_new_certificate_is_used_for_new_handshakes_while_open_streams_are_served() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [first, second, third] = ["first", "second", "third"].map(|name| make(&folder, name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    replace(&files[0], &files[1], &first);
    let (server, mut log) = server([&files[0], &files[1]]);
    let mut stream = Listener::open(&server, &first);

    replace(&files[0], &files[1], &second);
    server.signal(Signal::HUP);
    await_line(&mut log, "the certificate was read again");
    assert!(presents(&server, &second) && !presents(&server, &first));
    server.publish("acme", &["after-hup"]);
    stream.receive("after-hup");

    // Without a signal.
    replace(&files[0], &files[1], &third);
    eventually("the third is presented", || presents(&server, &third));
    server.publish("acme", &["after-change"]);
    stream.receive("after-change");
}

/// In Kubernetes each file is a link into a folder that is itself a link; it replaces the latter.
#[test]
fn a_replaced_link_to_the_folder_is_noticed() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [first, second] = ["first", "second"].map(|name| make(&folder, name));
    let data = folder.path().join("..data");
    symlink("first", &data).expect("a link");
    let files = ["certificate.pem", "key.pem"].map(|name| {
        symlink(format!("..data/{name}"), folder.path().join(name)).expect("a link");
        folder.file(name)
    });
    let (server, _log) = server([&files[0], &files[1]]);
    assert!(presents(&server, &first));
    let new = folder.path().join("..data_tmp");
    symlink("second", &new).expect("a link");
    std::fs::rename(new, data).expect("a rename");
    eventually("the second is presented", || presents(&server, &second));
}

type Spoil = Box<dyn Fn()>;

/// Ways to spoil the files of a valid pair, each with the message it causes.
fn bad_pairs(files: &[String; 2], other: &Certificate) -> [(&'static str, Spoil); 7] {
    let [chain, private] = files.clone();
    let (c, p, other) = (chain.clone(), private.clone(), other.clone());
    let write = |file: &str, text: &'static str| {
        let file = file.to_owned();
        move || std::fs::write(&file, text).expect("a file")
    };
    let remove = |file: String| move || std::fs::remove_file(&file).expect("a file");
    let grow = |file: &str| {
        let file = std::fs::OpenOptions::new().append(true).open(file).expect("a file");
        file.set_len(1024 * 1024 + 1).expect("room");
    };
    let (long_chain, long_key) = (chain.clone(), private.clone());
    [
        ("chain.pem: it has more than 1048576 bytes", Box::new(move || grow(&long_chain))),
        ("private.pem: it has more than 1048576 bytes", Box::new(move || grow(&long_key))),
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

/// SCENARIO: one of the files is replaced by something of gigabytes, by a log or a copy that went wrong, say.
/// BUG: it was read to its end, into memory, and until then neither a certificate nor a key was read again.
/// FIX: no more of a file is read than a chain may have.
#[test]
fn a_bad_certificate_is_logged_and_the_one_in_use_is_kept() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [first, second] = ["first", "second"].map(|name| make(&folder, name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    replace(&files[0], &files[1], &first);
    let (server, mut log) = server([&files[0], &files[1]]);
    let mut stream = Listener::open(&server, &first);
    for (what, spoil) in bad_pairs(&files, &second) {
        spoil();
        server.signal(Signal::HUP);
        let line = await_line(&mut log, "the certificate in use stays");
        assert!(line.contains("ERROR") && line.contains(what), "{line}");
        assert!(presents(&server, &first), "{what}");
        server.publish("acme", &["still"]);
        stream.receive("still");
        replace(&files[0], &files[1], &first);
        server.signal(Signal::HUP);
        await_line(&mut log, "the certificate was read again");
    }
    replace(&files[0], &files[1], &second);
    eventually("the valid one is used", || presents(&server, &second));
}

/// SCENARIO: a certificate is not renewed, or the clock of the machine that made it is ahead.
/// BUG: it was served without a word in the log, while every client refused it.
/// FIX: a warning at the start, and whenever it is read.
#[test]
fn a_certificate_that_is_not_valid_is_served_with_a_warning() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let valid = make(&folder, "valid");
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    for (from, to, what) in [
        (
            "20200101000000Z",
            "20200102000000Z",
            "the certificate has expired: it was valid until Thu, 02 Jan 2020",
        ),
        (
            "20900101000000Z",
            "20900102000000Z",
            "the certificate is not valid yet: it will be from Sun, 01 Jan 2090",
        ),
    ] {
        let invalid = Certificate::make_for([from, to], &folder.path().join(from));
        replace(&files[0], &files[1], &invalid);
        let (server, mut log) = server([&files[0], &files[1]]);
        // One line at the start, and one when it is read again.
        server.signal(Signal::HUP);
        let mut warnings = 0;
        while let line = await_line(&mut log, "")
            && !line.contains("was read again")
        {
            assert!(line.contains("WARN") && line.contains(what), "{line}");
            warnings += 1;
        }
        assert_eq!(warnings, 2, "{what}");
        replace(&files[0], &files[1], &valid);
        server.signal(Signal::HUP);
        while let line = await_line(&mut log, "")
            && !line.contains("was read again")
        {
            assert!(!line.contains(what), "{line}");
        }
    }
}

#[test]
fn a_bad_certificate_at_the_start_is_a_configuration_error() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [first, second] = ["first", "second"].map(|name| make(&folder, name));
    let files = [folder.file("chain.pem"), folder.file("private.pem")];
    let flags = ["--listen", "127.0.0.1:0", "--tls-cert", &files[0], "--tls-key", &files[1]];
    for (what, spoil) in bad_pairs(&files, &second) {
        replace(&files[0], &files[1], &first);
        spoil();
        let (code, message) = Server::refuses_to_start(&flags);
        assert_eq!(code, Some(2), "{message}");
        assert!(
            message.contains("cannot use the certificate") && message.contains(what),
            "{message}"
        );
    }
    for flags in [&flags[..4], &[flags[0], flags[1], flags[4], flags[5]]] {
        assert_eq!(Server::refuses_to_start(flags).0, Some(2), "one without the other");
    }
}
