//! What operators see: `/ops`, a page that holds no data, and what it shows beside `/metrics`. The names of orgs, topics
//! and servers are here only, behind the scope `ops`, because the metrics go to systems that many can read.

mod lists;
mod nodes;
mod page;

use http::{HeaderName, Uri};

pub(super) use self::lists::{List, Lists, Order};
pub(super) use self::nodes::nodes;
pub(super) use self::page::page;
use super::query;
use super::reject::Reject;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ops {
    Page,
    Orgs,
    Topics,
    Nodes,
}

/// Keeps pages of other origins from embedding a response (Fetch, 3.7).
pub(super) const RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Whether the path is that of one of these, or below it.
pub(super) fn is_of(path: &str) -> bool {
    path.strip_prefix("/ops").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a list is sorted by.
pub(super) fn order(uri: &Uri) -> Result<Order, Reject> {
    match query(uri, "by").as_deref() {
        None | Some("streams") => Ok(Order::Streams),
        Some("publishes") => Ok(Order::Publishes),
        Some(_) => Err(Reject::By),
    }
}
