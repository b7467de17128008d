//! Where hyper is laxer with an HTTP/1 request than a server has to be (RFC 9112). `tests/it/conformance.rs` has
//! the whole table.

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::reject::Reject;

/// Refuses what hyper lets through. HTTP/2 frames its requests itself.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Reject> {
    let (version, headers) = (request.version(), request.headers());
    if version > Version::HTTP_11 {
        return Ok(());
    }
    check_target(request.method(), request.uri())?;
    check_host(version, headers)?;
    check_coding(headers)
}

/// Whether its body comes in chunks.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

/// A path, or a URI that may be ours: a proxy that ends TLS for us may say https. A host and a port are
/// for CONNECT, an asterisk is for OPTIONS (RFC 9112, 3.2; RFC 9110, 4.2). Nobody sees a fragment: the
/// library drops it.
fn check_target(method: &Method, uri: &Uri) -> Result<(), Reject> {
    let is_ours = match (uri.authority(), uri.scheme()) {
        (None, _) => uri.path() != "*" || method == Method::OPTIONS,
        (Some(authority), scheme) => {
            let may_be = match scheme {
                Some(scheme) => *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS,
                None => method == Method::CONNECT,
            };
            may_be && !authority.host().is_empty() && !authority.as_str().contains('@')
        }
    };
    if is_ours { Ok(()) } else { Err(Reject::Target) }
}

/// One host, and a possible one; none is for HTTP/1.0 (RFC 9112, 3.2).
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Reject> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(Reject::Host),
    }
}

/// Empty is what a target without an authority has.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || !bytes.contains(&b'@') && Authority::try_from(bytes).is_ok()
}

/// Chunked, and once (RFC 9112, 6.1). hyper looks at the last coding only, and leaves the others to us.
fn check_coding(headers: &HeaderMap) -> Result<(), Reject> {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Reject::Coding),
    }
}
