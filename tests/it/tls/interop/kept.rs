//! Sessions that stay with rustls: those of TLS 1.2, and all of them with `--tls-sessions keep`. What is counted in
//! records of a stream has no effect on them.

use super::server::Records;
use super::tap::Transcript;
use super::{EVERY, Site, keys, s_client};
use crate::support::eventually;
use crate::support::programs::{OPENSSL, requires};

const ALL: Records = Records { end_after: Some(8), request_update_after: Some(EVERY), keep: false };

#[test]
fn tls_1_2_streams() {
    requires!(OPENSSL);
    let site = Site::start(ALL);
    let client = s_client::open(&site, &["-tls1_2"]);
    assert!(client.wrote("Protocol  : TLSv1.2"), "{}", client.output());
    site.publish_in_turn(&keys("e", 20), |key| client.received(key));
    assert_eq!(site.server.closed(), [].into());
    drop(client);
    site.ends_as("client");
}

#[test]
fn a_session_that_is_kept_streams_and_answers_key_updates() {
    requires!(OPENSSL);
    let site = Site::start(Records { keep: true, ..ALL });
    let mut client = s_client::open(&site, &["-tls1_3"]);
    site.publish_in_turn(&keys("e", 10), |key| client.received(key));
    client.write("K\n");
    site.tap.until("K is sent", |seen| Transcript::key_updates(&seen.client, true) == 1);
    site.publish_in_turn(&keys("f", 10), |key| client.received(key));
    eventually("K is answered", || {
        let seen = site.tap.until("the stream is recorded", |_| true);
        site.publish_in_turn(&["more".into()], |key| client.received(key));
        Transcript::key_updates(&seen.server, false) == 1
    });
    let seen = site.tap.until("the stream is recorded", |_| true);
    assert_eq!(Transcript::key_updates(&seen.server, true), 0, "rustls requests none");
    assert_eq!(site.server.closed(), [].into());
    drop(client);
    site.ends_as("client");
}
