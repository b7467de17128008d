//! Which tokens may have streams end, or re-read everything.

use super::{PUBLISH_KEY, bearer, mint, server};
use crate::support::Transport;

#[test]
fn a_command_to_streams_needs_the_scope_to_publish() {
    for transport in [Transport::Http1, Transport::H2c] {
        let server = server(transport, &["--publish-key", PUBLISH_KEY]);
        let ours = mint(&["--org", "acme", "--scope", "publish"]);
        let subscriber = mint(&["--org", "acme", "--scope", "subscribe"]);
        let other = mint(&["--org", "other", "--scope", "publish"]);
        let all = mint(&["--org", "*", "--scope", "publish"]);
        for (method, path, statuses) in [
            ("DELETE", "/api/acme/events", [202, 403, 403, 202, 202, 401]),
            ("POST", "/api/acme/reread", [202, 403, 403, 202, 202, 401]),
            ("POST", "/api/reread", [403, 403, 403, 202, 202, 401]),
        ] {
            let fields = [&ours, &subscriber, &other, &all, PUBLISH_KEY].map(bearer);
            let fields = fields.into_iter().chain([String::new()]);
            for (field, status) in fields.zip(statuses) {
                let text = format!("{method} {path} HTTP/1.1\r\nhost: t\r\n{field}\r\n");
                assert_eq!(server.request(&text).status(), status, "{method} {path} {field}");
            }
        }
    }
}
