//! The two formats of the log.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::support::server::Signal;
use crate::support::{Server, Transport};

/// Sends a server without a certificate SIGHUP and SIGTERM, and returns its log.
fn log_of(args: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    command.envs(environment.iter().copied()).stderr(Stdio::piped());
    let mut server = Server::start_as(command, Transport::Http1, args);
    let mut log = server.take_stderr();
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    server.wait();
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    text
}

const MESSAGE: &str = "SIGHUP: there is no certificate to read again";

#[test]
fn a_log_line_is_a_json_object_if_configured() {
    // Causes a second line, which has a field.
    let many = ["--connections", "90000000"];
    for (flags, environment) in
        [(&["--log-format", "json"][..], &[][..]), (&[], &[("NUDGED_LOG_FORMAT", "json")])]
    {
        let log = log_of(&[&many, flags].concat(), environment);
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 2, "{log}");
        for line in &lines {
            assert_eq!(line["level"], "WARN", "{line}");
            let target = line["target"].as_str().expect("a target");
            assert!(target.starts_with("nudged"), "{line}");
            let time = line["timestamp"].as_str().expect("a time");
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            assert!(line["message"].is_string(), "{line}");
        }
        assert_eq!(lines[0]["connections_max"], 90_000_000);
        assert_eq!(lines[1]["message"], MESSAGE);
    }
}

#[test]
fn a_log_line_is_text_by_default() {
    for flags in [&[][..], &["--log-format", "text"]] {
        let log = log_of(flags, &[]);
        assert!(log.ends_with(&format!(" WARN nudged: {MESSAGE}\n")), "{log}");
    }
    let (code, log) = Server::refuses_to_start(&["--log-format", "xml"]);
    assert_eq!(code, Some(2));
    assert!(log.contains("[possible values: text, json]"), "{log}");
}
