//! Parses the head of a request that opens a stream, so that a connection which is handed over at once needs
//! no state of hyper's first.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};

/// The most header fields of such a request; hyper accepts 100.
const FIELDS_MAX: usize = 64;

/// Fields of requests that are left to hyper: they announce a body, or change the protocol.
const LEFT_TO_HYPER: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT, header::UPGRADE];

/// Parses a complete head of a `GET` without a body exactly as hyper does. Returns the request and the length
/// of its head in bytes. `None` if it is anything else, incomplete or invalid, which hyper then decides.
pub(super) fn parse(bytes: &Bytes) -> Option<(Request<()>, usize)> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(bytes, &mut fields).ok()?;
    let httparse::Status::Complete(length) = parsed else { return None };
    if head.method != Some(Method::GET.as_str()) {
        return None;
    }
    let mut request = Request::new(());
    *request.version_mut() = if head.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(head.path?.as_bytes())).ok()?;
    let headers = request.headers_mut();
    headers.reserve(head.headers.len());
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if LEFT_TO_HYPER.contains(&name) {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    Some((request, length))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::future::{Future, pending};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use http::Response;
    use http::request::Parts;
    use http_body_util::Full;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use proptest::sample::select;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// The request that hyper parses from these bytes, if they have a complete head.
    fn hyper_parses(bytes: &[u8]) -> Option<Parts> {
        let read = RefCell::new(None);
        let service = service_fn(|request: Request<_>| {
            read.replace(Some(request.into_parts().0));
            pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(pin!(client.write_all(bytes)).poll(cx).is_ready(), "the pipe holds the bytes");
        _ = pin!(http1::Builder::new().serve_connection(TokioIo::new(server), service)).poll(cx);
        read.take()
    }

    fn parse_text(text: &str) -> Option<(Request<()>, usize)> {
        parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn requests_of_curl_and_browsers_are_parsed() {
        let curl = "GET /api/acme/events HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/7.88.1\r\n\
            Accept: */*\r\n\r\n";
        let browser = "GET /api/acme/events?token=x HTTP/1.1\r\nHost: nudged.example\r\n\
            Connection: keep-alive\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\
            Last-Event-ID: 0123456789abcdef-7\r\nCookie: nudged_token=y\r\n\
            Accept-Encoding: gzip, deflate, br\r\n\r\n";
        let old = "GET http://h/api/acme/events HTTP/1.0\r\n\r\n";
        for text in [curl, browser, old] {
            let (_, length) = parse_text(&format!("{text}more")).expect(text);
            assert_eq!(length, text.len());
        }
    }

    /// A body, an expectation, an upgrade, another method, an incomplete head, too many fields.
    #[test]
    fn any_other_request_is_handed_to_hyper() {
        let line = "GET /api/acme/events HTTP/1.1\r\n";
        for fields in
            ["content-length: 0", "Transfer-Encoding: chunked", "expect: x", "UPGRADE: h2c"]
        {
            assert!(
                parse_text(&format!("{line}host: h\r\n{fields}\r\n\r\n")).is_none(),
                "{fields}"
            );
        }
        assert!(parse_text(&format!("{line}host: h\r\n")).is_none());
        assert!(parse_text("HEAD /api/acme/events HTTP/1.1\r\nhost: h\r\n\r\n").is_none());
        assert!(parse_text(&format!("{line}{}\r\n", "a: b\r\n".repeat(65))).is_none());
    }

    const LINES: [&str; 7] = [
        "GET /api/acme/events HTTP/1.1",
        "GET /api/acme/events?last_event_id=%20 HTTP/1.0",
        "GET http://user@host:80/a?b#c HTTP/1.1",
        "GET  /a HTTP/1.1",
        "GET * HTTP/1.1",
        "get /a HTTP/1.1",
        "GET /\u{e9} HTTP/1.2",
    ];
    const NAMES: [&str; 8] =
        ["host", "HOST", "Cookie", "x-\u{e9}", "a b", "", "Content-Length", "te"];
    const SEPARATORS: [&str; 4] = [": ", ":", " : ", ":\t "];
    const VALUES: [&str; 7] =
        ["h", "", "  two  words \t", "\u{e9}", "\u{1}", "a\u{0}b", "a,b;c=\"d\""];
    const ENDS: [&str; 4] = ["\r\n", "\n", "\r", "\r\n "];

    proptest! {
        /// hyper parses the same request from the same bytes, and none from fewer.
        #[test]
        fn a_head_is_parsed_as_hyper_parses_it(
            before in select(vec!["", "", "", "\r\n", "\n", " "]),
            line in select(LINES.to_vec()),
            fields in prop::collection::vec(
                (select(NAMES.to_vec()), select(SEPARATORS.to_vec()), select(VALUES.to_vec())),
                0..6,
            ),
            ends in prop::collection::vec(prop_oneof![8 => Just(ENDS[0]), 1 => select(ENDS.to_vec())], 8),
            after in select(vec!["", "", "GET /"]),
        ) {
            let mut text = format!("{before}{line}{}", ends[0]);
            for ((name, separator, value), end) in fields.iter().zip(&ends[1..]) {
                text.push_str(&format!("{name}{separator}{value}{end}"));
            }
            text.push_str(ends[7]);
            text.push_str(after);
            if let Some((request, length)) = parse_text(&text) {
                let (ours, _) = request.into_parts();
                let theirs = hyper_parses(&text.as_bytes()[..length]).expect("hyper parses it");
                prop_assert_eq!(&ours.method, &theirs.method);
                prop_assert_eq!(&ours.uri, &theirs.uri);
                prop_assert_eq!(ours.version, theirs.version);
                prop_assert_eq!(&ours.headers, &theirs.headers);
                prop_assert!(hyper_parses(&text.as_bytes()[..length - 1]).is_none());
            }
        }
    }
}
