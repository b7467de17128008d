//! A client that cannot get everything that it missed.

use std::io;

use super::client::must_publish;
use super::resumed::{Resumed, as_each_client, position_after};
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::protocol::{Client, Position};
use crate::servers::Server;

pub(crate) const GAP: Question = Question {
    key: "gap",
    short: "a gap is stated",
    title: "Is a gap stated, if more was missed than the history has?",
    how: "As above, but 40 events are published during the disconnect, and servers with a setting for it have a \
          history of 16. What counts as stated is what this client can read: an `EventSource` reads events, but no field \
          of the response's head, such as `Mercure-Last-Event-ID`. A page may always read everything again on `open`; \
          that is no statement of the server. Mercure's Bolt transport removes what is beyond its size in three of ten \
          publishes, by chance.",
    ask: Ask::Each(gap),
};

pub(crate) const UNKNOWN: Question = Question {
    key: "unknown",
    short: "an unknown id is stated",
    title: "Is an id stated to be unknown?",
    how: "A client comes with the position that another instance of the server has given it, which has had 3 events; \
          this one has had 5 since its start, all of which this client has missed. The protocol of Durable Streams promises \
          that everything follows only for an offset of the same stream.",
    ask: Ask::Each(unknown),
};

const HISTORY: usize = 16;
const MISSED: u32 = 40;
/// Events of an instance, and of the one after it.
const BEFORE: u32 = 3;
const SINCE: u32 = 5;

fn gap(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    let plan = Plan { history: Some(HISTORY), ..plan.clone() };
    as_each_client(peer, &plan, log, |server, client| Ok(words(miss_many(server, client)?)))
}

/// What a client receives that was away for longer than the history goes back.
pub(crate) fn miss_many(server: &Server, client: Client) -> io::Result<Resumed> {
    let position = position_after(server, 0..1)?;
    for number in 1..=MISSED {
        must_publish(server, ORG, number)?;
    }
    Resumed::receive(server, client, &position, 1..MISSED + 1, MISSED + 1)
}

fn unknown(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    let position = position_elsewhere(peer, plan)?;
    as_each_client(peer, plan, log, |server, client| {
        Ok(words(come_from_elsewhere(server, client, &position)?))
    })
}

/// That of a client of an instance that runs no more.
pub(crate) fn position_elsewhere(peer: Peer, plan: &Plan) -> io::Result<Position> {
    position_after(&peer.start(plan)?, 0..BEFORE)
}

/// What a client receives that comes with the position of another instance.
pub(crate) fn come_from_elsewhere(
    server: &Server,
    client: Client,
    position: &Position,
) -> io::Result<Resumed> {
    let since = BEFORE..BEFORE + SINCE;
    position_after(server, since.clone())?;
    Resumed::receive(server, client, position, since.clone(), since.end)
}

fn words(resumed: Resumed) -> (String, String) {
    (resumed.in_few_words().to_owned(), resumed.figures())
}
