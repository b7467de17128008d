//! What a line of the log looks like, for people and for machines.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::support::server::Signal;
use crate::support::{Server, Transport};

/// What the server says by its log until it has ended, having been asked for a certificate it has not.
fn log_of(args: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Server::command();
    command.envs(environment.iter().copied()).stderr(Stdio::piped());
    let mut server = Server::start_as(command, Transport::Http1, args);
    let mut log = server.take_stderr();
    server.signal(Signal::HUP);
    server.signal(Signal::TERM);
    server.wait();
    let mut said = String::new();
    log.read_to_string(&mut said).expect("text");
    said
}

const SAID: &str = "SIGHUP: there is no certificate to read again";

#[test]
fn a_log_line_is_a_json_object_if_configured() {
    // A second line, which has fields of its own.
    let many = ["--connections", "90000000"];
    for (flags, environment) in
        [(&["--log-format", "json"][..], &[][..]), (&[], &[("NUDGED_LOG_FORMAT", "json")])]
    {
        let said = log_of(&[&many, flags].concat(), environment);
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 2, "{said}");
        for line in &lines {
            assert_eq!(line["level"], "WARN", "{line}");
            let target = line["target"].as_str().expect("a target");
            assert!(target.starts_with("nudged"), "{line}");
            let time = line["timestamp"].as_str().expect("a time");
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            assert!(line["message"].is_string(), "{line}");
        }
        assert_eq!(lines[0]["connections_max"], 90_000_000);
        assert_eq!(lines[1]["message"], SAID);
    }
}

#[test]
fn a_log_line_is_text_by_default() {
    for flags in [&[][..], &["--log-format", "text"]] {
        let said = log_of(flags, &[]);
        assert!(said.ends_with(&format!(" WARN nudged: {SAID}\n")), "{said}");
    }
    let (code, said) = Server::refuses_to_start(&["--log-format", "xml"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("[possible values: text, json]"), "{said}");
}
