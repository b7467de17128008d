//! What a client may receive: responses of HTTP/1 or frames of HTTP/2, one after the other.

/// Responses one after the other. The last one may be cut off: between the chunks of its body, or anywhere if
/// `anywhere` is set.
pub(super) fn check_answers(mut rest: &[u8], anywhere: bool) {
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let status = response.parse(rest).expect("a response is HTTP");
        let httparse::Status::Complete(head_len) = status else {
            return assert!(anywhere, "a head was cut");
        };
        rest = &rest[head_len..];
        let field = |name: &str| {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            field.map(|field| std::str::from_utf8(field.value).expect("our fields are text"))
        };
        let code = response.code.expect("complete");
        assert!(
            matches!(
                code,
                100 | 200
                    | 202
                    | 400
                    | 404
                    | 405
                    | 408
                    | 413
                    | 414
                    | 415
                    | 422
                    | 429
                    | 431
                    | 501
                    | 503
            ),
            "{code}"
        );
        if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            continue; // to HEAD; no body of ours begins like this
        }
        rest = match (field("content-length"), field("transfer-encoding")) {
            (Some(len), None) => {
                let len: usize = len.parse().expect("a length");
                assert!(anywhere || rest.len() >= len, "a body of {len} bytes was cut");
                &rest[len.min(rest.len())..]
            }
            (None, Some("chunked")) => after_chunks(rest, anywhere),
            (None, None) => {
                assert!(
                    code == 100
                        || code == 400
                        || code == 431
                        || code == 414
                        || response.version == Some(0),
                    "{code}"
                );
                if code == 200 { &[] } else { rest }
            }
            other => panic!("{other:?}"),
        };
    }
}

/// Frames one after the other, SETTINGS first (RFC 9113, 3.4 and 4.1); the last one may be cut off.
pub(super) fn check_frames(mut rest: &[u8]) {
    const SETTINGS: u8 = 4;
    const LAST_TYPE: u8 = 9;
    const FRAME_LEN_MAX: usize = 16_384;
    assert!(rest.get(3).is_none_or(|kind| *kind == SETTINGS), "SETTINGS comes first");
    while let [a, b, c, kind, _, reserved, ..] = *rest {
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        assert!(len <= FRAME_LEN_MAX, "a frame of {len} bytes");
        assert!(kind <= LAST_TYPE && reserved & 0x80 == 0, "no frame: {kind} {reserved}");
        rest = rest.get(9 + len..).unwrap_or_default();
    }
}

/// The bytes after a chunked body (RFC 9112, 7.1), which the end of the connection may cut off between chunks, or
/// anywhere.
fn after_chunks(mut rest: &[u8], anywhere: bool) -> &[u8] {
    while !rest.is_empty() {
        let size = httparse::parse_chunk_size(rest);
        let size = size.unwrap_or_else(|_| panic!("no chunk: {:?}", String::from_utf8_lossy(rest)));
        let (start, len) = match size {
            httparse::Status::Complete(size) => size,
            httparse::Status::Partial if anywhere => return &[],
            httparse::Status::Partial => panic!("the size of a chunk was cut"),
        };
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        if anywhere && end.saturating_add(2) > rest.len() {
            return &[];
        }
        assert_eq!(&rest[end..end + 2], b"\r\n", "a chunk has the announced size");
        rest = &rest[end + 2..];
        if len == 0 {
            break;
        }
    }
    rest
}
