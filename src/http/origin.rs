//! Which page makes a request: one of this server's own origin, of one that is listed, or a foreign one.

use http::{HeaderMap, HeaderValue, Request, Uri, header};

use crate::config::CorsPolicy;

/// Set by browsers, and by no page (Fetch Metadata Request Headers).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whether the request is that of a page whose origin is neither the server's own nor listed. A client that is no
/// browser names no origin.
pub(super) fn is_foreign<B>(request: &Request<B>, cors: &CorsPolicy) -> bool {
    let headers = request.headers();
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, another) = (origins.next(), origins.next());
    if another.is_some() {
        return true;
    }
    if origin.is_some_and(|origin| cors.takes_cookies_of(origin)) {
        return false;
    }
    // The browser knows the page's URL and that of the request, and a proxy may have changed the host.
    match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(b"same-origin") => false,
        Some(b"none") | None => {
            origin.is_some_and(|origin| !is_own(origin, request.uri(), headers))
        }
        Some(_) => true,
    }
}

/// Whether the origin has the host and the port that the request is for. Behind a proxy that ends TLS its scheme is not
/// known, so a host without a port has that of the origin's scheme.
fn is_own(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let parse = |value: &HeaderValue| Uri::try_from(value.as_bytes()).ok();
    let Some(origin) = parse(origin) else { return false };
    let scheme_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let host =
        || headers.get(header::HOST).and_then(parse).and_then(|host| host.into_parts().authority);
    let ours = uri.authority().cloned().or_else(host);
    origin.authority().zip(ours.as_ref()).is_some_and(|(theirs, ours)| {
        let [one, other] = [theirs, ours].map(|side| side.port_u16().unwrap_or(scheme_port));
        theirs.host().eq_ignore_ascii_case(ours.host()) && one == other
    })
}
