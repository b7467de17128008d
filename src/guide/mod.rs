//! Guides for users: what the README links, as pages of this documentation. They hold no code.
//!
//! * [`operate`]: how large, the machine, proxies, deploys, from 1 server to 100, Kubernetes, and what each alert means.
//! * [`metrics`]: each metric, what it means, and what to do when it is unusual.
//! * [`topics`]: streams of named events with payloads, which keep what they carried; an AI run as an example.
//! * [`upgrades`]: a new version in place of the old one, which no browser notices, or after which browsers resume.
//! * [`cluster`]: several servers as one, or one that survives its end, with a log in NATS JetStream or in Redis.
//! * [`outbox`]: publishes that happen when a transaction of PostgreSQL is committed.
//! * [`ten_million`]: what ten million browsers take, computed from what was measured, and what breaks first.
//! * [`heartbeats`]: pings on the event streams of another server.
//! * [`migrating`]: the streams of the system that nudged replaces, behind nginx.
//!
//! A guide is a markdown file of `src/guide`, which is read there too. It names other pages by references
//! (`[migrating]`), whose definitions at its end are for readers of the file; those above it here come first, and count
//! in this documentation.

/// [migrating]: crate::guide::migrating
/// [cluster]: crate::guide::cluster
/// [upgrades]: crate::guide::upgrades
///
#[doc = include_str!("topics.md")]
pub mod topics {}

/// [cluster]: crate::guide::cluster
/// [unit]: #the-unit
/// [socket]: #the-socket
///
#[doc = include_str!("upgrades.md")]
/// # The unit
///
/// ```ini
#[doc = include_str!("../../.systemd/nudged.service")]
/// ```
/// # The socket
///
/// ```ini
#[doc = include_str!("../../.systemd/nudged.socket")]
/// ```
pub mod upgrades {}

/// [ten_million]: crate::guide::ten_million
/// [upgrades]: crate::guide::upgrades
/// [haproxy]: #the-balancer
///
#[doc = include_str!("cluster.md")]
/// # The balancer
///
/// ```text
#[doc = include_str!("../../.proxies/haproxy-cluster.cfg")]
/// ```
pub mod cluster {}

/// [topics]: crate::guide::topics
/// [cluster]: crate::guide::cluster
///
#[doc = include_str!("outbox.md")]
pub mod outbox {}

/// [cluster]: crate::guide::cluster
///
#[doc = include_str!("ten_million.md")]
pub mod ten_million {}

/// [heartbeat]: crate::stream::Heartbeat
///
#[doc = include_str!("heartbeats.md")]
pub mod heartbeats {}

/// [topics]: crate::guide::topics
/// [cluster]: crate::guide::cluster
/// [recipe]: #the-whole-server
///
#[doc = include_str!("migrating.md")]
/// # The whole server
///
/// ```nginx
#[doc = include_str!("../../.proxies/nginx-migrating.conf")]
/// ```
pub mod migrating {}

/// [metrics]: crate::guide::metrics
/// [cluster]: crate::guide::cluster
/// [upgrades]: crate::guide::upgrades
/// [ten_million]: crate::guide::ten_million
/// [outbox]: crate::guide::outbox
///
#[doc = include_str!("operate.md")]
pub mod operate {}

/// [operate]: crate::guide::operate
/// [upgrades]: crate::guide::upgrades
/// [cluster]: crate::guide::cluster
/// [outbox]: crate::guide::outbox
///
#[doc = include_str!("metrics.md")]
pub mod metrics {}
