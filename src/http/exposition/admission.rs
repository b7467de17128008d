//! The metrics of connections and limits.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, encode_family, gauge};
use crate::admission::{Admission, Entrance, Evicted};
use crate::metrics::{HeaderRefusal, Limit};

/// Reads the counters of [`Admission`] at each scrape.
#[derive(Debug)]
pub(super) struct AdmissionCollector(pub(super) Admission);

// ===== impl AdmissionCollector =====

impl Collector for AdmissionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(admission) = self;
        let help = "Requests and connections that were refused, by the limit that was reached";
        let refused = Limit::ALL.map(|limit| (limit.label(), admission.refusals().read(limit)));
        encode_family(&mut encoder, "refused", help, "limit", &refused)?;
        let help = "Connections that were refused for their header of the PROXY protocol, by cause";
        let refused = HeaderRefusal::ALL;
        let refused = refused.map(|why| (why.label(), admission.header_refusals().read(why)));
        encode_family(&mut encoder, "proxy_protocol_refused", help, "reason", &refused)?;
        let help = "Connections that were closed to make room for others";
        let evicted = Evicted::ALL.map(|which| (which.label(), admission.evicted(which)));
        encode_family(&mut encoder, "evicted", help, "kind", &evicted)?;
        let (public, internal) = (Entrance::Public, Entrance::Internal);
        let open = |entrance| admission.connections(entrance);
        for (name, help, value) in [
            ("connections", "Connections to public addresses", open(public)),
            (
                "connections_max",
                "Connections to public addresses that may be open",
                admission.connections_max(public),
            ),
            ("internal_connections", "Connections to internal addresses", open(internal)),
            ("streams_max", "Streams that may be open", admission.max(Limit::Streams, public)),
        ] {
            encode(&mut encoder, name, help, &gauge(value))?;
        }
        Ok(())
    }
}
