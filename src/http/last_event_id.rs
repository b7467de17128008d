//! The position of a client that reconnects: in the field that an `EventSource` sends (WHATWG HTML, 9.2.4), or in its
//! URL, since a page cannot set that field.

use std::borrow::Cow;

use http::{HeaderMap, Uri};

use crate::config::POSITION_PARAMETERS;

const FIELD: &str = "last-event-id";

/// The position; `None` if the request says nothing of it, `Some(None)` if it says several. An empty value is none.
///
/// An `EventSource` reconnects with the URL that it was made with, and with a field that is later than the position in
/// that URL. So the URL counts only without a field. It is not known which of two fields, or of two parameters, is the
/// later one.
pub(super) fn stated_id<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<Option<Cow<'a, str>>> {
    let fields = headers.get_all(FIELD).into_iter();
    let fields = fields.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let is_known =
        |name: &str| POSITION_PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known));
    agreed(fields).or_else(|| agreed(values_of(uri, is_known)))
}

/// The values of the query parameters with such a name.
pub(super) fn values_of<'a>(
    uri: &'a Uri,
    is_name: impl Fn(&str) -> bool,
) -> impl Iterator<Item = Cow<'a, str>> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.filter(move |(name, _)| is_name(name)).map(|(_, value)| value)
}

/// The value that all have which are not empty; `None` if there is none, `Some(None)` if they differ.
pub(super) fn agreed<'a>(
    values: impl Iterator<Item = Cow<'a, str>>,
) -> Option<Option<Cow<'a, str>>> {
    let mut values = values.filter(|value| !value.trim().is_empty());
    let first = values.next()?;
    let agree = values.all(|value| value == first);
    Some(agree.then_some(first))
}
