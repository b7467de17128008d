//! Which server has the log, and whether it can be trusted with it.

use redis::{Value, cmd};

use super::connection::{Connection, Failed, Greeting};
use super::info::Info;
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
        let mut reasons = Vec::with_capacity(servers.len());
        for (host, port) in servers {
            let opened = match service {
                None => Self::open(host, *port, config).await,
                Some(service) => Self::ask(host, *port, service, config).await,
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

    async fn open(host: &str, port: u16, config: &BackplaneConfig) -> Result<Self, String> {
        let connection = Connection::open(host, port, config, greeting(config)).await?;
        let info = Info::of(&connection, config).await.map_err(|down| down.0)?;
        info.check()?;
        Ok(Self { connection, info, host: host.to_owned() })
    }

    /// Asks a Sentinel.
    async fn ask(
        host: &str,
        port: u16,
        service: &str,
        config: &BackplaneConfig,
    ) -> Result<Self, String> {
        let sentinel = Connection::open(host, port, config, Greeting::NONE).await?;
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer = sentinel.request(&command, config.timeout).await;
        let answer = match answer {
            Err(Failed::Refused(why)) if why.contains("unknown command") => {
                return Err("it is no Sentinel".into());
            }
            answer => answer.map_err(|why| why.down("SENTINEL").0)?,
        };
        let (host, port) = match answer {
            Value::Nil => return Err(format!("this Sentinel knows no {service}")),
            answer => address(&answer).ok_or("this Sentinel gives an unreadable answer")?,
        };
        let opened = Self::open(&host, port, config).await;
        opened.map_err(|why| format!("this Sentinel names {host}:{port}: {why}"))
    }
}

fn greeting(config: &BackplaneConfig) -> Greeting<'_> {
    let database = match config.url.kind {
        BrokerKind::Redis { database, .. } => database,
        BrokerKind::Nats => 0,
    };
    Greeting { login: config.url.login.as_ref(), database }
}

fn address(answer: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else { return None };
    let host = str::from_utf8(host).ok()?;
    Some((host.to_owned(), str::from_utf8(port).ok()?.parse().ok()?))
}
