//! Authentication: valid and invalid tokens, over real connections.

mod access;
mod commands;
mod credentials;
mod foreign;
mod hidden;
mod key_server;
mod key_sets;
mod keys;
mod no_keys_yet;
mod origins;
mod reload;
mod rotation;
mod secrecy;
mod secret_files;
mod until;

use std::process::Command;
use std::time::SystemTime;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::Value;

use crate::support::temp_dir::TempDir;
use crate::support::{Answer, Server, Transport};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const PUBLISH_KEY: &str = "publish-key-of-the-test";

fn server(transport: Transport, more: &[&str]) -> Server {
    Server::start_on(transport, &[&["--jwt-secret", SECRET][..], more].concat())
}

/// A token from `nudged token`, signed with the secret.
fn mint(args: &[&str]) -> String {
    mint_with(&[&["--secret", SECRET], args].concat())
}

/// A token from `nudged token` with these arguments.
fn mint_with(args: &[&str]) -> String {
    let output = Server::command().arg("token").args(args).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("ASCII").trim().to_owned()
}

/// A token with arbitrary claims, which `nudged token` would not mint.
pub(crate) fn sign(secret: &[u8], claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::default(), claims, &key).expect("it signs")
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Makes a key pair with `openssl`; returns the files of the private and of the public key.
fn key_pair(folder: &TempDir, name: &str, options: &[&str]) -> [String; 2] {
    let file = |what: &str| folder.file(&format!("{name}.{what}.pem"));
    let (private, public) = (file("private"), file("public"));
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().expect("openssl is installed");
        assert!(output.status.success(), "{output:?}");
    };
    openssl(&[&["genpkey", "-out", &private], options].concat());
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    [private, public]
}

/// The header line with a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn get_with(server: &Server, path: &str, headers: &str) -> Answer {
    server.request(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n{headers}\r\n"))
}

fn status_of(server: &Server, token: &str) -> u16 {
    get_with(server, "/api/acme/events", &bearer(token)).status()
}

/// Publishes with this token or key.
fn publish(server: &Server, token: &str) -> Answer {
    let body = r#"{"keys":["a"]}"#;
    server.request(&format!(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{}\
         content-length: {}\r\n\r\n{body}",
        bearer(token),
        body.len()
    ))
}

/// The status of a response that may be a stream.
fn status_of_stream(server: &Server, token: &str) -> u16 {
    let mut client = server.connect();
    client.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{}\r\n", bearer(token)));
    client.read_head().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
