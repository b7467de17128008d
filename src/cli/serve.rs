//! `nudged serve`: flags and environment become a [`Config`].

use clap::Args;
use nudged::config::{Config, ForwardedField, HubConfig, PublicOrgs, PublicPolicy, PublishRate};

use super::auth::AuthArgs;
#[cfg(any(feature = "nats", feature = "redis"))]
use super::backplane::BackplaneArgs;
use super::lacking::LackingArgs;
use super::listen_address::resolve;
use super::origin::Inherited;
#[cfg(feature = "postgres")]
use super::outbox::OutboxArgs;
use super::requirements::GivenArgs;
#[cfg(feature = "tls")]
use super::settings::TlsFileArgs;
use super::settings::{
    CONFIG, HistoryArgs, LimitArgs, ListenArgs, LogArgs, PublishArgs, ShutdownArgs, StreamArgs,
    TopicArgs,
};
use super::values::{ForwardedFieldArg, OrgList, PublicOrg, Switch};

/// Settings of the server. Durations are written like 50ms, 30s or 5m.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// Checks all settings and the files that they name, prints what would be served, and serves
    /// nothing. May be run beside a server: no address is listened on, nothing is fetched
    #[arg(long)]
    pub(crate) check: bool,
    // The next ones remove their settings from what was parsed.
    #[command(flatten)]
    given: GivenArgs,
    #[command(flatten)]
    listening: ListenArgs,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    tls: TlsFileArgs,
    #[command(flatten)]
    streams: StreamArgs,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    topics: TopicArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    publishing: PublishArgs,
    #[cfg(any(feature = "nats", feature = "redis"))]
    #[command(flatten)]
    backplane: BackplaneArgs,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    outbox: OutboxArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    shutdown: ShutdownArgs,
    #[command(flatten)]
    pub(crate) logging: LogArgs,
    #[command(flatten)]
    lacking: LackingArgs,
    /// The sockets that the service manager or a predecessor has opened.
    #[arg(skip)]
    pub(crate) inherited: Inherited,
}

// ===== impl Serve =====

impl Serve {
    /// Whether `--listen` was given.
    pub(crate) fn has_listen(&self) -> bool {
        self.given.has_any(&["listen"])
    }

    /// Fails if settings contradict each other, or need a feature that this build lacks.
    pub(crate) fn into_config(self) -> Result<Config, String> {
        self.lacking.check()?;
        let has_public_unix = self.listening.has_public_unix_socket();
        #[cfg(feature = "tls")]
        let has_public_unix = has_public_unix || self.tls.has_public_unix_socket();
        let has_unix = has_public_unix || self.listening.has_internal_unix_socket();
        let (lists, inherited) = (self.streams.public_orgs.as_deref(), self.inherited);
        self.given.check(inherited.internal, has_unix, lists)?;
        let LimitArgs { trust_forwarded_for, proxy_protocol_from, .. } = &self.limits;
        let has_unix = has_unix || inherited.unix;
        self.given.check_unix("trust_forwarded_for", trust_forwarded_for, has_unix)?;
        let has_public_unix = has_public_unix || inherited.public_unix;
        self.given.check_unix("proxy_protocol_from", proxy_protocol_from, has_public_unix)?;
        #[cfg(feature = "tls")]
        self.tls.check()?;
        let Self {
            listening,
            streams,
            history,
            topics,
            limits,
            publishing,
            auth,
            shutdown,
            logging,
            ..
        } = self;
        let retry_ms = (streams.retry_min.millis(), streams.retry_max.millis());
        if retry_ms.0 > retry_ms.1 {
            return Err(format!(
                "--retry-min {} is longer than --retry-max {}",
                streams.retry_min, streams.retry_max
            ));
        }
        let ShutdownArgs { drain_delay, drain_window, drain_grace, drain_timeout, state } =
            shutdown;
        if drain_delay.0 + drain_window.0 > drain_timeout.0 {
            return Err(format!(
                "--drain-delay {drain_delay} and --drain-window {drain_window} together are longer \
                 than --drain-timeout {drain_timeout}, which would cut streams"
            ));
        }
        topics.check()?;
        let orgs = match streams.public_orgs {
            None => PublicOrgs::IfOpen,
            Some(lists) => public_orgs(lists),
        };
        let hub = HubConfig {
            coalesce: publishing.coalesce.0,
            keepalive: streams.keepalive.0,
            retry_ms,
            history_events: history.history_events,
            history_age: history.history_age.0,
            history_bytes: history.history_bytes,
            history_bytes_total: history.history_bytes_total,
            idle_channels_max: history.idle_channels,
            keys_max: publishing.keys,
            key_bytes_max: publishing.key_bytes,
            event_bytes_max: publishing.event_bytes,
            public: PublicPolicy { orgs, keys: streams.public_keys.iter().collect() },
            stall_timeout: streams.stall_timeout.0,
            drain_grace: drain_grace.0,
            stream_age_max: streams.max_stream_age.map(|age| age.0),
            org_streams_max: limits.org_streams,
            org_public_streams_max: limits.org_public_streams,
            topic_streams_max: topics.topic_streams,
            topic_events: topics.topic_events,
            topic_age: topics.topic_age.0,
            topic_event_bytes_max: topics.topic_event_bytes,
            topic_bytes: topics.topic_bytes,
            topics_bytes_total: topics.topics_bytes_total,
            idle_topics_max: topics.idle_topics,
        };
        let small = |n: usize| u32::try_from(n).expect("its parser has a bound");
        let publish_rate = publishing.publish_rate.map(|per_second| PublishRate {
            per_second: small(per_second),
            burst: small(publishing.publish_burst.unwrap_or(per_second)),
        });
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "only TLS is added"))]
        let mut config = Config {
            listen: resolve(&listening.listen),
            internal_listen: resolve(&listening.internal_listen),
            listen_mode: listening.listen_mode,
            workers: listening.workers.unwrap_or(CONFIG.workers),
            insecure_open: listening.insecure_open,
            hosts: listening.host,
            ops: listening.ops == Switch::On,
            peer_timeout: streams.peer_timeout.0,
            connections_max: limits.connections,
            internal_connections_max: limits.internal_connections,
            address_connections_max: limits.address_connections,
            streams_max: limits.streams,
            address_streams_max: limits.address_streams,
            trusted_proxies: limits.trust_forwarded_for,
            proxy_protocol_from: limits.proxy_protocol_from,
            forwarded_field: match limits.forwarded_field {
                ForwardedFieldArg::XForwardedFor => ForwardedField::XForwardedFor,
                ForwardedFieldArg::Forwarded => ForwardedField::Forwarded,
            },
            connection_streams_max: small(limits.connection_streams),
            head_timeout: limits.head_timeout.0,
            idle_timeout: limits.idle_timeout.0,
            head_bytes_max: limits.head_bytes,
            body_timeout: limits.body_timeout.0,
            connection_body_bytes_max: limits.connection_body_bytes,
            publish_bytes_max: publishing.publish_bytes,
            publish_rate,
            reread_window: publishing.reread_window.0,
            cors: auth.cors()?,
            cors_headers: auth.cors_header.clone(),
            auth: auth.into_config()?,
            drain_delay: drain_delay.0,
            drain_window: drain_window.0,
            drain_timeout: drain_timeout.0,
            state,
            hub,
            access_log: logging.access_log,
            ..Config::default()
        };
        #[cfg(feature = "tls")]
        self.tls.apply_to(&mut config);
        #[cfg(any(feature = "nats", feature = "redis"))]
        (config.backplane = self.backplane.into_config()?);
        #[cfg(feature = "postgres")]
        {
            config.outbox = self.outbox.into_config()?;
            super::outbox::check_direct(&config)?;
        }
        Ok(config)
    }
}

fn public_orgs(lists: Vec<OrgList>) -> PublicOrgs {
    let orgs = lists.into_iter().flat_map(|list| list.0).map(|entry| match entry {
        PublicOrg::All => None,
        PublicOrg::One(org) => Some(org),
    });
    orgs.collect::<Option<_>>().map_or(PublicOrgs::All, PublicOrgs::Listed)
}
