//! The access log: one line when a stream ends. It has neither the token nor the query of the request.

use crate::hub::View;
use crate::stream::Ended;

/// The target of its lines, which are of the level `info`.
pub(super) const TARGET: &str = "nudged::access";

/// Writes the line of a stream.
pub(super) fn write(ended: &Ended<'_>) {
    let Ended { org, topic, view, client, reason, lasted, events } = *ended;
    let kind = match view {
        View::Member => "member",
        View::Public => "public",
        View::Topic => "topic",
    };
    tracing::info!(
        target: TARGET,
        %org,
        topic = topic.map(tracing::field::display),
        kind,
        client = client.map(tracing::field::display),
        cause = reason.label(),
        seconds = (lasted.as_secs_f64() * 1_000.0).round() / 1_000.0,
        events,
        "a stream ended"
    );
}
