//! Streams that go from one reactor to another, as they go from one process to the next: over the same control socket.

mod clocks;
mod given;
mod kept;
mod limits;
mod passed;
#[cfg(feature = "tls")]
mod sealed;

use std::io::BufReader;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use tokio::time::Instant;

use super::*;
use crate::server::upgrade::adopt::{AdoptError, Adopter, Taken};
use crate::server::upgrade::control::Control;
use crate::server::upgrade::freeze::{Freeze, Outcome, SentStreams};
use crate::server::upgrade::memory_file;
use crate::server::upgrade::message::Message;
use crate::server::upgrade::stream_records::{StreamConnState, StreamReader};
use crate::server::upgrade::successor::Successor;
use crate::state::RecordWriter;

/// What a rig has given.
pub(super) struct Given {
    sent: SentStreams,
    /// Or why not.
    taken: Result<u64, String>,
    states: Vec<StreamConnState>,
}

/// The client's end of a stream, in the clear or behind TLS.
trait Receiver {
    /// Reads up to `most` available bytes.
    fn read(&mut self, most: usize) -> usize;

    fn client(&self) -> &Client;
}

/// The two ends of the socket between the processes.
pub(super) struct Ends {
    old: Arc<Control>,
    pub(super) new: Arc<Control>,
}

// ===== impl Receiver =====

impl Receiver for Client {
    fn read(&mut self, most: usize) -> usize {
        Self::read(self, most)
    }

    fn client(&self) -> &Client {
        self
    }
}

// ===== impl Ends =====

impl Ends {
    fn new() -> Self {
        let (old, new) = Control::pair().expect("a socket pair");
        let new = Control::new(new).expect("the other end");
        Self { old: Arc::new(old), new: Arc::new(new) }
    }
}

// ===== impl Rig =====

impl Rig {
    /// One whose clock has gone on for so long that what it takes may be old.
    fn aged(config: Config) -> Self {
        let (hub, clock) = (Hub::new(config.hub.clone()), Clock::start_after(Duration::ZERO));
        hub.begin(clock.now());
        Self::on(hub, config, clock)
    }

    /// Its only stream gets what is published from now on.
    async fn goes_on(&mut self, client: &mut Client) {
        self.publish("after");
        self.run_until(|| {
            client.read(4096);
            client.keys() == ["after"]
        })
        .await;
    }

    /// Freezes this rig while `act` runs in the thread of the upgrade.
    async fn frozen<T: Send + 'static>(
        &mut self,
        ends: &Ends,
        act: impl FnOnce(&Freeze) -> (Outcome, T) + Send + 'static,
    ) -> T {
        let freeze = Freeze::begin(std::slice::from_ref(&self.handle), &ends.old);
        let upgrade = thread::spawn(move || {
            freeze.wait_stopped(soon()).expect("it stops");
            let (outcome, result) = act(&freeze);
            freeze.release(&outcome);
            result
        });
        self.run_until(|| upgrade.is_finished()).await;
        upgrade.join().expect("no panic")
    }

    /// Publishes the [`key`]s of these numbers, one at a time.
    async fn publish_each(&mut self, numbers: Range<usize>) {
        for n in numbers {
            self.publish(&key(n));
            self.run().await;
        }
    }

    /// Each client receives the [`key`]s of the numbers below `count`, once and in order, after one `connected`. The
    /// second one reads slowly.
    async fn deliver_all(&mut self, count: usize, clients: [&mut dyn Receiver; 2]) {
        let [idle, blocked] = clients;
        self.run_until(|| {
            idle.read(4096);
            blocked.read(211);
            idle.client().keys().len() == count && blocked.client().keys().len() == count
        })
        .await;
        for client in [idle.client(), blocked.client()] {
            assert!(client.keys().into_iter().eq((0..count).map(key)));
            assert_eq!(client.events.len(), count + 1, "one `connected`");
            assert!(!client.unframed.ended);
        }
    }

    /// Sends the streams of this rig to a process that fails then.
    async fn give_in_vain(&mut self) -> SentStreams {
        let ends = Ends::new();
        let sent = self.frozen(&ends, |freeze| {
            let sent = freeze.send_streams(soon()).expect("the streams are sent");
            (Outcome::Kept, sent)
        });
        sent.await
    }

    /// Gives the streams of this rig to `next`.
    pub(super) async fn give(&mut self, next: &Self) -> (Ends, Given) {
        self.give_changed(next, |_| ()).await
    }

    /// The same, but for a change to each record on its way.
    async fn give_changed(
        &mut self,
        next: &Self,
        change: impl Fn(&mut StreamConnState) + Send + 'static,
    ) -> (Ends, Given) {
        let ends = Ends::new();
        let (old, new) = (ends.old.clone(), ends.new.clone());
        let adopter = next.adopter();
        self.hand_over_hub(next);
        let sent = self.frozen(&ends, move |freeze| {
            let sent = freeze.send_streams(soon()).expect("the streams are sent");
            let (states, taken) = receive(&new, adopter, change);
            let taken = taken.map_err(|why| why.to_string());
            assert!(taken.as_ref().is_err() || taken == Ok(sent.given));
            let outcome = match taken {
                Ok(_) => Outcome::Given(Successor::new(old)),
                Err(_) => Outcome::Kept,
            };
            (outcome, Given { sent, taken, states })
        });
        let given = sent.await;
        (ends, given)
    }

    fn adopter(&self) -> Adopter {
        let now = self.clock.now();
        Adopter::new(vec![self.handle.clone()], self.admission.clone(), None, now)
    }

    /// What its hub remembers goes first.
    fn hand_over_hub(&self, next: &Self) {
        let mut records = Vec::new();
        let mut keep = |record| {
            records.push(record);
            Ok(())
        };
        self.hub.save(self.clock.now(), &mut keep).expect("memory");
        for record in records {
            next.hub.restore(record, Duration::ZERO, next.clock.now()).expect("a record");
        }
    }
}

/// Two reactors, from the first of which streams go to the second.
fn two(hub: HubConfig) -> (Rig, Rig) {
    let config = Config { hub, ..Config::default() };
    (Rig::aged(config.clone()), Rig::aged(config))
}

/// A key of 300 bytes.
fn key(n: usize) -> String {
    format!("{n:0>300}")
}

/// Takes the streams of one worker, and returns their records too.
fn receive(
    control: &Control,
    adopter: Adopter,
    change: impl Fn(&mut StreamConnState),
) -> (Vec<StreamConnState>, Result<u64, AdoptError>) {
    receive_lanes(control, 1, adopter, change)
}

/// The same of so many workers, and the records of the last.
fn receive_lanes(
    control: &Control,
    lanes: usize,
    mut adopter: Adopter,
    change: impl Fn(&mut StreamConnState),
) -> (Vec<StreamConnState>, Result<u64, AdoptError>) {
    let mut states = Vec::new();
    while adopter.complete_lanes() < lanes {
        let (message, mut descriptors) = control.receive(soon()).expect("a message");
        let taken = match message {
            Message::Streams { lane, count } => {
                let file = memory_file::received(descriptors.remove(0)).expect("a file");
                let mut reader = StreamReader::new(BufReader::new(file));
                states = std::iter::from_fn(|| reader.next().expect("a record")).collect();
                states.iter_mut().for_each(&change);
                adopter.lane(lane, count, file_of(&states))
            }
            Message::Sockets { lane } => adopter.sockets(lane, descriptors),
            other => panic!("{other:?}"),
        };
        if let Err(why) = taken {
            return (states, Err(why));
        }
    }
    let begin = |taken: Taken| {
        let count = taken.count;
        taken.begin();
        count
    };
    (states, adopter.finish().map(begin))
}

fn file_of(states: &[StreamConnState]) -> OwnedFd {
    let mut writer = RecordWriter::new(memory_file::create().expect("memory"));
    states.iter().for_each(|state| writer.write(state).expect("memory"));
    writer.finish().expect("memory").into()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Registrations of a server's end with pollers of this process.
fn registrations(socket: &TcpStream) -> usize {
    let inode = std::os::unix::fs::MetadataExt::ino(&inode_of(socket));
    let wanted = format!("ino:{inode:x} ");
    let infos = std::fs::read_dir("/proc/self/fdinfo").expect("procfs");
    let texts = infos.flatten().filter_map(|info| std::fs::read_to_string(info.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.contains(&wanted)).count()).sum()
}

fn inode_of(socket: &TcpStream) -> std::fs::Metadata {
    use std::os::fd::AsFd as _;
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().expect("a descriptor"));
    file.metadata().expect("open")
}
