//! curl, Python's `ssl` and Node, whose key updates are those that the server requests.

use std::process::Command;

use super::server::Records;
use super::{Answers, EVERY, Program, Site};
use crate::support::certificate::Certificate;
use crate::support::eventually;
use crate::support::programs::{CURL, NODE, OPENSSL, PYTHON, requires};

/// Prints what it receives of the stream at the first argument, a URL, and sends a byte each time; trusts the certificate
/// at the second, and logs secrets to the third.
const PYTHON_CLIENT: &str = "
import socket, ssl, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
context = ssl.create_default_context(cafile=sys.argv[2])
context.keylog_filename = sys.argv[3]
connection = socket.create_connection((url.hostname, url.port))
connection = context.wrap_socket(connection, server_hostname=url.hostname)
connection.sendall(f'GET {url.path} HTTP/1.1\\r\\nhost: t\\r\\n\\r\\n'.encode())
while data := connection.recv(4096):
    print(data.decode(), end='', flush=True)
    connection.send(b'.')
";

/// The same; Node itself logs the secrets.
const NODE_CLIENT: &str = "
const [url, certificate] = process.argv.slice(1);
const ca = require('fs').readFileSync(certificate);
require('https').get(url, { ca }, answer => answer.on('data', data => {
    process.stdout.write(data);
    answer.socket.write('.');
}));
";

/// The stream of this client goes on after each key update, and ends when it does.
fn updates_keys(answers: Answers, client: impl FnOnce(&Site, &str) -> Command) {
    let site = Site::start(Records { request_update_after: Some(EVERY), ..Records::default() });
    let mut command = client(&site, &Certificate::of_tests().certificate);
    let client = Program::start(&mut command);
    eventually("its stream is open", || client.wrote("event: connected"));
    site.updates_keys(answers, |key| client.received(key));
    drop(client);
    site.ends_as("client");
}

#[test]
fn curl_updates_its_keys() {
    requires!(OPENSSL, CURL);
    updates_keys(Answers::AllButOne, |site, certificate| {
        let mut command = Command::new("curl");
        command.args(["-sSN", "--http1.1", "--cacert", certificate, &site.tap.url()]);
        command.env("SSLKEYLOGFILE", site.key_log());
        command
    });
}

#[test]
fn python_updates_its_keys() {
    requires!(OPENSSL, PYTHON);
    updates_keys(Answers::All, |site, certificate| {
        let mut command = Command::new("python3");
        command.args(["-c", PYTHON_CLIENT, &site.tap.url(), certificate, &site.key_log()]);
        command
    });
}

#[test]
fn node_updates_its_keys() {
    requires!(OPENSSL, NODE);
    updates_keys(Answers::All, |site, certificate| {
        let mut command = Command::new("node");
        command.arg(format!("--tls-keylog={}", site.key_log()));
        command.args(["-e", NODE_CLIENT, &site.tap.url(), certificate]);
        command
    });
}
