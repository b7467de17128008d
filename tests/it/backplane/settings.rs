//! The flags: what is refused, and that no text shows the password.

use std::fs;
use std::process::{Output, Stdio};

use crate::support::Server;
use crate::support::temp_dir::TempDir;

const URL: &str = "nats://me:hunter2@127.0.0.1:4222";

const REDIS: &str = "redis://me:hunter2@127.0.0.1";

/// Why the program does not start with these flags and variables.
fn refusal(flags: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    // No address of this machine, so that a server whose settings are accepted ends too.
    command.envs(variables.iter().copied()).env("NUDGED_LISTEN", "192.0.2.1:0");
    let (code, message) = Server::refuses_to_start_as(command, flags);
    assert_eq!(code, Some(2), "{flags:?} {variables:?}: {message}");
    assert!(!message.contains("cannot listen"), "{flags:?} {variables:?}: {message}");
    assert!(!message.contains("hunter2"), "{flags:?} {variables:?}: {message}");
    message
}

/// `nudged serve --check` with these flags and variables.
fn check(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Server::command();
    command.args(["serve", "--check", "--listen", "127.0.0.1:0"]).args(flags);
    command.envs(variables.iter().copied()).stderr(Stdio::piped());
    command.output().expect("the program")
}

#[test]
fn a_bad_setting_is_refused_with_what_is_allowed() {
    let rows: [(&[&str], &str); 23] = [
        (&["--backplane", ""], "there is no scheme"),
        (&["--backplane", "me:hunter2@host"], "there is no scheme"),
        (&["--backplane", "kafka://:hunter2@host"], "neither nats nor tls"),
        (&["--backplane", REDIS, "--backplane-trust-disk"], "a failover may lose more"),
        (&["--backplane", REDIS, "--backplane-replicas", "3"], "are configured there"),
        (
            &["--backplane", REDIS, "--backplane-ca", "/nonexistent/ca.pem"],
            "does nothing without --backplane tls:// or rediss://",
        ),
        (
            &["--backplane", "rediss://h", "--backplane-ca", "/nonexistent/ca.pem"],
            "nudged: --backplane-ca /nonexistent/ca.pem: No such file",
        ),
        (&["--backplane", "nats://me:hunter2"], "its server 1 is no host with a port"),
        (&["--backplane", "nats://a,b:0"], "its server 2 is no host with a port"),
        (&["--backplane", "nats://me:hunter2@a@b"], "in it @ is written %40"),
        (&["--backplane", "nats://me:hunter2/x@b"], "/ is written %2F"),
        (&["--backplane", URL, "--backplane-replicas", "2"], "allowed is 1, 3 or 5"),
        (&["--backplane", URL, "--backplane-log", "a.b"], "a log's name is 1 to 32 of"),
        (&["--backplane", URL, "--backplane-log", ""], "a log's name is 1 to 32 of"),
        (&["--backplane", URL, "--backplane-linger", "2s"], "allowed is 0s to 1s"),
        (&["--backplane", URL, "--backplane-timeout", "1ms"], "allowed is 100ms to 1m"),
        (
            &["--backplane", URL, "--backplane-tail-bytes", "1000"],
            "allowed is a whole number of at least 1048576",
        ),
        (&["--backplane", URL, "--publish-bytes", "1048576"], "nudged: --publish-bytes 1048576 is"),
        (
            &["--backplane", URL, "--backplane-ca", "/nonexistent/ca.pem"],
            "does nothing without --backplane tls://",
        ),
        (
            &["--backplane", "tls://h", "--backplane-ca", "/nonexistent/ca.pem"],
            "nudged: --backplane-ca /nonexistent/ca.pem: No such file",
        ),
        (
            &["--backplane", "tls://h", "--backplane-ca=-----BEGIN hunter2"],
            "takes the name of a file",
        ),
        (&["--backplane", "tls://h", "--backplane-ca", "/dev/null"], "no regular file"),
        // The rest of an URL with a space.
        (&["--backplane", "nats://me:a", "hunter2@host"], "not shown"),
    ];
    for (flags, expected) in rows {
        let message = refusal(flags, &[]);
        assert!(message.contains(expected), "{flags:?}: {message}");
    }
    let message = refusal(&[], &[("NUDGED_BACKPLANE", "nats://me:hunter2")]);
    assert!(message.contains("--backplane: its server 1"), "{message}");
}

#[test]
fn a_setting_of_the_log_does_nothing_without_one() {
    for (flag, value) in [
        ("--backplane-ca", "ca.pem"),
        ("--backplane-log", "other"),
        ("--backplane-replicas", "3"),
        ("--backplane-linger", "5ms"),
        ("--backplane-tail-bytes", "67108864"),
        ("--backplane-timeout", "5s"),
        ("--backplane-trust-disk", ""),
        ("--unready-when-cut-off", ""),
    ] {
        let flags = if value.is_empty() { vec![flag] } else { vec![flag, value] };
        let variable = format!("NUDGED_{}", flag[2..].replace('-', "_").to_uppercase());
        let value = if value.is_empty() { "true" } else { value };
        for message in [refusal(&flags, &[]), refusal(&[], &[(&variable, value)])] {
            assert!(message.contains(flag), "{flag}: {message}");
            assert!(message.contains("does nothing without --backplane"), "{flag}: {message}");
        }
    }
}

#[test]
fn a_check_names_the_log_and_connects_to_nothing() {
    let variables = [("NUDGED_BACKPLANE", URL), ("NUDGED_BACKPLANE_LOG", "blue")];
    let output = check(&["--publish-bytes", "523776"], &variables);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("the log blue at nats://127.0.0.1:4222\n"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    let none = String::from_utf8(check(&[], &[]).stdout).expect("text");
    assert!(!none.contains("the log"), "{none}");

    let dir = TempDir::new();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, "not a certificate").expect("a file");
    let ca = ca.to_str().expect("UTF-8");
    let output = check(&["--backplane", "tls://host", "--backplane-ca", ca], &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("no certificate in PEM"), "{message}");
}

#[test]
fn the_help_shows_no_password() {
    let mut command = Server::command();
    command.args(["serve", "--help"]).env("NUDGED_BACKPLANE", URL);
    let help = command.output().expect("the program");
    let help = String::from_utf8(help.stdout).expect("text");
    assert!(help.contains("NUDGED_BACKPLANE]"), "{help}");
    assert!(!help.contains("hunter2"), "{help}");
}
