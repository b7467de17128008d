//! One connection to a server of NATS, which is of no use any more once it has been lost.

use std::error::Error;
use std::io;
use std::time::Duration;

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Request,
    RequestErrorKind, ServerAddr, ServerInfo, Subscriber,
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backplane::broker::Down;
use crate::backplane::tls;
use crate::config::{BackplaneConfig, BackplaneLogin};

/// A connection. Its clones are the same one, which is closed when the last of them is dropped.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    client: Client,
    /// Why it is of no use any more.
    failure: watch::Receiver<Option<String>>,
    /// The bound of a request.
    timeout: Duration,
    pub(super) server: ServerInfo,
}

/// Why a request has no answer.
pub(super) enum Unanswered {
    /// Nothing serves its subject.
    NoResponder,
    Other(String),
}

/// The bound of a connection to one server: TCP, TLS and login. A request has at least as long: of one that is late, the
/// connection is closed.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A connection is lost at the third ping without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Messages that a subscription holds; more than a [`Consumer`](super::consumer::Consumer) asks for.
pub(super) const MESSAGES_MAX: usize = 4 * 1024;

/// Where nothing listens. The library cannot be kept from connecting again, but only there: what waits to be written
/// must not be stored after this connection, and what is read must not go on after a hole.
const NOWHERE: &str = "nats://127.0.0.1:0";

// ===== impl Connection =====

impl Connection {
    /// Connects to one of the servers, drawn at random, so that many clients spread.
    pub(super) async fn open(config: &BackplaneConfig, messages_max: usize) -> Result<Self, Down> {
        let mut servers = config.url.servers.clone();
        fastrand::shuffle(&mut servers);
        let mut reasons = Vec::with_capacity(servers.len());
        for (host, port) in servers {
            match Self::open_to(&host, port, config, messages_max).await {
                Ok(connection) => return Ok(connection),
                Err(why) => reasons.push(format!("{host}:{port}: {why}")),
            }
        }
        Err(Down(format!("no connection to the broker: {}", reasons.join("; "))))
    }

    async fn open_to(
        host: &str,
        port: u16,
        config: &BackplaneConfig,
        messages_max: usize,
    ) -> Result<Self, String> {
        let scheme = if config.url.tls { "tls" } else { "nats" };
        let address = format!("{scheme}://{host}:{port}").parse::<ServerAddr>();
        let address = address.map_err(|why| why.to_string())?;
        let (raised, failure) = watch::channel(None);
        let options =
            options(config)?.subscription_capacity(messages_max).event_callback(move |event| {
                let why = failure_of(event);
                raised.send_if_modified(|first| {
                    let is_first = first.is_none() && why.is_some();
                    if is_first {
                        *first = why;
                    }
                    is_first
                });
                std::future::ready(())
            });
        // A task of its own, since the library panics on some of what is not NATS. It does not bound the look-up of
        // the name.
        let mut connecting = JoinSet::new();
        connecting.spawn(options.connect(address));
        let client = match within(CONNECT_MAX, connecting.join_next()).await {
            None => Err(ConnectErrorKind::TimedOut.into()),
            Some(Some(Ok(client))) => client,
            Some(Some(Err(_)) | None) => {
                return Err("it does not respond as a NATS server does".into());
            }
        };
        let client = client.map_err(|why| in_words(&why, config))?;
        client.set_server_pool(NOWHERE).await.map_err(|why| why.to_string())?;
        let server = client.server_info();
        if !server.headers {
            return Err("it does not support headers; NATS does since 2.2".into());
        }
        // Each run of a server has another one.
        if server.server_id.is_empty() {
            return Err("it has no server_id".into());
        }
        Ok(Self { client, failure, timeout: config.timeout.max(CONNECT_MAX), server })
    }

    /// Whether it has the setting `sync_interval: always`. Whether it is set, it does not say.
    pub(super) fn can_sync_always(&self) -> bool {
        let mut numbers = self.server.version.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        (next(), next()) >= (Some(2), Some(10_u32))
    }

    /// Asks, and waits for the answer.
    pub(super) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Unanswered> {
        let request = Request { headers, ..Request::new() };
        let request = request.payload(payload).timeout(Some(self.timeout));
        let why = tokio::select! {
            biased;
            answer = self.client.send_request(subject, request) => match answer {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            },
            why = self.failure() => return Err(Unanswered::Other(why)),
        };
        Err(match why.kind() {
            RequestErrorKind::NoResponders => Unanswered::NoResponder,
            RequestErrorKind::TimedOut => {
                Unanswered::Other(format!("no answer in {:?}", self.timeout))
            }
            RequestErrorKind::Other => {
                let failure = within(self.timeout, self.failure()).await;
                Unanswered::Other(failure.unwrap_or_else(|| why.to_string()))
            }
            _ => Unanswered::Other(why.to_string()),
        })
    }

    /// A subscription to an inbox of our own, whose subjects have one more token.
    pub(super) async fn subscribe(&self) -> Result<(String, Subscriber), Down> {
        let inbox = self.client.new_inbox();
        match self.client.subscribe(format!("{inbox}.*")).await {
            Ok(messages) => Ok((inbox, messages)),
            Err(_) => Err(Down(self.failure().await)),
        }
    }

    /// Publishes what is not answered, or answered to `reply`.
    pub(super) async fn publish(
        &self,
        subject: String,
        reply: String,
        payload: Bytes,
    ) -> Result<(), Down> {
        match self.client.publish_with_reply(subject, reply, payload).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Down(self.failure().await)),
        }
    }

    /// Waits until the connection is of no use any more. Returns why.
    pub(super) async fn failure(&self) -> String {
        let mut failure = self.failure.clone();
        let why = failure.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_else(|| LOST.into())
    }
}

const LOST: &str = "the connection to the broker was lost";

fn options(config: &BackplaneConfig) -> Result<ConnectOptions, String> {
    let options = ConnectOptions::new()
        .name("nudged")
        .connection_timeout(CONNECT_MAX)
        .ping_interval(PING_INTERVAL)
        .ignore_discovered_servers()
        // Counted from each success, and 0 would be any number.
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO);
    let options = match &config.url.login {
        Some(BackplaneLogin::Password { user, password }) => {
            options.user_and_password(user.clone(), password.clone())
        }
        Some(BackplaneLogin::Token(token)) => options.token(token.clone()),
        None => options,
    };
    // Without `tls://` it is still the broker that may ask for TLS, and this must not be in vain for want of a
    // system's certificates.
    match tls::client_config(config.ca.as_deref()) {
        Ok(tls) => Ok(options.tls_client_config(tls)),
        Err(why) if config.url.tls || config.ca.is_some() => Err(why),
        Err(_) => Ok(options),
    }
}

/// Why a connection is of no use after this event.
fn failure_of(event: Event) -> Option<String> {
    match event {
        Event::Connected | Event::Draining => None,
        Event::Disconnected | Event::Closed => Some(LOST.into()),
        Event::LameDuckMode => Some("the broker is shutting down (lame duck mode)".into()),
        Event::SlowConsumer(_) => Some("messages of the broker were dropped".into()),
        Event::ServerError(why) => Some(format!("the broker reports: {why}")),
        Event::ClientError(why) => Some(format!("{LOST}: {why}")),
    }
}

fn in_words(why: &ConnectError, config: &BackplaneConfig) -> String {
    let cause = why.source();
    let io: Option<&io::Error> = cause.and_then(|cause| cause.downcast_ref());
    let tls: Option<&rustls::Error> =
        io.and_then(|why| why.get_ref()).and_then(|why| why.downcast_ref());
    match (why.kind(), tls, cause) {
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, ..) => {
            let refused = "it refuses the user, the password or the token";
            if config.url.login.is_some() {
                refused
            } else {
                "it requires a user and a password, or a token"
            }
            .into()
        }
        (ConnectErrorKind::TimedOut, ..) => "there is no handshake of NATS within 3 s".into(),
        (ConnectErrorKind::Dns, _, Some(cause)) => format!("its name is unknown: {cause}"),
        (_, Some(why), _) => tls::in_words(why, "nats://"),
        (_, None, Some(cause)) => cause.to_string(),
        _ => why.to_string(),
    }
}

/// The output of the work, unless it takes longer.
#[expect(clippy::disallowed_methods, reason = "the log's thread serves no stream")]
pub(super) async fn within<T>(bound: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(bound, work).await.ok()
}
