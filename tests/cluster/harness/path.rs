//! The path between a node and the broker: a TCP proxy that has faults. It reads what the broker sends message by
//! message, so that it can delay or lose single ones.

mod messages;

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use self::messages::Message;
pub(crate) use self::messages::Protocol;

/// Ends with the test's process.
pub(crate) struct FaultyPath {
    pub(crate) address: SocketAddr,
    state: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    protocol: Protocol,
    fault: Mutex<Fault>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Acknowledgements that were lost or delayed.
    acks: AtomicUsize,
    /// Records that were lost.
    lost: AtomicUsize,
}

struct Connection {
    node: TcpStream,
    broker: TcpStream,
    is_reset: AtomicBool,
    /// Several threads send whole messages to the node.
    turn: Mutex<()>,
    /// Nothing more that the node sends arrives.
    node_is_mute: AtomicBool,
    /// Nothing more that the broker sends arrives.
    broker_is_mute: AtomicBool,
}

/// What happens from now on, also to the connections that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every connection is reset.
    Reset,
    /// Nothing arrives, and nothing is reset.
    Silence,
    /// Nothing arrives that the broker sends.
    SilentBroker,
    /// One in some records does not arrive, and what follows it does. Of a broker that sends records one by one.
    LostRecords,
    /// The acknowledgements of stored records do not arrive. Where answers are in order, nothing arrives after them.
    NoAcks,
    /// They arrive this much later. Where answers are in order, what follows does too.
    LateAcks(Duration),
}

// ===== impl FaultyPath =====

impl FaultyPath {
    pub(crate) fn to(to: SocketAddr, protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Shared {
            to,
            protocol,
            fault: Mutex::new(Fault::None),
            connections: Mutex::default(),
            acks: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                _ = shared.accept(node);
            }
        });
        Self { address, state }
    }

    /// What was broken stays broken: a connection that was mute stays mute, as one whose peer has forgotten it.
    pub(crate) fn set(&self, fault: Fault) {
        *lock(&self.state.fault) = fault;
        let mut connections = lock(&self.state.connections);
        connections.iter().for_each(|connection| connection.suffer(fault));
        if fault == Fault::Reset {
            connections.clear();
        }
    }

    /// The connections that there are become mute in both directions; new ones work.
    pub(crate) fn half_open(&self) {
        let connections = lock(&self.state.connections);
        connections.iter().for_each(|connection| connection.suffer(Fault::Silence));
    }

    /// Records that were lost so far.
    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Acknowledgements that were lost or delayed so far.
    pub(crate) fn acks(&self) -> usize {
        self.state.acks.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ===== impl Shared =====

impl Shared {
    fn accept(self: &Arc<Self>, node: TcpStream) -> io::Result<()> {
        let fault = *lock(&self.fault);
        if fault == Fault::Reset {
            return SockRef::from(&node).set_linger(Some(Duration::ZERO));
        }
        let broker = match TcpStream::connect(self.to) {
            Ok(broker) => broker,
            Err(why) => {
                SockRef::from(&node).set_linger(Some(Duration::ZERO))?;
                return Err(why);
            }
        };
        node.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let connection = Arc::new(Connection {
            node,
            broker,
            is_reset: AtomicBool::new(false),
            turn: Mutex::new(()),
            node_is_mute: AtomicBool::new(false),
            broker_is_mute: AtomicBool::new(false),
        });
        {
            let mut connections = lock(&self.connections);
            connections.retain(|connection| connection.node.peer_addr().is_ok());
            connections.push(Arc::clone(&connection));
        }
        // The fault may have begun meanwhile.
        connection.suffer(*lock(&self.fault));
        let other = Arc::clone(&connection);
        thread::spawn(move || {
            _ = other.pass_on();
            other.close();
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            _ = shared.pass_back(&connection);
            connection.close();
        });
        Ok(())
    }

    /// Passes on what the broker sends, message by message.
    fn pass_back(&self, connection: &Arc<Connection>) -> io::Result<()> {
        let mut broker = BufReader::new(&connection.broker);
        while let Some(Message { bytes, is_ack, has_lines }) = self.protocol.read(&mut broker)? {
            match *lock(&self.fault) {
                Fault::LostRecords if has_lines && fastrand::u8(..) < 25 => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                Fault::NoAcks if is_ack => {
                    self.acks.fetch_add(1, Ordering::Relaxed);
                    if self.protocol.is_in_order() {
                        connection.broker_is_mute.store(true, Ordering::Relaxed);
                    }
                }
                Fault::LateAcks(delay) if is_ack => {
                    self.acks.fetch_add(1, Ordering::Relaxed);
                    let late = Arc::clone(connection);
                    let send = move || {
                        thread::sleep(delay);
                        _ = late.send_to_node(&bytes);
                    };
                    if self.protocol.is_in_order() {
                        send();
                    } else {
                        thread::spawn(send);
                    }
                }
                _ => connection.send_to_node(&bytes)?,
            }
        }
        Ok(())
    }
}

// ===== impl Connection =====

impl Connection {
    fn suffer(&self, fault: Fault) {
        match fault {
            Fault::Reset => {
                // Its threads end, and then the sockets are closed, with RST. What comes before that is not passed on.
                self.is_reset.store(true, Ordering::Relaxed);
                self.node_is_mute.store(true, Ordering::Relaxed);
                self.broker_is_mute.store(true, Ordering::Relaxed);
                for socket in [&self.node, &self.broker] {
                    _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                    _ = socket.shutdown(Shutdown::Read);
                }
            }
            Fault::Silence => {
                self.node_is_mute.store(true, Ordering::Relaxed);
                self.broker_is_mute.store(true, Ordering::Relaxed);
            }
            Fault::SilentBroker => self.broker_is_mute.store(true, Ordering::Relaxed),
            Fault::None | Fault::LostRecords | Fault::NoAcks | Fault::LateAcks(_) => {}
        }
    }

    /// Passes on what the node sends.
    fn pass_on(&self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = (&self.node).read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            if !self.node_is_mute.load(Ordering::Relaxed) {
                (&self.broker).write_all(&buffer[..read])?;
            }
        }
    }

    fn send_to_node(&self, message: &[u8]) -> io::Result<()> {
        if self.broker_is_mute.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _turn = lock(&self.turn);
        (&self.node).write_all(message)
    }

    /// Ends the other side as one has ended.
    fn close(&self) {
        if self.is_reset.load(Ordering::Relaxed) {
            return;
        }
        let mute = self.node_is_mute.load(Ordering::Relaxed)
            || self.broker_is_mute.load(Ordering::Relaxed);
        // A peer behind a silent path does not notice that the other one has gone.
        if !mute {
            _ = self.node.shutdown(Shutdown::Both);
        }
        _ = self.broker.shutdown(Shutdown::Both);
    }
}
