//! Which server has the log, and whether it can be trusted with it.

use super::connection::{Connection, Greeting};
use super::info::Info;
use super::sentinel;
use crate::backplane::broker::Down;
use crate::config::{BackplaneConfig, BackplaneUrl, BrokerKind};

/// A connection to the server with the log.
pub(super) struct Primary {
    pub(super) connection: Connection,
    pub(super) info: Info,
    /// As it was asked for: its certificate names it.
    host: String,
}

// ===== impl Primary =====

impl Primary {
    /// Connects to the server of the URL, or to the primary that one of its Sentinels names.
    pub(super) async fn connect(config: &BackplaneConfig) -> Result<Self, Down> {
        let BackplaneUrl { kind, servers, .. } = &config.url;
        let service = match kind {
            BrokerKind::Redis { service, .. } => service.as_deref(),
            BrokerKind::Nats => return Err(Down("it is no URL of Redis".into())),
        };
        let mut servers = servers.clone();
        // What is asked first may be what never answers.
        fastrand::shuffle(&mut servers);
        let (mut named, mut reasons) = (Vec::new(), Vec::with_capacity(servers.len()));
        for (host, port) in servers {
            let opened = match service {
                None => Self::open(&host, port, config).await,
                Some(service) => Self::find(&host, port, service, &mut named, config).await,
            };
            match opened {
                Ok(primary) => return Ok(primary),
                Err(why) => reasons.push(format!("{host}:{port}: {why}")),
            }
        }
        Err(Down(format!("no connection to the broker: {}", reasons.join("; "))))
    }

    /// A second connection to the same server.
    pub(super) async fn connect_again(&self, config: &BackplaneConfig) -> Result<Connection, Down> {
        let Self { connection, host, info } = self;
        let opened = Connection::open_to(host, connection.address, config, greeting(config)).await;
        let second = opened.map_err(Down)?;
        // What is between may distribute connections.
        let other = Info::of(&second, config).await?;
        if other.run() != info.run() {
            return Err(Down("two connections to the broker have come to two servers".into()));
        }
        Ok(second)
    }

    /// Connects to the primary that this Sentinel names, unless that has been tried already.
    async fn find(
        host: &str,
        port: u16,
        service: &str,
        named: &mut Vec<(String, u16)>,
        config: &BackplaneConfig,
    ) -> Result<Self, String> {
        let primary = sentinel::primary_of(host, port, service, config).await?;
        let (host, port) = &primary;
        if named.contains(&primary) {
            return Err(format!("this Sentinel names {host}:{port} too"));
        }
        let opened = Self::open(host, *port, config).await;
        let opened = opened.map_err(|why| format!("this Sentinel names {host}:{port}: {why}"));
        named.push(primary);
        opened
    }

    async fn open(host: &str, port: u16, config: &BackplaneConfig) -> Result<Self, String> {
        let connection = Connection::open(host, port, config, greeting(config)).await?;
        let info = Info::of(&connection, config).await.map_err(|down| down.0)?;
        info.check()?;
        Ok(Self { connection, info, host: host.to_owned() })
    }
}

fn greeting(config: &BackplaneConfig) -> Greeting<'_> {
    let database = match config.url.kind {
        BrokerKind::Redis { database, .. } => database,
        BrokerKind::Nats => 0,
    };
    Greeting { login: config.url.login.as_ref(), database }
}
