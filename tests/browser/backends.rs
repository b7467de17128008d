//! The files for backends, `server.js`, `server.py` and `server.go`, against the server, and against scripted ones.

mod backend;
mod checks;
mod outages;
mod publishing;
mod queue;
mod script;
mod tickets;

use crate::support::Server;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PUBLISH_KEY: &str = "publish-key-of-the-test";

/// A server that takes the publish key, and tickets.
fn server(more: &[&str]) -> Server {
    // No keepalive comes between the events, however slow the machine is.
    let keys = [
        "--jwt-secret",
        SECRET,
        "--publish-key",
        PUBLISH_KEY,
        "--coalesce",
        "0",
        "--keepalive",
        "1h",
    ];
    Server::start(&[&keys[..], more].concat())
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// The header line of a member of the org.
fn member(org: &str) -> String {
    let exp = jsonwebtoken::get_current_timestamp() + 600;
    let claims = serde_json::json!({ "org": org, "scope": "subscribe", "exp": exp });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key);
    format!("authorization: Bearer {}\r\n", token.expect("it signs"))
}
