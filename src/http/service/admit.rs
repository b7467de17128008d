//! What a connection may have, by the address that it came to and by its place.

use http::{HeaderValue, Response, header};

use super::Service;
use crate::admission::{Admitted, Entrance};
use crate::http::reject::Reject;
use crate::http::route::Route;
use crate::metrics::Limit;

impl Service {
    /// Whether the address that the request came to serves this.
    pub(super) fn check_entrance(&self, route: Route) -> Result<Route, Reject> {
        let is_public = !self.admitted.is_internal();
        let has_internal = !self.app.config.internal_listen.is_empty();
        let is_for_strangers = match route {
            Route::Stream { .. }
            | Route::StreamHead { .. }
            | Route::TopicStream { .. }
            | Route::TopicStreamHead { .. }
            | Route::Live
            | Route::Ready
            | Route::Script(_) => true,
            Route::Publish { .. }
            | Route::PublishBatch
            | Route::PublishMessage { .. }
            | Route::CloseTopic { .. }
            | Route::EndMembers { .. }
            | Route::Reread { .. }
            | Route::RereadAll
            | Route::Position { .. }
            | Route::Metrics
            | Route::Ops(_) => false,
        };
        if is_public && has_internal && !is_for_strangers {
            return Err(Reject::Internal);
        }
        Ok(route)
    }

    /// Probes, metrics, the page for operators, scripts and positions are served even at the connection limit, and publishes if their credential
    /// is good.
    pub(super) fn check_room(&self, route: Route) -> Result<Route, Reject> {
        match route {
            Route::Stream { .. }
            | Route::StreamHead { .. }
            | Route::TopicStream { .. }
            | Route::TopicStreamHead { .. } => {
                self.admitted.settle().map(|()| route).map_err(|limit| self.full(limit))
            }
            Route::Live
            | Route::Ready
            | Route::Metrics
            | Route::Ops(_)
            | Route::Script(_)
            | Route::Publish { .. }
            | Route::PublishBatch
            | Route::PublishMessage { .. }
            | Route::CloseTopic { .. }
            | Route::EndMembers { .. }
            | Route::Reread { .. }
            | Route::RereadAll
            | Route::Position { .. } => Ok(route),
        }
    }

    pub(super) fn full(&self, limit: Limit) -> Reject {
        let entrance =
            if self.admitted.is_internal() { Entrance::Internal } else { Entrance::Public };
        Reject::Full { limit, max: self.app.admission.max(limit, entrance) }
    }
}

/// Has the connection end after this response, unless it may be kept.
pub(super) fn close_unproven<B>(admitted: &Admitted, response: &mut Response<B>) {
    if admitted.is_unproven() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
