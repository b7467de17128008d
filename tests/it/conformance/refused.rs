//! Parts of messages that are refused.

pub(super) const BODY: &str = r#"{"keys":["a"]}"#;
pub(super) const HOST: &str = "host: t";
pub(super) const LENGTH: &str = "content-length: 14";
pub(super) const CHUNKED: &str = "transfer-encoding: chunked";

/// Field lines that are refused, and the status.
pub(super) const REFUSED: [(u16, &[&str]); 45] = [
    // The length of the body (6.2, 6.3). For the largest number the library responds "too large".
    (400, &[HOST, LENGTH, "content-length: 13"]),
    (400, &[HOST, "content-length: 14, 13"]),
    (400, &[HOST, "content-length: 14, 14"]),
    (400, &[HOST, "content-length: +14"]),
    (400, &[HOST, "content-length: -14"]),
    (400, &[HOST, "content-length: 0xe"]),
    (400, &[HOST, "content-length: 1 4"]),
    (400, &[HOST, "content-length:"]),
    (400, &[HOST, "content-length: 18446744073709551630"]),
    (431, &[HOST, "content-length: 18446744073709551615"]),
    // Transfer codings (6.1, 7): chunked must be last, must occur once, and is the only one supported.
    (400, &[HOST, "transfer-encoding: gzip"]),
    (400, &[HOST, "transfer-encoding: xchunked"]),
    (400, &[HOST, "transfer-encoding: \x0bchunked"]),
    (400, &[HOST, "transfer-encoding: chunked;a=b"]),
    (400, &[HOST, "transfer-encoding: chunked, gzip"]),
    (400, &[HOST, "transfer-encoding:"]),
    (400, &[HOST, CHUNKED, "transfer-encoding: identity"]),
    (400, &[HOST, LENGTH, "transfer-encoding: identity"]),
    (501, &[HOST, "transfer-encoding: gzip, chunked"]),
    (501, &[HOST, "transfer-encoding: chunked, chunked"]),
    (501, &[HOST, "transfer-encoding: identity", CHUNKED]),
    (501, &[HOST, CHUNKED, CHUNKED]),
    // Continued lines (5.2), and whitespace where none is allowed (2.2, 5.1).
    (400, &[HOST, LENGTH, "x: a", " b"]),
    (400, &[HOST, LENGTH, "x: a", "\ttransfer-encoding: chunked"]),
    (400, &[" x: a", HOST, LENGTH]),
    (400, &[HOST, "content-length : 14"]),
    (400, &[HOST, "content-length\t: 14"]),
    (400, &[HOST, LENGTH, "transfer-encoding : chunked"]),
    // Names and values of fields (5; RFC 9110, 5.5), a bare CR (2.2).
    (400, &[HOST, LENGTH, "x: a\0b"]),
    (400, &[HOST, LENGTH, "x\0: a"]),
    (400, &[HOST, LENGTH, "x: a\rb"]),
    (400, &[HOST, LENGTH, "x: a\rtransfer-encoding: chunked"]),
    (400, &[HOST, LENGTH, "x: a\x01b"]),
    (400, &[HOST, LENGTH, "x: a\x7fb"]),
    (400, &[HOST, LENGTH, ": a"]),
    (400, &[HOST, LENGTH, "x"]),
    (400, &[HOST, LENGTH, "é: a"]),
    // The host (3.2).
    (400, &[LENGTH]),
    (400, &[HOST, HOST, LENGTH]),
    (400, &[HOST, "host: other", LENGTH]),
    (400, &["host: a b", LENGTH]),
    (400, &["host: a, b", LENGTH]),
    (400, &["host: a/b", LENGTH]),
    (400, &["host: user@a", LENGTH]),
    (400, &["host: é", LENGTH]),
];

/// Bodies in chunks that are refused (7.1).
pub(super) const REFUSED_CHUNKS: [&str; 24] = [
    // The size.
    "g\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "0xe\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "-e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "+e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    " e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "0_e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "e e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "1000000000000000e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    ";a\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    // A size that differs from that of the data.
    "d\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "f\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    // Line ends that are not CRLF.
    "e\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "e\r{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "e\r\n{\"keys\":[\"a\"]}\n0\r\n\r\n",
    "e\r\n{\"keys\":[\"a\"]}0\r\n\r\n",
    "e\r\n{\"keys\":[\"a\"]}\r\n0\n\n",
    "e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\n",
    "e;a\n=b\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    "e;a\r=b\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n",
    // Trailers: refused, even well-formed ones.
    "e\r\n{\"keys\":[\"a\"]}\r\n0\r\nx: a\r\n\r\n",
    "e\r\n{\"keys\":[\"a\"]}\r\n0\r\nx: a\n\n",
    "e\r\n{\"keys\":[\"a\"]}\r\n0\r\nx : a\r\n\r\n",
    "e\r\n{\"keys\":[\"a\"]}\r\n0\r\ncontent-length: 14\r\n\r\n",
];

/// First lines that are refused (3).
pub(super) const REFUSED_LINES: [&str; 9] = [
    "POST /api/acme/events",
    "POST /api/acme/events HTTP/1.2",
    "POST /api/acme/events HTTP/3.0",
    "POST /api/acme/events http/1.1",
    "POST /api/acme/events  HTTP/1.1",
    "POST  /api/acme/events HTTP/1.1",
    "POST\t/api/acme/events HTTP/1.1",
    "POST /api/acme/ev ents HTTP/1.1",
    "P@ST /api/acme/events HTTP/1.1",
];

/// Targets that are refused with each of these methods (3.2; RFC 9110, 4.2).
pub(super) const REFUSED_TARGETS: [(&[&str], &str); 13] = [
    // Schemes that are not ours.
    (&["POST", "GET", "OPTIONS"], "ftp://t/api/acme/events"),
    (&["POST", "GET"], "http+unix://t/api/acme/events"),
    (&["POST", "GET"], "a://t/api/acme/events"),
    // A user, which can disguise the host; and no host.
    (&["POST", "GET", "OPTIONS"], "http://user@t/api/acme/events"),
    (&["POST", "GET"], "https://user:word@t:80/api/acme/events"),
    (&["POST", "GET"], "http://@t/api/acme/events"),
    (&["CONNECT"], "user@t:80"),
    (&["POST", "GET"], "http://:80/api/acme/events"),
    (&["POST", "GET"], "http:///api/acme/events"),
    // The forms reserved for CONNECT and for OPTIONS.
    (&["POST", "GET", "OPTIONS"], "t:80"),
    (&["POST", "GET", "CONNECT"], "*"),
    // No valid form.
    (&["POST", "GET"], "api/acme/events"),
    (&["POST", "GET"], "?x"),
];
