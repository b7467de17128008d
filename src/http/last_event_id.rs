//! The position that a client says it has reached: in the field that an `EventSource` sends (WHATWG HTML, 9.2.4), or in
//! its URL, since a page cannot set that field.

use std::borrow::Cow;

use http::{HeaderMap, Uri};

/// The parameter, in any case: as most servers spell it, as polyfills do (`lastEventId`), and as Mercure does
/// (`Last-Event-ID`, `lastEventID`).
const PARAMETERS: [&str; 3] = ["last_event_id", "lasteventid", "last-event-id"];

const FIELD: &str = "last-event-id";

/// What the client says, if it says one thing only. What is empty says nothing.
///
/// An `EventSource` reconnects with the URL that it was made with, and with a field that is later than the position in
/// that URL. So the URL counts only without a field. It is not known which of two fields, or of two parameters, is the
/// later one.
pub(super) fn last_event_id<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<Cow<'a, str>> {
    let fields = headers.get_all(FIELD).into_iter();
    let fields = fields.map(|value| String::from_utf8_lossy(value.as_bytes()));
    agreed(fields).or_else(|| agreed(parameters(uri)))?
}

/// The values of the parameter.
fn parameters(uri: &Uri) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let is_known = |name: &str| PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known));
    pairs.filter(move |(name, _)| is_known(name)).map(|(_, value)| value)
}

/// `None` if no value says anything, `Some(None)` if they contradict each other.
fn agreed<'a>(values: impl Iterator<Item = Cow<'a, str>>) -> Option<Option<Cow<'a, str>>> {
    let mut values = values.filter(|value| !value.trim().is_empty());
    let first = values.next()?;
    let agree = values.all(|value| value == first);
    Some(agree.then_some(first))
}
