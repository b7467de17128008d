//! A server that is killed and started again.

use std::io;
use std::time::Duration;

use rustix::process::Signal;

use super::client::{Stream, must_publish};
use super::family::{family, signal};
use super::resumed::{as_each_client, position_after, stated_of};
use super::{Ask, Question, timed_out};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::protocol::{Client, Notice};
use crate::servers::Server;
use crate::shared::process::now;

pub(crate) const QUESTION: Question = Question {
    key: "kill",
    short: "after kill -9 and a restart",
    title: "What becomes of events around a kill -9 and a restart?",
    how: "A client has received an event and loses its connection. An event is published and accepted; then all processes \
          of the server get SIGKILL (not its broker, if it has one), and it is started again at the same port, with what it has \
          stored. Another event is published and accepted, and the client comes back. Three times.",
    ask: Ask::Each(ask),
};

/// What a client received and could read, after all restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarted {
    /// Times that the event from before the kill arrived, and that from after it.
    pub(crate) before: u32,
    pub(crate) after: u32,
    /// Times that something was missing and that was stated, or not.
    pub(crate) stated: u32,
    pub(crate) silent: u32,
    /// Times that an event did not arrive either that was published once the client was back.
    pub(crate) stuck: u32,
    /// The longest time until the server accepted a publish again.
    pub(crate) took: Duration,
}

const TIMES: u32 = 3;
/// How long a server may take until it accepts publishes and streams again.
const BOUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

fn ask(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    as_each_client(peer, plan, log, |server, client| {
        let restarted = restart(server, client)?;
        Ok((restarted.in_few_words().to_owned(), restarted.figures()))
    })
}

pub(crate) fn restart(server: &mut Server, client: Client) -> io::Result<Restarted> {
    let mut restarted = Restarted::default();
    for turn in 0..TIMES {
        let [first, before, after, last] = [0, 1, 2, 3].map(|number| 4 * turn + number);
        let position = position_after(server, first..before)?;
        must_publish(server, ORG, before)?;
        kill(server)?;
        let start = now();
        server.restart()?;
        server.create(ORG).ok();
        repeatedly(|| must_publish(server, ORG, after))?;
        restarted.took = restarted.took.max(start.elapsed());
        let mut stream = repeatedly(|| Stream::come_back(server, client, &position))?;
        must_publish(server, ORG, last)?;
        restarted.stuck += u32::from(stream.must_receive(last).is_err());
        let [before, after] = [before, after].map(|number| u32::from(stream.count(number) > 0));
        restarted.before += before;
        restarted.after += after;
        match (before + after, stream.stated()) {
            (2, _) => {}
            (_, Some(Notice::Reread)) => restarted.stated += 1,
            _ => restarted.silent += 1,
        }
        stream.reset()?;
    }
    Ok(restarted)
}

/// Ends all processes of a server at once.
fn kill(server: &mut Server) -> io::Result<()> {
    let process = server.process();
    for id in family(process.id())? {
        // A child may have ended with its parent.
        signal(id, Signal::KILL).ok();
    }
    process.child.wait().map(drop)
}

/// Does something until it succeeds: a server may listen before it can respond.
fn repeatedly<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = now();
    loop {
        match act() {
            Ok(done) => return Ok(done),
            Err(why) if start.elapsed() > BOUND => {
                return Err(timed_out(&format!("for {BOUND:?}: {why}")));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

// ===== impl Restarted =====

impl Restarted {
    fn in_few_words(self) -> &'static str {
        match (self.stated, self.silent + self.stuck) {
            (0, 0) => "nothing is lost",
            (_, 0) => "the loss is stated",
            (0, _) => "the loss is silent",
            _ => "the loss is sometimes silent",
        }
    }

    fn figures(self) -> String {
        let Self { before, after, stated, silent, stuck, took } = self;
        let lost = match stated + silent {
            0 => String::new(),
            lost => format!(", {}", stated_of(stated, lost)),
        };
        let stuck = match stuck {
            0 => String::new(),
            _ => format!(
                ", an event that is published once the client is back does not arrive {stuck} times"
            ),
        };
        format!(
            "that from before the kill arrives {before} times of {TIMES}, that from after it {after} times{lost}{stuck}; \
             publishes are accepted again within {:.1} s",
            took.as_secs_f64()
        )
    }
}
