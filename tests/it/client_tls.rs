//! The command line's clients over TLS: which certificates they trust, and what they report about others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use nudged::client::{Endpoint, Verify};

use crate::support::programs::{OPENSSL, requires};
use crate::support::scripted_server::{
    ScriptedServer, answer, error_text, listening, no_content, publishing, server, stream,
};
use crate::support::tls_proxy::TlsProxy;

fn secured(proxy: &TlsProxy, verify: Verify) -> Endpoint {
    Endpoint { url: proxy.url().parse().expect("a URL"), token: None, verify }
}

#[test]
fn both_clients_work_over_tls() {
    requires!(OPENSSL);
    let published = answer("202 Accepted", "application/json", r#"{"id":"e-7"}"#);
    let script = ScriptedServer::play([published, stream("retry: 10\ndata: x\n\n"), no_content()]);
    let proxy = TlsProxy::start("IP:127.0.0.1", script.address);
    let (result, out) = publishing(secured(&proxy, proxy.trust()), &["posts"]);
    result.expect("accepted");
    assert_eq!(out, "e-7\n");
    let listened = listening(secured(&proxy, Verify::None), false, None);
    assert_eq!(listened.events, "message x\n");
    let first = listened.notes.lines().next().expect("a note");
    let address = proxy.address;
    assert_eq!(
        first,
        format!("listening to acme at https://{address} (its certificate is not checked)")
    );
    let host = format!("\r\nhost: {address}\r\n");
    assert!(script.requests().iter().all(|request| request.contains(&host)));
}

#[test]
fn an_untrusted_certificate_is_reported_with_advice() {
    requires!(OPENSSL);
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = TlsProxy::start("IP:127.0.0.1", closed);
    let elsewhere = TlsProxy::start("DNS:example.org", closed);
    for (server, wrong, advice) in [
        (
            secured(&proxy, elsewhere.trust()),
            "invalid peer certificate",
            "name its authority with --ca FILE",
        ),
        (secured(&elsewhere, elsewhere.trust()), "not valid for name", "--insecure"),
    ] {
        let address = server.url.to_string().replace("https://", "");
        let messages = [
            error_text(publishing(server.clone(), &["posts"]).0),
            // Retrying would not help, so `listen` ends too.
            error_text(listening(server, false, None).result),
        ];
        for message in messages {
            assert!(message.starts_with(&address), "{message}");
            assert!(message.contains(wrong) && message.contains(advice), "{message}");
        }
    }
}

/// `openssl req -x509` makes such certificates by default: an authority's and a server's in one.
#[test]
fn a_certificate_given_as_its_own_authority_is_trusted_for_its_names() {
    requires!(OPENSSL);
    let script =
        ScriptedServer::play([answer("202 Accepted", "application/json", r#"{"id":"e-7"}"#)]);
    let proxy = TlsProxy::start_as_authority("IP:127.0.0.1", script.address);
    let (result, out) = publishing(secured(&proxy, proxy.trust()), &["posts"]);
    result.expect("accepted");
    assert_eq!(out, "e-7\n");
    assert_eq!(script.requests().len(), 1);

    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let elsewhere = TlsProxy::start_as_authority("DNS:example.org", closed);
    for (proxy, trust, wrong) in [
        (&elsewhere, elsewhere.trust(), "not valid for name"),
        (&proxy, elsewhere.trust(), "name this certificate itself with --ca FILE"),
    ] {
        let message = error_text(publishing(secured(proxy, trust), &["posts"]).0);
        assert!(message.contains(wrong), "{message}");
    }
}

#[test]
fn https_to_a_plain_port_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let peer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a connection");
        peer.write_all(answer("400 Bad Request", "text/plain", "").as_bytes()).expect("written");
        _ = peer.read(&mut [0; 4096]);
    });
    let server = Endpoint { url: url.parse().expect("a URL"), token: None, verify: Verify::None };
    let message = error_text(publishing(server, &["posts"]).0);
    assert!(message.contains("if it does not speak TLS, write http://"), "{message}");
    peer.join().expect("no panic");
}

#[test]
fn http_to_a_tls_port_is_reported() {
    requires!(OPENSSL);
    let proxy = TlsProxy::start("IP:127.0.0.1", SocketAddr::from(([127, 0, 0, 1], 1)));
    let message = error_text(publishing(server(proxy.address, None), &["posts"]).0);
    assert!(message.ends_with("if it speaks TLS, write https://"), "{message}");
}

#[test]
fn a_file_without_certificates_is_refused_as_authority() {
    for (file, wrong) in [("/nowhere", "No such file"), ("Cargo.toml", "no certificate in PEM")] {
        let why = Verify::authorities(file.as_ref()).expect_err(file);
        assert!(why.contains(wrong), "{why}");
    }
}
