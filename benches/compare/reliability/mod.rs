//! What becomes of clients and events when something goes wrong: questions that are asked of every server in the same
//! way, by trying.

pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod disconnect;
mod family;
pub(crate) mod gap;
pub(crate) mod kill;
pub(crate) mod limit;
mod padded;
pub(crate) mod resumed;
pub(crate) mod sigterm;
mod sockets;
pub(crate) mod table;
mod unread;
mod vanished;

use std::io::{self, ErrorKind};

use super::measure::{Outcome, Plan};
use super::peer::Peer;

/// What is asked, and how.
pub(crate) struct Question {
    /// Its name in `--ask`.
    pub(crate) key: &'static str,
    /// The head of its column.
    pub(crate) short: &'static str,
    pub(crate) title: &'static str,
    /// What is done to answer it.
    pub(crate) how: &'static str,
    pub(crate) ask: Ask,
}

/// Answers a question in words with figures, from what was observed. What precedes the first `: ` is the answer in few
/// words.
pub(crate) enum Ask {
    /// For one server after the other.
    Each(fn(Peer, &Plan, Log<'_>) -> Outcome<String>),
    /// For all servers at once, because it waits for long: one answer for each, in their order.
    Together(fn(&[Peer], &Plan, Log<'_>) -> Vec<Outcome<String>>),
}

/// What is reported meanwhile.
type Log<'a> = &'a dyn Fn(&str);

/// The answers to a question, one for each server; `Err` has the reason why one was not found.
pub(crate) struct Answers {
    pub(crate) question: &'static Question,
    pub(crate) answers: Vec<Result<String, String>>,
}

pub(crate) const QUESTIONS: [&Question; 9] = [
    &disconnect::QUESTION,
    &gap::GAP,
    &gap::UNKNOWN,
    &unread::QUESTION,
    &vanished::QUESTION,
    &limit::CONNECTIONS,
    &limit::DESCRIPTORS,
    &sigterm::QUESTION,
    &kill::QUESTION,
];

/// The questions with these keys, or all.
pub(crate) fn questions(keys: &[String]) -> impl Iterator<Item = &'static Question> {
    let is_asked =
        |question: &&Question| keys.is_empty() || keys.iter().any(|key| key == question.key);
    QUESTIONS.into_iter().filter(is_asked)
}

/// Asks these servers. Each question has servers of its own.
pub(crate) fn ask(question: &'static Question, peers: &[Peer], plan: &Plan) -> Answers {
    let log = |name: &str, what: &str| eprintln!("{}: {name}: {what}", question.key);
    let noted = |peer: Peer, found: Outcome<String>| {
        let answer = found.map_err(|why| why.to_string());
        match &answer {
            Ok(answer) => log(peer.name(), answer),
            Err(why) => log(peer.name(), &format!("FAULT: {why}")),
        }
        answer
    };
    let answers = match question.ask {
        Ask::Each(ask) => {
            let ask = |peer: &Peer| noted(*peer, ask(*peer, plan, &|what| log(peer.name(), what)));
            peers.iter().map(ask).collect()
        }
        Ask::Together(ask) => {
            let found = ask(peers, plan, &|what| log("all", what));
            peers.iter().zip(found).map(|(peer, found)| noted(*peer, found)).collect()
        }
    };
    Answers { question, answers }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

// ===== impl Answers =====

impl Answers {
    pub(crate) fn is_complete(&self) -> bool {
        self.answers.iter().all(Result::is_ok)
    }
}
