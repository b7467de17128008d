//! The listening sockets of all workers, with the options that accepted sockets inherit (tcp(7)).

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use socket2::{SockRef, Socket};

use super::bind_error::BindError;
use super::exclusive;
use super::listening_socket::ListeningSocket;
use super::systemd::PassedSockets;
use super::tls::Tls;
#[cfg(target_os = "linux")]
use super::unix_socket::SocketFile;
use super::unix_socket::{self, SocketFiles};
#[cfg(target_os = "linux")]
use super::upgrade::listeners::KeptListener;
#[cfg(target_os = "linux")]
use super::upgrade::message::ListeningState;
use crate::admission::Entrance;
use crate::config::{Config, CorsPolicy, Endpoint};

/// An address that a server listens on, displayed as the beginning of its URLs, or as the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// With the port that the system chose where port 0 was requested.
    pub endpoint: Endpoint,
    /// Connections to it begin with a TLS handshake.
    pub secure: bool,
    /// It is one of [`Config::internal_listen`].
    pub internal: bool,
}

/// The sockets of all workers.
#[derive(Debug)]
pub(crate) struct Listeners {
    addresses: Vec<Address>,
    /// By worker.
    workers: Vec<Vec<Listening>>,
    files: SocketFiles,
}

/// One worker's socket of one address.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: ListeningSocket,
    pub(crate) secure: bool,
    pub(crate) entrance: Entrance,
    /// The index of its address.
    address: usize,
}

/// What kind of address it is.
#[derive(Clone, Copy, Debug)]
struct Kind {
    secure: bool,
    entrance: Entrance,
}

/// Unsent bytes in the kernel from which a socket counts as full (`TCP_NOTSENT_LOWAT`).
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 * 1024;

// ===== impl Listeners =====

impl Listeners {
    /// Binds every address for every worker.
    #[cfg(test)]
    pub(crate) fn bind(config: &Config) -> Result<Self, BindError> {
        Self::open(PassedSockets::default(), config)
    }

    /// Binds every address for every worker. Uses listening sockets that the service manager opened and keeps open, so
    /// that no connect is refused between one server and the next. All workers accept on each of them. They stand in
    /// for the public addresses of the configuration, if there is one for a public address.
    pub(crate) fn open(passed: PassedSockets, config: &Config) -> Result<Self, BindError> {
        let workers = (0..config.workers).map(|_| Vec::new()).collect();
        let files = SocketFiles::default();
        let mut listeners = Self { addresses: Vec::new(), workers, files };
        refuse_pages(config)?;
        let [public, plain, internal] = Kind::all(config);
        if passed.public.is_empty() {
            listeners.bind_all(&config.listen, public, config)?;
            listeners.bind_all(&config.plain_listen, plain, config)?;
        } else if config.plain_listen.is_empty() {
            listeners.adopt_all(passed.public, public, config)?;
        } else {
            return Err(BindError::PlainBesideInherited);
        }
        listeners.adopt_all(passed.internal, internal, config)?;
        listeners.bind_all(&config.internal_listen, internal, config)?;
        Ok(listeners)
    }

    fn bind_all(
        &mut self,
        addresses: &[Endpoint],
        kind: Kind,
        config: &Config,
    ) -> Result<(), BindError> {
        for asked in addresses {
            refuse_exposed(asked, config)?;
            refuse_twice(asked, &self.addresses)?;
            let refused = |why| BindError::Refused { address: asked.clone(), why };
            let sockets = self.listen(asked, config).map_err(refused)?;
            let address = sockets[0].endpoint().map_err(refused)?;
            for (sockets, socket) in self.workers.iter_mut().zip(sockets) {
                sockets.push(kind.listening(socket, self.addresses.len()));
            }
            self.addresses.push(kind.address(address));
        }
        Ok(())
    }

    /// A socket for each worker.
    fn listen(&mut self, asked: &Endpoint, config: &Config) -> io::Result<Vec<ListeningSocket>> {
        let workers = self.workers.len();
        match asked {
            Endpoint::Tcp(address) => {
                let sockets = exclusive::listen(*address, workers, config)?;
                Ok(sockets.into_iter().map(ListeningSocket::from).collect())
            }
            Endpoint::Unix(path) => {
                let (socket, file) = unix_socket::listen(path, config.listen_mode)?;
                self.files.push(file);
                let first = ListeningSocket::from(socket);
                // They share it: the kernel spreads connections over sockets of TCP only.
                let others =
                    (1..workers).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
                Ok([first].into_iter().chain(others).collect())
            }
        }
    }

    fn adopt_all(
        &mut self,
        sockets: Vec<ListeningSocket>,
        kind: Kind,
        config: &Config,
    ) -> Result<(), BindError> {
        for socket in sockets {
            let address = socket.endpoint().map_err(BindError::Inherited)?;
            refuse_exposed(&address, config)?;
            socket.set_nonblocking().map_err(BindError::Inherited)?;
            socket.set_options(config).map_err(BindError::Inherited)?;
            for sockets in &mut self.workers {
                let socket = socket.try_clone().map_err(BindError::Inherited)?;
                sockets.push(kind.listening(socket, self.addresses.len()));
            }
            self.addresses.push(kind.address(address));
        }
        Ok(())
    }

    /// The addresses that [`Self::open`] would listen on. None is, nor is it an error if a server listens on one of
    /// them: it may be the one that these settings are for.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub(crate) fn check(
        passed: &PassedSockets,
        config: &Config,
    ) -> Result<Vec<Address>, BindError> {
        refuse_pages(config)?;
        let [public, plain, internal] = Kind::all(config);
        let mut addresses = Vec::new();
        for (kind, sockets) in [(public, &passed.public), (internal, &passed.internal)] {
            for socket in sockets {
                let address = socket.endpoint().map_err(BindError::Inherited)?;
                refuse_exposed(&address, config)?;
                addresses.push(kind.address(address));
            }
        }
        let is_bound = !passed.public.is_empty();
        if is_bound && !config.plain_listen.is_empty() {
            return Err(BindError::PlainBesideInherited);
        }
        for (kind, asked, is_bound) in [
            (public, &config.listen, is_bound),
            (plain, &config.plain_listen, false),
            (internal, &config.internal_listen, false),
        ] {
            for address in asked.iter().filter(|_| !is_bound) {
                refuse_exposed(address, config)?;
                refuse_twice(address, &addresses)?;
                let can_listen = match address {
                    Endpoint::Tcp(address) => exclusive::can_bind(*address),
                    Endpoint::Unix(path) => unix_socket::can_listen(path),
                };
                let refused = |why| BindError::Refused { address: address.clone(), why };
                can_listen.map_err(refused)?;
                addresses.push(kind.address(address.clone()));
            }
        }
        addresses.sort_by_key(|address| address.internal);
        Ok(addresses)
    }

    /// Uses the listening sockets of the process that this one takes over from: what the configuration names is bound
    /// already. Each has a worker that accepts on it. If there are fewer than workers, as of one that a service manager
    /// opened, workers share them.
    #[cfg(target_os = "linux")]
    pub(crate) fn take_over(kept: Vec<KeptListener>, config: &Config) -> Result<Self, BindError> {
        let workers = (0..config.workers).map(|_| Vec::new()).collect();
        let files = SocketFiles::default();
        let mut listeners = Self { addresses: Vec::new(), workers, files };
        refuse_pages(config)?;
        let mut by_address = BTreeMap::<_, Vec<_>>::new();
        for KeptListener { state, socket } in kept {
            let of_address = by_address.entry(state.address).or_default();
            let kind = Kind::of(state.secure, state.internal);
            of_address.push((state.worker, kind, socket, state.file));
        }
        for mut sockets in by_address.into_values() {
            sockets.sort_by_key(|(worker, ..)| *worker);
            let Some((_, kind, first, file)) = sockets.first() else { continue };
            let file = *file;
            let (kind, address) = (*kind, first.endpoint().map_err(BindError::Inherited)?);
            if let (Endpoint::Unix(path), Some(id)) = (&address, file) {
                // The other process has it until this one is live.
                listeners.files.lend(true);
                SocketFile::left(path, id).into_iter().for_each(|file| listeners.files.push(file));
            }
            let sockets = sockets.into_iter().map(|(_, _, socket, _)| socket).collect();
            listeners.take_address(address, kind, sockets, config)?;
        }
        Ok(listeners)
    }

    #[cfg(target_os = "linux")]
    fn take_address(
        &mut self,
        address: Endpoint,
        kind: Kind,
        sockets: Vec<ListeningSocket>,
        config: &Config,
    ) -> Result<(), BindError> {
        refuse_exposed(&address, config)?;
        if kind.secure && !Tls::is_configured(config) {
            return Err(BindError::NoCertificate { address });
        }
        for socket in &sockets {
            socket.set_options(config).map_err(BindError::Inherited)?;
        }
        let (index, workers) = (self.addresses.len(), self.workers.len());
        for worker in sockets.len()..workers {
            let shared = sockets[worker % sockets.len()].try_clone();
            let shared = shared.map_err(BindError::Inherited)?;
            self.workers[worker].push(kind.listening(shared, index));
        }
        for (number, socket) in sockets.into_iter().enumerate() {
            self.workers[number % workers].push(kind.listening(socket, index));
        }
        self.addresses.push(kind.address(address));
        Ok(())
    }

    /// The sockets once more, for a successor. As long as they are open, the server listens.
    ///
    /// # Errors
    /// The system's.
    #[cfg(target_os = "linux")]
    pub(crate) fn keep(&self) -> io::Result<Vec<KeptListener>> {
        let mut kept = Vec::new();
        for (worker, sockets) in (0..).zip(&self.workers) {
            for Listening { socket, secure, entrance, address } in sockets {
                let file = match &self.addresses[*address].endpoint {
                    Endpoint::Tcp(_) => None,
                    Endpoint::Unix(path) => self.files.id(path),
                };
                let state = ListeningState {
                    file,
                    worker,
                    address: u32::try_from(*address).unwrap_or(u32::MAX),
                    secure: *secure,
                    internal: *entrance == Entrance::Internal,
                };
                kept.push(KeptListener { state, socket: socket.try_clone()? });
            }
        }
        KeptListener::distinct(kept)
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The sockets of each worker, and the files that they have.
    pub(crate) fn into_workers(self) -> (Vec<Vec<Listening>>, SocketFiles) {
        (self.workers, self.files)
    }
}

/// Port 0 is another one each time.
fn refuse_twice(asked: &Endpoint, taken: &[Address]) -> Result<(), BindError> {
    let is_one = asked.tcp().is_none_or(|address| address.port() != 0);
    if is_one && taken.iter().any(|address| address.endpoint == *asked) {
        return Err(BindError::Twice { address: asked.clone() });
    }
    Ok(())
}

/// A network must not reach a server that is open by default.
fn refuse_exposed(address: &Endpoint, config: &Config) -> Result<(), BindError> {
    let is_exposed = address.tcp().is_some_and(|tcp| !tcp.ip().to_canonical().is_loopback());
    match config.is_open_by_default() && is_exposed {
        true => Err(BindError::Open { address: address.clone() }),
        false => Ok(()),
    }
}

/// Nor may pages of other origins use it: they act from where it can be reached.
fn refuse_pages(config: &Config) -> Result<(), BindError> {
    match config.is_open_by_default() && config.cors != CorsPolicy::SameOrigin {
        true => Err(BindError::OpenToPages),
        false => Ok(()),
    }
}

impl ListeningSocket {
    /// Sets the options that accepted sockets inherit: a Unix socket has none of them.
    fn set_options(&self, config: &Config) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => set_options(&SockRef::from(socket), config),
            Self::Unix(_) => Ok(()),
        }
    }
}

/// Sets the options that accepted sockets of TCP inherit.
#[cfg(target_os = "linux")]
pub(super) fn set_options(listener: &Socket, config: &Config) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_user_timeout(Some(config.peer_timeout))?;
    listener.set_tcp_notsent_lowat(NOTSENT_LOWAT)
}

/// What accepted sockets inherit. The time after which the kernel gives a peer up is the system's.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_options(listener: &Socket, _config: &Config) -> io::Result<()> {
    listener.set_tcp_nodelay(true)
}

// ===== impl Kind =====

impl Kind {
    /// Of [`Config::listen`], [`Config::plain_listen`] and [`Config::internal_listen`].
    fn all(config: &Config) -> [Self; 3] {
        let public = Self { secure: Tls::is_configured(config), entrance: Entrance::Public };
        let plain = Self { secure: false, ..public };
        [public, plain, Self { entrance: Entrance::Internal, ..plain }]
    }

    #[cfg(target_os = "linux")]
    fn of(secure: bool, internal: bool) -> Self {
        let entrance = if internal { Entrance::Internal } else { Entrance::Public };
        Self { secure, entrance }
    }

    fn listening(self, socket: ListeningSocket, address: usize) -> Listening {
        let Self { secure, entrance } = self;
        Listening { socket, secure, entrance, address }
    }

    fn address(self, endpoint: Endpoint) -> Address {
        let Self { secure, entrance } = self;
        Address { endpoint, secure, internal: entrance == Entrance::Internal }
    }
}

// ===== impl Address =====

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(address) => {
                write!(f, "http{}://{address}", if self.secure { "s" } else { "" })
            }
            unix @ Endpoint::Unix(_) => unix.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::{AuthConfig, Secret};

    /// SCENARIO: the service manager passes a socket on a network address to a server with a key.
    /// BUG: the server refused it as one without a key has to, though it allowed the same address in `--listen`.
    /// FIX: both check the same condition.
    #[test]
    fn a_server_with_a_key_listens_on_networks_by_flag_and_by_socket_activation() {
        let config = |publish_keys| Config {
            listen: vec![([0, 0, 0, 0], 0).into()],
            workers: 1,
            auth: AuthConfig { publish_keys, ..AuthConfig::default() },
            ..Config::default()
        };
        let adopt = |config: &Config| {
            let socket = TcpListener::bind("0.0.0.0:0").expect("a port");
            let passed = PassedSockets { public: vec![socket.into()], ..PassedSockets::default() };
            Listeners::open(passed, config).map(|_| ())
        };
        let adopt_internal = |config: &Config| {
            let socket = TcpListener::bind("0.0.0.0:0").expect("a port");
            let local = Config { listen: vec![([127, 0, 0, 1], 0).into()], ..config.clone() };
            let passed =
                PassedSockets { internal: vec![socket.into()], ..PassedSockets::default() };
            Listeners::open(passed, &local).map(|_| ())
        };
        let bind = |config: &Config| Listeners::bind(config).map(|_| ());
        let bind_internal = |config: &Config| {
            let listen = vec![([127, 0, 0, 1], 0).into()];
            let internal_listen = config.listen.clone();
            Listeners::bind(&Config { listen, internal_listen, ..config.clone() }).map(|_| ())
        };
        let key = Secret::publish_key("a-key-that-is-long-enough").expect("a key");
        let (open, closed) = (config(Vec::new()), config(vec![key]));
        for listen in [
            &adopt as &dyn Fn(&Config) -> Result<(), BindError>,
            &bind,
            &adopt_internal,
            &bind_internal,
        ] {
            assert!(matches!(listen(&open), Err(BindError::Open { .. })));
            assert!(listen(&closed).is_ok());
        }
    }

    /// tcp(7) documents it for `TCP_USER_TIMEOUT` only. Inheriting the others too saves three system calls per
    /// connection.
    #[cfg(target_os = "linux")]
    #[test]
    fn accepted_sockets_inherit_the_options() {
        let config = Config { listen: vec![([127, 0, 0, 1], 0).into()], ..Config::default() };
        let listeners = Listeners::bind(&config).expect("a port");
        let workers = listeners.workers.len();
        let address = listeners.addresses[0].endpoint.tcp().expect("an address");
        let client = std::net::TcpStream::connect(address).expect("it listens");
        // The kernel chose one of the workers' sockets.
        let accepted = std::iter::repeat_with(|| listeners.workers.iter().flatten())
            .take(1_000)
            .flatten()
            .find_map(|listening| match &listening.socket {
                ListeningSocket::Tcp(socket) => socket.accept().ok(),
                ListeningSocket::Unix(_) => None,
            });
        let (accepted, _) = accepted.unwrap_or_else(|| panic!("none of {workers} accepted"));
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(config.peer_timeout));
        assert_eq!(socket.tcp_notsent_lowat().expect("an option"), NOTSENT_LOWAT);
        assert!(socket.tcp_nodelay().expect("an option"));
        drop(client);
    }

    #[test]
    fn a_port_is_not_shared_with_another_server() {
        let config = Config { listen: vec![([127, 0, 0, 1], 0).into()], ..Config::default() };
        let first = Listeners::bind(&config).expect("a port");
        let listen = vec![first.addresses()[0].endpoint.clone()];
        let second = Config { listen, ..config };
        assert!(matches!(
            Listeners::bind(&second),
            Err(BindError::Refused { why, .. }) if why.kind() == io::ErrorKind::AddrInUse
        ));
    }
}
