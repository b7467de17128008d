//! Topics that come and go: opened, published to, closed or left to age, in every order, by one client after the other.
//! Each of their streams has to receive every event in order, with its end.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nudged::wire::Event;

use super::client::{Client, subscribe};
use super::phase::{Phase, Role, Shared, add};
use super::server::TOPIC_EVENTS;
use crate::shared::http::JSON;
use crate::shared::process::now;

/// What becomes of a topic.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// Published to, then read from its beginning, and closed.
    Late,
    /// Read while it is published to, and closed.
    Live,
    /// Published to, never read, and left to age.
    Unread,
    /// Read in part by a client that leaves, and left to age.
    Abandoned,
    /// Read by a client that loses its connection, and comes back for the rest.
    Resumed,
    /// Read by one client, which another one replaces.
    Replaced,
    /// Published to beyond what it keeps of bulk events, by a client that does not read; the reader is reset.
    Flooded,
    /// Opened, and left without an event.
    Empty,
}

/// A topic of its own, and how many events it has.
struct Topic {
    address: SocketAddr,
    path: String,
    events: u64,
}

/// More than 100,000 an hour, with the pauses of checkpoints.
const EVERY: Duration = Duration::from_millis(25);

const REASON: &str = "done";

pub(crate) fn run(address: SocketAddr, shared: &Arc<Shared>) -> Result<(), Box<dyn Error>> {
    let mut due = now();
    for number in 0_usize.. {
        match shared.phase() {
            Phase::Run => {
                let path = format!("/api/topics-{}/topics/run-{number}/events", number % 16);
                let life = Life::ALL[number % Life::ALL.len()];
                let mut topic = Topic { address, path, events: 0 };
                topic.live(life).map_err(|why| format!("{life:?}, {}: {why}", topic.path))?;
                add(&shared.tally.topics, 1);
                add(&shared.tally.topic_events, topic.events);
                due = (due + EVERY).max(now() - 10 * EVERY);
                thread::sleep(due.saturating_duration_since(now()));
            }
            Phase::Stop => break,
            phase => {
                shared.idle(Role::Topics, phase);
                due = now();
            }
        }
    }
    Ok(())
}

// ===== impl Life =====

impl Life {
    const ALL: [Self; 8] = [
        Self::Late,
        Self::Live,
        Self::Unread,
        Self::Abandoned,
        Self::Resumed,
        Self::Replaced,
        Self::Flooded,
        Self::Empty,
    ];
}

// ===== impl Topic =====

impl Topic {
    fn live(&mut self, life: Life) -> io::Result<()> {
        match life {
            Life::Late => {
                self.publish(5, false)?;
                let mut stream = self.open("", None, "connected")?;
                self.expect(&mut stream, 1..=5)?;
                self.close(&mut stream)
            }
            Life::Live => {
                let mut stream = self.open("", None, "connected")?;
                for event in 1..=5 {
                    self.publish(1, event % 2 == 0)?;
                    self.expect(&mut stream, event..=event)?;
                }
                self.close(&mut stream)
            }
            Life::Unread => self.publish(8, true),
            Life::Abandoned => {
                self.publish(3, false)?;
                let mut stream = self.open("", None, "connected")?;
                self.expect(&mut stream, 1..=2)
            }
            Life::Resumed => {
                self.publish(3, false)?;
                let mut stream = self.open("", None, "connected")?;
                self.expect(&mut stream, 1..=2)?;
                let last = stream.last_event_id().to_owned();
                stream.reset()?;
                self.publish(2, false)?;
                let mut stream = self.open("", Some(&last), "resumed")?;
                self.expect(&mut stream, 3..=5)?;
                self.close(&mut stream)
            }
            Life::Replaced => {
                let mut first = self.open("", None, "connected")?;
                let mut second = self.open("?exclusive", None, "connected")?;
                self.expect_closed(&mut first, "replaced")?;
                self.publish(1, false)?;
                self.expect(&mut second, 1..=1)
            }
            Life::Flooded => {
                let stream = self.open("", None, "connected")?;
                self.publish(4 * TOPIC_EVENTS, true)?;
                stream.reset()
            }
            Life::Empty => self.open("", None, "connected").map(drop),
        }
    }

    fn publish(&mut self, count: u64, bulk: bool) -> io::Result<()> {
        let mut client = Client::connect(self.address)?;
        for _ in 0..count {
            self.events += 1;
            let body = format!(
                "{{\"event\":\"output\",\"data\":{{\"n\":{},\"x\":\"{}\"}},\"bulk\":{bulk}}}",
                self.events,
                "x".repeat(fastrand::usize(..400))
            );
            client.post(&self.path, JSON, &body)?;
        }
        Ok(())
    }

    /// A stream that has its greeting.
    fn open(&self, query: &str, last: Option<&str>, greeting: &str) -> io::Result<Client> {
        let mut client = Client::connect(self.address)?;
        client.send(&subscribe(&format!("{}{query}", self.path), last))?;
        let event = client.greeting()?;
        if event.name == greeting { Ok(client) } else { Err(unexpected(&event, greeting)) }
    }

    /// Reads the events with these numbers.
    fn expect(&self, stream: &mut Client, numbers: impl Iterator<Item = u64>) -> io::Result<()> {
        for number in numbers {
            let event = stream.event()?;
            if event.name != "output" || !event.data.starts_with(&format!("{{\"n\":{number},")) {
                return Err(unexpected(&event, &format!("event {number}")));
            }
        }
        Ok(())
    }

    /// Closes it, which its stream has to receive.
    fn close(&self, stream: &mut Client) -> io::Result<()> {
        let mut client = Client::connect(self.address)?;
        client.delete(&self.path, &format!("{{\"reason\":\"{REASON}\"}}"))?;
        self.expect_closed(stream, REASON)
    }

    fn expect_closed(&self, stream: &mut Client, reason: &str) -> io::Result<()> {
        let event = stream.event()?;
        let expected = format!("{{\"reason\":\"{reason}\"}}");
        if event.name != "closed" || event.data != expected {
            return Err(unexpected(&event, &expected));
        }
        stream.expect_end()
    }
}

fn unexpected(event: &Event, expected: &str) -> io::Error {
    io::Error::other(format!("{event:?} instead of {expected}"))
}
