//! Refuses HTTP/1 requests that a server has to refuse (RFC 9112) and hyper accepts. The whole table is in
//! `tests/it/conformance`.

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::reject::Reject;

/// Checks a request that hyper has accepted. HTTP/2 has framing of its own and needs none of this.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Reject> {
    let (version, headers) = (request.version(), request.headers());
    if version > Version::HTTP_11 {
        return Ok(());
    }
    check_target(request.method(), request.uri())?;
    check_host(version, headers)?;
    check_coding(headers)
}

/// Whether the body is chunked.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

/// A target is a path, or an http or https URI with a host and no user: behind a proxy that ends TLS, it may
/// be https. A host and a port are valid for CONNECT only, an asterisk for OPTIONS only (RFC 9112, 3.2;
/// RFC 9110, 4.2). A fragment is invalid, but [`Uri`] drops it, and hyper does not report the target as it
/// was sent.
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

/// Exactly one valid `host`; HTTP/1.0 may have none (RFC 9112, 3.2).
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Reject> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        _ => Err(Reject::Host),
    }
}

/// An empty `host` is valid: it is that of a target without an authority (RFC 9112, 3.2).
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || !bytes.contains(&b'@') && Authority::try_from(bytes).is_ok()
}

/// `chunked`, and nothing else (RFC 9112, 6.1). hyper looks at the last coding only.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A target has no fragment (RFC 9112, 3.2). If this fails, fragments have become visible, and have to be refused.
    #[test]
    fn a_fragment_is_removed_before_it_could_be_refused() {
        for target in ["/api/acme/events?x#y", "/api/acme/events?x#", "/api/acme/events?x#y?z"] {
            let uri = Uri::from_maybe_shared(bytes::Bytes::from_static(target.as_bytes()));
            assert_eq!(uri.expect(target).to_string(), "/api/acme/events?x");
        }
    }
}
