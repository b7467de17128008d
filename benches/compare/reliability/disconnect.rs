//! An event that is published while a client is away.

use std::io;
use std::thread;
use std::time::Duration;

use super::client::{Stream, must_publish};
use super::resumed::{as_each_client, position_after, stated_of};
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::protocol::{Client, Notice};
use crate::servers::Server;

pub(crate) const QUESTION: Question = Question {
    key: "disconnect",
    short: "an event during a disconnect arrives",
    title: "Is an event received that was published during a disconnect?",
    how: "A client has received an event, its connection is reset, another event is published, and half a second later \
          it comes back: as an `EventSource` does, with the same URL and `Last-Event-ID`, and, where a server has \
          clients of its own, as those do. Then a third event is published: if that arrives without the second, the \
          second is lost. Ten times.",
    ask: Ask::Each(ask),
};

const TIMES: u32 = 10;
/// How long a client is away after the event was accepted, which may still be on its way through a broker.
const AWAY: Duration = Duration::from_millis(500);

/// How often the event arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) once: u32,
    pub(crate) repeatedly: u32,
    pub(crate) lost: u32,
    /// How often it was lost, and the client can read that it has to read everything again.
    pub(crate) stated: u32,
}

fn ask(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    as_each_client(peer, plan, log, |server, client| {
        let received = come_back(server, client)?;
        Ok((received.in_few_words().to_owned(), received.figures()))
    })
}

pub(crate) fn come_back(server: &Server, client: Client) -> io::Result<Received> {
    let mut received = Received::default();
    for turn in 0..TIMES {
        let (before, meanwhile, after) = (3 * turn, 3 * turn + 1, 3 * turn + 2);
        let position = position_after(server, before..meanwhile)?;
        must_publish(server, ORG, meanwhile)?;
        thread::sleep(AWAY);
        let mut stream = Stream::come_back(server, client, &position)?;
        must_publish(server, ORG, after)?;
        stream.must_receive(after)?;
        match stream.count(meanwhile) {
            0 => {
                received.lost += 1;
                received.stated += u32::from(stream.stated() == Some(Notice::Reread));
            }
            1 => received.once += 1,
            _ => received.repeatedly += 1,
        }
        stream.reset()?;
    }
    Ok(received)
}

// ===== impl Received =====

impl Received {
    fn in_few_words(self) -> &'static str {
        match (self.lost, self.once + self.repeatedly) {
            (0, _) => "yes",
            (_, 0) if self.stated == self.lost => "no, but stated",
            (_, 0) => "no",
            _ => "sometimes",
        }
    }

    fn figures(self) -> String {
        let Self { once, repeatedly, lost, stated } = self;
        let twice = match repeatedly {
            0 => String::new(),
            _ => format!(", {repeatedly} more than once"),
        };
        let stated = match lost {
            0 => String::new(),
            _ => format!(", {}", stated_of(stated, lost)),
        };
        format!("{} of {TIMES} arrive{twice}{stated}", once + repeatedly)
    }
}
