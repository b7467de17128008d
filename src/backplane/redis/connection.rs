//! One connection to a server of Redis, which is of no use any more once anything has gone wrong.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, Value, cmd,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::meter::{REPLY_BYTES_MAX, ReplyMeter};
use crate::backplane::bounded::{Allowance, Bounded};
use crate::backplane::broker::{Down, NotStored};
use crate::backplane::tls;
use crate::backplane::wait::{both, within};
use crate::config::{BackplaneConfig, BackplaneLogin, BrokerKind};
use crate::sync::Mutex;

/// A connection. Its clones are the same one, which is closed when the last of them is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    client: MultiplexedConnection,
    shared: Arc<Shared>,
    /// The server's address, to which another connection goes too.
    pub(super) address: SocketAddr,
}

struct Shared {
    /// Why it is of no use any more.
    failure: Mutex<Option<String>>,
    allowance: Allowance,
    /// Writes and reads; aborted when this is dropped.
    _driver: JoinSet<()>,
}

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server's own words.
    Refused(String),
    /// The connection is of no use any more.
    Lost(String),
}

/// What a connection begins with.
#[derive(Clone, Copy)]
pub(super) struct Greeting<'a> {
    pub(super) login: Option<&'a BackplaneLogin>,
    pub(super) database: u16,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The bound of a connection to one server: its name, TCP, TLS and login.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(3);

/// More than a greeting may take: the connection of which it is a part has a bound.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// What other servers than those of Redis are.
const NO_REDIS: &str = "it does not speak as Redis does";

// ===== impl Connection =====

impl Connection {
    /// Connects to a server by its name.
    pub(super) async fn open(
        host: &str,
        port: u16,
        config: &BackplaneConfig,
        greeting: Greeting<'_>,
    ) -> Result<Self, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = async {
            let addresses = lookup_host((host, port)).await;
            let addresses = addresses.map_err(|why| format!("its name is unknown: {why}"))?;
            let mut reason = "its name has no address".into();
            for address in addresses {
                match Self::connect(host, address, config, greeting).await {
                    Ok(connection) => return Ok(connection),
                    Err(why) => reason = why,
                }
            }
            Err(reason)
        };
        within(CONNECT_MAX, Box::pin(connecting)).await.unwrap_or_else(|| Err(timed_out(config)))
    }

    /// Connects to this address. Its certificate has to be for `host`.
    pub(super) async fn open_to(
        host: &str,
        address: SocketAddr,
        config: &BackplaneConfig,
        greeting: Greeting<'_>,
    ) -> Result<Self, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = Self::connect(host, address, config, greeting);
        within(CONNECT_MAX, Box::pin(connecting)).await.unwrap_or_else(|| Err(timed_out(config)))
    }

    async fn connect(
        host: &str,
        address: SocketAddr,
        config: &BackplaneConfig,
        greeting: Greeting<'_>,
    ) -> Result<Self, String> {
        let socket = TcpStream::connect(address).await.map_err(|why| why.to_string())?;
        socket.set_nodelay(true).map_err(|why| why.to_string())?;
        let stream: Box<dyn Stream> = if config.url.tls {
            Box::new(encrypt(host, socket, config).await?)
        } else {
            Box::new(socket)
        };
        let (stream, allowance) = Bounded::new(stream, ReplyMeter::default(), REPLY_BYTES_MAX);
        let (sender, greeted) = oneshot::channel();
        // A task of its own, in case that the library panics on what is not Redis.
        let mut driver = JoinSet::new();
        driver.spawn(drive(stream, sender));
        let Ok(client) = greeted.await else { return Err(NO_REDIS.into()) };
        let client = client.map_err(|why| Failed::of(&why).about("a connection"))?;
        let failure = Mutex::new(None);
        let shared = Arc::new(Shared { failure, allowance, _driver: driver });
        let connection = Self { client, shared, address };
        connection.greet(greeting).await?;
        Ok(connection)
    }

    /// Logs in, and selects the database. The library's own login has one error for every reason of a refusal.
    async fn greet(&self, greeting: Greeting<'_>) -> Result<(), String> {
        let Greeting { login, database } = greeting;
        if let Some(BackplaneLogin::Password { user, password }) = login {
            let mut command = cmd("AUTH");
            command.arg(user).arg(password);
            let answer = self.request(&command, GREETING_MAX).await;
            answer.map_err(|why| why.without(password).about("AUTH"))?;
        }
        if database != 0 {
            let mut command = cmd("SELECT");
            command.arg(database);
            let answer = self.request(&command, GREETING_MAX).await;
            answer.map_err(|why| why.about(&format!("database {database} (SELECT)")))?;
        }
        Ok(())
    }

    /// Whether it was lost for a reply that is too large.
    pub(super) fn is_exhausted(&self) -> bool {
        self.shared.allowance.is_exhausted()
    }

    /// Sends a command, and waits for its reply.
    pub(super) async fn request(&self, command: &Cmd, bound: Duration) -> Result<Value, Failed> {
        let mut client = self.client.clone();
        match self.settle(bound, client.send_packed_command(command)).await? {
            Value::ServerError(why) => Err(Failed::of(&why.into())),
            reply => Ok(reply),
        }
    }

    /// Sends two commands at once, and waits for the replies to both.
    pub(super) async fn request_both(
        &self,
        commands: [&Cmd; 2],
        bound: Duration,
    ) -> Result<[Value; 2], Failed> {
        let (mut client, mut again) = (self.client.clone(), self.client.clone());
        let replies = async {
            let first = client.send_packed_command(commands[0]);
            let second = again.send_packed_command(commands[1]);
            match both(first, second).await {
                // There may be no second one then.
                (Ok(Value::ServerError(why)), _) | (_, Ok(Value::ServerError(why))) => {
                    Err(why.into())
                }
                (first, second) => Ok([first?, second?]),
            }
        };
        self.settle(bound, replies).await
    }

    /// Waits for what the library gets. If that is no reply, the connection is of no use any more.
    async fn settle<T>(
        &self,
        bound: Duration,
        work: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failed> {
        if let Some(why) = self.shared.failure.lock().clone() {
            return Err(Failed::Lost(why));
        }
        self.shared.allowance.renew(REPLY_BYTES_MAX);
        let why = match within(bound, work).await {
            Some(Ok(reply)) => return Ok(reply),
            Some(Err(why)) => Failed::of(&why),
            // The replies to come would be counted wrongly.
            None => Failed::Lost(format!("no answer in {bound:?}")),
        };
        if let Failed::Lost(why) = &why {
            self.shared.failure.lock().get_or_insert_with(|| why.clone());
        }
        Err(why)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

fn timed_out(config: &BackplaneConfig) -> String {
    if config.url.tls {
        // Redis without TLS waits for the end of a line.
        let cleartext = cleartext(config);
        format!(
            "it does not speak TLS, or not as Redis does, in 3 s; without TLS the URL is {cleartext}"
        )
    } else {
        format!("{NO_REDIS} in 3 s")
    }
}

/// The scheme of the URL without TLS.
pub(super) fn cleartext(config: &BackplaneConfig) -> &'static str {
    match config.url.kind {
        BrokerKind::Redis { service: Some(_), .. } => "redis+sentinel://",
        _ => "redis://",
    }
}

/// Writes and reads while there is a client.
async fn drive(
    stream: impl Stream + 'static,
    client: oneshot::Sender<Result<MultiplexedConnection, RedisError>>,
) {
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let info = info.set_protocol(ProtocolVersion::RESP2);
    // Requests have bounds of ours.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    match MultiplexedConnection::new_with_config(&info, stream, config).await {
        Ok((connection, driver)) => {
            // It may be wanted no more.
            if client.send(Ok(connection)).is_ok() {
                driver.await;
            }
        }
        Err(why) => _ = client.send(Err(why)),
    }
}

async fn encrypt(
    host: &str,
    socket: TcpStream,
    config: &BackplaneConfig,
) -> Result<TlsStream<TcpStream>, String> {
    let tls = tls::client_config(config.ca.as_deref())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|why| why.to_string())?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await;
    stream.map_err(|why| tls_in_words(&why, config))
}

fn tls_in_words(why: &io::Error, config: &BackplaneConfig) -> String {
    let cause = why.get_ref().and_then(|why| why.downcast_ref());
    cause.map_or_else(|| why.to_string(), |why| tls::in_words(why, cleartext(config)))
}

// ===== impl Greeting =====

impl Greeting<'_> {
    /// To Sentinels.
    pub(super) const NONE: Self = Self { login: None, database: 0 };
}

// ===== impl Failed =====

impl Failed {
    fn of(why: &RedisError) -> Self {
        match why.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let words = [why.code(), why.detail()].into_iter().flatten();
                Self::Refused(words.collect::<Vec<_>>().join(" "))
            }
            ErrorKind::Parse => Self::Lost(NO_REDIS.into()),
            _ => Self::Lost(format!("the connection to the broker was lost: {why}")),
        }
    }

    /// Without what the server quotes: one that does not know a command repeats what it was sent, maybe not to its end.
    fn without(self, secret: &str) -> Self {
        match self {
            Self::Refused(why) => {
                let secret = why.find(secret).filter(|_| !secret.is_empty());
                let quoted = why.find(['\'', '"', '`']);
                let end = secret.into_iter().chain(quoted).min().unwrap_or(why.len());
                Self::Refused(why[..end].trim_end().into())
            }
            lost => lost,
        }
    }

    pub(super) fn down(self, what: &str) -> Down {
        Down(self.about(what))
    }

    pub(super) fn not_stored(self) -> NotStored {
        NotStored(self.about("XADD"))
    }

    pub(super) fn about(self, what: &str) -> String {
        match self {
            Self::Refused(why) => match in_words(&why) {
                Some(words) => format!("{words}: Redis refuses {what}: {why}"),
                None => format!("Redis refuses {what}: {why}"),
            },
            Self::Lost(why) => why,
        }
    }
}

/// What an error of Redis means for a log.
fn in_words(why: &str) -> Option<&'static str> {
    Some(match why.split(' ').next()? {
        "NOAUTH" => "it asks for a login",
        "WRONGPASS" => "it refuses the user or the password",
        "NOPERM" => "its user lacks a right (ACL)",
        "DENIED" => "it is for its own machine only, until it has a password (protected-mode)",
        "LOADING" => "it is loading its data",
        "READONLY" => "it is a replica, which takes no records",
        "UNBLOCKED" => "it has become a replica",
        "MASTERDOWN" => "it is a replica that has lost its primary",
        "NOREPLICAS" => "it has fewer replicas than it must have (min-replicas-to-write)",
        "MISCONF" => "it takes no records while it cannot write to its disk",
        "OOM" => "it takes no records, since its memory is full (maxmemory)",
        "BUSY" => "a script keeps it busy",
        "WRONGTYPE" => "the key of the log is no stream",
        _ => return None,
    })
}
