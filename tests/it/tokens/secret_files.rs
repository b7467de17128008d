//! Files with secrets: several at a time, and which users may read them.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use super::{SECRET, bearer, key_pair, mint_with, status_of};
use crate::support::certificate::Certificate;
use crate::support::log::Log;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport};

const OLD: &str = "an-old-secret-of-at-least-32-bytes";
const OLDER: &str = "an-older-secret-of-at-least-32-bytes";

fn token(secret: &str) -> String {
    mint_with(&["--secret", secret, "--org", "acme"])
}

/// A date as it is written in a file of secrets.
fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[test]
fn a_file_has_several_secrets_and_each_old_one_a_date_until_which_it_is_accepted() {
    let folder = TempDir::new();
    let day = Duration::from_secs(24 * 60 * 60);
    let (tomorrow, yesterday) = (SystemTime::now() + day, SystemTime::now() - day);
    let file = folder.file("secrets");
    let text = format!(
        "{SECRET}\n\n{OLD} until {}  \r\n{OLDER}\tuntil {}\n",
        date(tomorrow),
        date(yesterday)
    );
    write(&file, text).expect("a file");
    let server = Server::start(&["--jwt-secret-file", &file]);
    for secret in [SECRET, OLD] {
        server.stream_with("/api/acme/events", &bearer(&token(secret))).connected();
    }
    assert_eq!(status_of(&server, &token(OLDER)), 401);
    // The first one signs.
    let first = mint_with(&["--secret-file", &file, "--org", "acme"]);
    server.stream_with("/api/acme/events", &bearer(&first)).connected();
    write(&file, SECRET).expect("a file");
    assert_eq!(mint_with(&["--secret-file", &file, "--org", "acme"]).len(), first.len());

    // Each in a file of its own.
    let old = folder.file("old");
    write(&old, OLD).expect("a file");
    for files in [
        &["--jwt-secret-file", &file, "--jwt-secret-file", &old][..],
        &["--jwt-secret-file", &format!("{file},{old}")],
    ] {
        let server = Server::start(files);
        for secret in [SECRET, OLD] {
            server.stream_with("/api/acme/events", &bearer(&token(secret))).connected();
        }
    }
}

#[test]
fn a_line_that_is_no_secret_is_refused_by_its_number_and_not_shown() {
    let folder = TempDir::new();
    let file = folder.file("secrets");
    let expected = "line 2: ";
    for (line, why) in [
        ("correct horse battery staple, and some more of it", "white space"),
        (&format!(" {OLD}") as &str, "white space"),
        (&format!("{OLD} until"), "SECRET until 2026-12-01T00:00:00Z"),
        (&format!("{OLD} until tomorrow"), "SECRET until 2026-12-01T00:00:00Z"),
        (&format!("{OLD} until 2026-12-01"), "SECRET until 2026-12-01T00:00:00Z"),
        (&format!("{OLD} from 2026-12-01T00:00:00Z"), "white space"),
        ("too-short", "at least 32 bytes"),
    ] {
        write(&file, format!("{SECRET}\n{line}\n")).expect("a file");
        let flags = ["--listen", "127.0.0.1:0", "--jwt-secret-file", &file];
        let (code, message) = Server::refuses_to_start(&flags);
        assert!(code.is_some_and(|code| code != 0), "{line}");
        let named = format!("--jwt-secret-file {file}: ");
        assert!(message.contains(&named) && message.contains(expected), "{line}: {message}");
        assert!(message.contains(why), "{line}: {message}");
        for part in [SECRET, OLD, "horse", "tomorrow", "too-short"] {
            assert!(!message.contains(part), "{message}");
        }
    }
    for empty in ["", "\n \n"] {
        write(&file, empty).expect("a file");
        let (_, message) =
            Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--jwt-secret-file", &file]);
        assert!(message.contains("no secret in it"), "{message}");
    }
}

/// SCENARIO: the file of a secret, or of the private key of a certificate, can be read by every user of the machine.
/// BUG: nothing said so.
/// FIX: a warning in the log, at start and when it is read again. Public keys may be read by all.
#[test]
fn a_file_with_a_secret_that_all_may_read_is_warned_of() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let certificate = Certificate::make(&folder.path().join("tls"), "warned of");
    let [_, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let secret = folder.file("secret");
    write(&secret, SECRET).expect("a file");
    let chmod =
        |file: &str, mode| set_permissions(file, Permissions::from_mode(mode)).expect("ours");
    let secrets = [&secret[..], &certificate.key];
    chmod(&public, 0o644);
    chmod(&certificate.certificate, 0o644);
    for (mode, warned) in [(0o640, false), (0o644, true)] {
        secrets.iter().for_each(|file| chmod(file, mode));
        let mut command = Server::command();
        command.stderr(Stdio::piped());
        let flags = ["--jwt-secret-file", &secret, "--jwt-key", &public, "--log", "nudged=info"];
        let flags = [&flags[..], &certificate.flags()].concat();
        let mut server = Server::start_as(command, Transport::Http1, &flags);
        let log = Log::of(&mut server);
        server.signal(Signal::HUP);
        let start = log.until("the certificate was read again");
        secrets.iter().for_each(|file| chmod(file, 0o604));
        server.signal(Signal::HUP);
        let again = log.until("the certificate was read again");
        server.signal(Signal::TERM);
        server.wait();
        let warnings = |text: &str, file: &str| {
            let lines = text.lines().filter(|line| line.contains("WARN") && line.contains(file));
            lines.filter(|line| line.contains("every user")).count()
        };
        for file in secrets {
            // At the start, and for each signal.
            assert_eq!(warnings(&start, file), if warned { 2 } else { 0 }, "{mode:o}: {start}");
            assert_eq!(warnings(&again, file), 1, "{again}");
        }
        for file in [&public, &certificate.certificate] {
            assert_eq!(warnings(&(start.clone() + &again), file), 0, "{start}{again}");
        }
    }
}
