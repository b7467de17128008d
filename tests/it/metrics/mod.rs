//! `/metrics` in both text formats, each read by a strict parser: what there is, that it is documented, and that it is
//! true.

mod documented;
mod formats;
mod greetings;
mod process;
mod text;
mod values;

use self::text::Metrics;
use crate::support::{Answer, Server};

fn scrape(server: &Server, accept: &str) -> Answer {
    server.request(&format!("GET /metrics HTTP/1.1\r\nhost: test\r\n{accept}\r\n"))
}

/// The metrics in the format of Prometheus.
fn metrics(server: &Server) -> Metrics {
    Metrics::parse(&scrape(server, "").body, false)
}
