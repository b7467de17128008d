//! A server, without threads, sockets and a clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::backplane::broker::{Kind, Record};
use crate::backplane::follower::{Action, CutReason, Follower, Next, Rules, new_tag};
use crate::backplane::payload::Barrier;
use crate::backplane::scripted::{Connection, Scripted, WAIT};
use crate::config::HubConfig;
use crate::hub::tests::turns::turn;
use crate::hub::{CommandPasses, Hub};
use crate::time::Time;

pub(super) struct Node {
    pub(super) hub: Hub,
    pub(super) follower: Follower,
    pub(super) is_loaded: bool,
    passes: CommandPasses,
    broker: Scripted,
    connection: Option<Connection>,
    /// Connections that it has opened.
    pub(super) opens: u64,
    opens_at: Time,
    /// Of its connection.
    identity: String,
    /// When a record came last, or it was asked why none comes.
    quiet_since: Time,
    /// What the follower appends.
    urgent: VecDeque<Record>,
    /// Publishes that wait to be appended: their numbers, kinds and payloads.
    pub(super) waiting: VecDeque<(usize, Kind, String)>,
    /// What was appended, by its tag.
    appended: HashMap<u64, Vec<usize>>,
    /// The tags of the records that it made, and their publishes.
    pub(super) records: Vec<(u64, Vec<usize>)>,
    /// Publishes that are acknowledged.
    pub(super) acknowledged: Vec<usize>,
    pub(super) cuts: Vec<CutReason>,
}

/// Over which time streams re-read.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

// ===== impl Node =====

impl Node {
    pub(super) fn start(
        broker: Scripted,
        config: HubConfig,
        tail_bytes: usize,
        measured: u64,
    ) -> Self {
        let rules = Rules { node: new_tag(), limits: 1, tail_bytes, measured };
        Self {
            hub: Hub::with_log(config, 1, tail_bytes, WINDOW),
            follower: Follower::new(rules),
            is_loaded: false,
            passes: CommandPasses::default(),
            broker,
            connection: None,
            opens: 0,
            opens_at: Time(0),
            identity: String::new(),
            quiet_since: Time(0),
            urgent: VecDeque::new(),
            waiting: VecDeque::new(),
            appended: HashMap::new(),
            records: Vec::new(),
            acknowledged: Vec::new(),
            cuts: Vec::new(),
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.follower.head().map_or(0, |mark| mark.position)
    }

    /// Opens the log, reads from it once, and appends.
    pub(super) fn pump(&mut self, now: Time) {
        if self.follow(now).is_err() {
            self.connection = None;
            self.follower.closed();
            self.opens_at = Time(now.0 + fastrand::u64(50..1_000));
        }
        self.follower.tick(now);
        self.perform(now);
    }

    fn follow(&mut self, now: Time) -> Result<(), ()> {
        let next = self.follower.next();
        if next == Next::Open {
            self.connection = None;
        }
        let Some(connection) = self.connection.clone() else {
            if now >= self.opens_at {
                let (connection, bounds) = self.broker.connect().map_err(|_| ())?;
                self.connection = Some(connection);
                self.opens += 1;
                self.identity.clone_from(&bounds.identity);
                self.quiet_since = now;
                self.urgent.clear();
                self.opens_at = Time(now.0 + fastrand::u64(50..500));
                self.follower.opened(bounds, now);
                self.perform(now);
            }
            return Ok(());
        };
        match next {
            Next::Open => {}
            Next::Bounds => {
                self.follower.bounds(connection.bounds_now().map_err(|_| ())?, now);
            }
            Next::Read(from) => {
                let mut entries = connection.read_now(from).map_err(|_| ())?;
                let is_quiet = entries.is_empty();
                if is_quiet && now >= self.quiet_since.after(WAIT) {
                    connection.quiet_now(from).map_err(|_| ())?;
                }
                if !is_quiet || now >= self.quiet_since.after(WAIT) {
                    self.quiet_since = now;
                }
                entries.truncate(fastrand::usize(1..=entries.len().max(1)));
                self.follower.read(entries, now);
            }
        }
        self.perform(now);
        while let Some(record) = self.next_record() {
            let tag = record.tag;
            self.follower.appending(tag, now);
            match connection.append_now(record).map_err(|_| ())? {
                Some(position) => self.follower.appended(tag, position),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn next_record(&mut self) -> Option<Record> {
        let urgent = self.urgent.pop_front();
        urgent.or_else(|| self.follower.is_current().then(|| self.take_group()).flatten())
    }

    /// All lines that wait, or one barrier.
    fn take_group(&mut self) -> Option<Record> {
        let (number, kind, mut text) = self.waiting.pop_front()?;
        let mut numbers = vec![number];
        while kind == Kind::Lines
            && let Some((_, Kind::Lines, _)) = self.waiting.front()
            && let Some((number, _, more)) = self.waiting.pop_front()
        {
            numbers.push(number);
            text.push_str(&more);
        }
        if let Some(barrier) = Barrier::parse(text.as_bytes()) {
            let barrier = Barrier { identity: self.identity.clone(), ..barrier };
            text = String::from_utf8(barrier.to_bytes().into()).expect("JSON");
        }
        let tag = new_tag();
        self.records.push((tag, numbers.clone()));
        self.appended.insert(tag, numbers);
        Some(Record { tag, kind, payload: text.into() })
    }

    fn perform(&mut self, now: Time) {
        while let Some(action) = self.follower.action() {
            let mark = match action {
                Action::Begin(oldest) => {
                    self.hub.begin_log(oldest);
                    continue;
                }
                Action::Apply(mark, lines) => {
                    self.hub.apply(mark, &lines, now);
                    mark
                }
                Action::Cut(mark, reason) => {
                    self.hub.cut(mark, now);
                    self.cuts.push(reason);
                    mark
                }
                Action::Append(record) => {
                    self.urgent.push_back(record);
                    continue;
                }
                Action::Loaded => {
                    self.is_loaded = true;
                    continue;
                }
                Action::Reopen(_) | Action::Note(_) => continue,
            };
            self.acknowledged.extend(self.appended.remove(&mark.tag).into_iter().flatten());
        }
    }

    /// The driver does its work.
    pub(super) fn drive(&mut self, now: Time) {
        turn(&self.hub, &mut self.passes, now);
    }
}
