//! What a client notices that comes back.

use std::io;
use std::ops::Range;

use super::client::{Stream, must_publish};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::protocol::{Client, Notice, Position};
use crate::servers::Server;

/// What became of the events that were published while a client was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resumed {
    pub(crate) missed: usize,
    /// Those of them that arrived when it came back.
    pub(crate) replayed: usize,
    /// Where the client can read it.
    pub(crate) stated: Option<Notice>,
}

/// Asks as an `EventSource`, and as a client of the server's own, if it has any; each has a fresh server. The answer is
/// in few words, and then with figures.
pub(crate) fn as_each_client(
    peer: Peer,
    plan: &Plan,
    log: &dyn Fn(&str),
    ask: impl Fn(&mut Server, Client) -> Outcome<(String, String)>,
) -> Outcome<String> {
    let mut server = peer.start(plan)?;
    let has_own_client = server.protocol().has_own_client();
    log("as an EventSource");
    let browser = ask(&mut server, Client::EventSource)?;
    drop(server);
    if !has_own_client {
        return Ok(format!("{}: {}", browser.0, browser.1));
    }
    log("as its own client");
    let own = ask(&mut peer.start(plan)?, Client::Own)?;
    Ok(match (own.0 == browser.0, own.1 == browser.1) {
        (true, true) => format!("{}: {}", own.0, own.1),
        (true, false) => {
            format!("{}: `EventSource`: {}; its own client: {}", own.0, browser.1, own.1)
        }
        _ => format!(
            "`EventSource` {}, its own client {}: `EventSource`: {}; its own client: {}",
            browser.0, own.0, browser.1, own.1
        ),
    })
}

/// The position of a client that has received these events, which are published meanwhile, and is reset then.
pub(crate) fn position_after(server: &Server, numbers: Range<u32>) -> io::Result<Position> {
    let mut stream = Stream::open_new(server, ORG)?;
    for number in numbers {
        must_publish(server, ORG, number)?;
        stream.must_receive(number)?;
    }
    let position = stream.position();
    stream.reset()?;
    Ok(position)
}

/// How many losses come with the statement that everything has to be read again.
pub(crate) fn stated_of(stated: u32, lost: u32) -> String {
    match stated {
        0 => "and nothing is stated".into(),
        _ if stated == lost => "and stated is that everything has to be read again".into(),
        _ => format!(
            "and {stated} times of {lost} it is stated that everything has to be read again"
        ),
    }
}

// ===== impl Resumed =====

impl Resumed {
    /// A client comes back, and receives what follows, up to event number `last`, which is published then.
    pub(crate) fn receive(
        server: &Server,
        client: Client,
        position: &Position,
        missed: Range<u32>,
        last: u32,
    ) -> io::Result<Self> {
        let mut stream = Stream::come_back(server, client, position)?;
        must_publish(server, ORG, last)?;
        stream.must_receive(last)?;
        Ok(Self::of(&stream, missed))
    }

    /// Of a stream that has received an event behind all of these.
    fn of(stream: &Stream, missed: Range<u32>) -> Self {
        let is_received = |number: &u32| stream.count(*number) > 0;
        Self {
            missed: missed.len(),
            replayed: missed.filter(is_received).count(),
            stated: stream.stated(),
        }
    }

    pub(crate) fn lost(self) -> usize {
        self.missed - self.replayed
    }

    /// Whether the loss, if there is one, is stated.
    pub(crate) fn in_few_words(self) -> &'static str {
        match (self.lost(), self.stated) {
            (0, _) => "nothing is lost",
            (_, Some(Notice::Reread)) => "yes",
            (_, Some(Notice::Complete) | None) => "no",
        }
    }

    pub(crate) fn figures(self) -> String {
        let stated = match self.stated {
            Some(Notice::Reread) => "stated is that everything has to be read again",
            Some(Notice::Complete) => "stated is that nothing is missing",
            None => "nothing is stated",
        };
        format!("{} of {} events arrive, {stated}", self.replayed, self.missed)
    }
}
