//! What happens, step by step, and what must be true in the end.

use std::collections::HashMap;
use std::time::Duration;

use super::backends::Publish;
use super::browser::Browser;
use super::node::{Node, WINDOW};
use crate::backplane::broker::{Entry, Kind};
use crate::backplane::scripted::{Scripted, Semantics};
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::ids::Mark;
use crate::time::Time;

/// The newest version of each key of each org.
pub(super) type Database = [[u64; KEYS]; 2];

pub(super) struct World {
    pub(super) profile: Profile,
    pub(super) semantics: Semantics,
    pub(super) now: Time,
    pub(super) broker: Scripted,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) browsers: Vec<Browser>,
    pub(super) database: Database,
    /// The newest version of each key whose publish was acknowledged.
    pub(super) acknowledged: Database,
    pub(super) publishes: Vec<Publish>,
    /// Those of each record, by its tag.
    pub(super) records: HashMap<u64, Vec<usize>>,
    pub(super) config: HubConfig,
    pub(super) tail_bytes: usize,
    /// Few, so that servers start within the log too.
    measured: u64,
    /// Until then the log seems to be shorter than it is.
    pub(super) lags_until: Time,
    /// The broker has lost records of which only these servers can know, each of which had opened it so often. They run
    /// until all can know.
    pub(super) aware: Vec<(usize, u64)>,
    pub(super) runs: u64,
    /// How often records are lost, in percent: what is lost early must not be hidden by what has everyone re-read later.
    pub(super) losses: u8,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Everything.
    Hostile,
    /// What loses no record.
    Benign,
    /// The same, with small memories, and commands that have clients re-read.
    Commanded,
}

pub(super) const KEYS: usize = 6;

pub(super) const ORGS: [&str; 2] = ["acme", "else"];

/// Keys with even numbers are public.
pub(super) fn key_name(key: usize) -> String {
    if key.is_multiple_of(2) { format!("open{key}") } else { format!("shut{key}") }
}

pub(super) fn chance(percent: u8) -> bool {
    fastrand::u8(..100) < percent
}

pub(super) fn one_of(numbers: impl Iterator<Item = usize>) -> Option<usize> {
    let numbers: Vec<_> = numbers.collect();
    fastrand::choice(&numbers).copied()
}

/// Whether the clients of an org re-read everything because of it.
fn is_command(entry: &Entry, org: usize) -> bool {
    let line = serde_json::json!({"org": ORGS[org], "reread": true}).to_string();
    entry.kind == Some(Kind::Barrier)
        || entry.payload.windows(line.len()).any(|text| text == line.as_bytes())
}

// ===== impl World =====

impl World {
    /// A world from its beginning to its rest.
    pub(super) fn run(seed: u64, semantics: Semantics, profile: Profile, steps: u64) {
        fastrand::seed(seed);
        let mut world = Self::new(semantics, profile);
        for _ in 0..fastrand::u64(steps / 8..=steps) {
            world.step();
        }
        if profile == Profile::Hostile {
            world.lose_at_last();
        }
        world.settle();
        world.check();
    }

    fn new(semantics: Semantics, profile: Profile) -> Self {
        let is_roomy = profile == Profile::Benign;
        let broker = Scripted::with(semantics);
        let config = HubConfig {
            coalesce: Duration::from_millis(if chance(70) { 50 } else { 0 }),
            history_events: if is_roomy { 100_000 } else { fastrand::usize(1..8) },
            history_age: Duration::from_secs(if is_roomy { 100_000 } else { 20 }),
            keys_max: if is_roomy { KEYS } else { 4 },
            public: PublicPolicy { orgs: PublicOrgs::All, keys: ["open*"].iter().collect() },
            ..HubConfig::default()
        };
        let tail_bytes = if is_roomy { 1 << 22 } else { fastrand::usize(1_000..40_000) };
        let mut world = Self {
            profile,
            semantics,
            now: Time(1_000),
            // Where records may be lost, each restart has everyone re-read.
            broker: if profile == Profile::Hostile { broker } else { broker.trusting() },
            nodes: Vec::new(),
            browsers: Vec::new(),
            database: [[1; KEYS]; 2],
            acknowledged: [[0; KEYS]; 2],
            publishes: Vec::new(),
            records: HashMap::new(),
            config,
            tail_bytes,
            measured: fastrand::u64(8..64),
            lags_until: Time(0),
            aware: Vec::new(),
            runs: 1,
            losses: [5, 20, 100][fastrand::usize(..3)],
        };
        for node in 0..fastrand::usize(2..5) {
            let started = world.started(node);
            world.nodes.push(Some(started));
        }
        world
    }

    pub(super) fn started(&self, node: usize) -> Node {
        Node::start(self.broker.of_node(node), self.config.clone(), self.tail_bytes, self.measured)
    }

    fn step(&mut self) {
        self.now = Time(self.now.0 + fastrand::u64(0..60));
        match fastrand::u8(..100) {
            0..30 => self.pump_one(),
            30..45 => self.publish(),
            45..53 => self.open(),
            53..70 => self.receive(),
            70..78 => self.keepalive(),
            78..84 => self.leave(),
            84..86 => self.page(),
            86..88 if chance(self.losses) => self.command(),
            86..91 => self.kill(),
            91..97 => self.disturb(),
            _ if self.profile == Profile::Hostile => {
                if chance(self.losses) {
                    self.lose();
                }
            }
            _ => self.disturb(),
        }
        if self.lags_until <= self.now {
            self.broker.edit(|script| script.set_lag(0));
        }
        self.look_after_publishes();
    }

    /// One server has its turn.
    pub(super) fn pump_one(&mut self) {
        let node = fastrand::usize(..self.nodes.len());
        self.pump(node);
        // While a window is open or a command has not reached all of them.
        if self.now.0.is_multiple_of(8) {
            self.hurry(node);
        }
    }

    pub(super) fn pump(&mut self, number: usize) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else {
            if chance(30) {
                self.nodes[number] = Some(self.started(number));
            }
            return;
        };
        for _ in 0..fastrand::u8(1..5) {
            node.pump(now);
        }
        node.drive(now);
        self.records.extend(node.records.drain(..));
        let is_on_old = self.broker.edit(|script| script.is_on_old(number));
        if is_on_old {
            self.aware.retain(|(server, _)| *server != number);
            self.aware.push((number, node.opens));
        } else if node.follower.is_current() && !node.follower.owes_barrier() {
            // What it was connected to before may still look as it did.
            let is_over = |(server, opens): &(usize, u64)| *server == number && node.opens > *opens;
            self.aware.retain(|server| !is_over(server));
        }
        for publish in std::mem::take(&mut node.acknowledged) {
            let publish = &mut self.publishes[publish];
            publish.is_over = true;
            for (org, key, version) in &publish.keys {
                let newest = &mut self.acknowledged[*org][*key];
                *newest = (*newest).max(*version);
            }
        }
    }

    /// Nothing fails any more, until everything is at rest.
    fn settle(&mut self) {
        self.broker.edit(|script| script.heal());
        let mut quiet = 0;
        for round in 0.. {
            let nodes = self.nodes.iter().flatten().map(|node| &node.follower).collect::<Vec<_>>();
            assert!(round < 3_000, "it does not come to rest: {nodes:?}");
            self.now = Time(self.now.0 + 50);
            (0..self.nodes.len()).for_each(|node| self.pump(node));
            self.look_after_publishes();
            let newest = self.broker.edit(|script| script.newest());
            let is_quiet = self.nodes.iter().all(|node| {
                node.as_ref().is_some_and(|node| node.is_loaded && node.head() == newest)
            });
            let is_over = self.publishes.iter().rev().take(200).all(|publish| publish.is_over);
            // Longer than it takes to notice that a connection is of no use.
            quiet = if is_quiet && is_over { quiet + 1 } else { 0 };
            if quiet > 20 && round > 200 {
                break;
            }
        }
        for browser in 0..self.browsers.len() {
            if self.browsers[browser].stream.is_none() {
                self.connect(browser, browser % self.nodes.len());
            }
        }
        for _ in 0..4 {
            let database = self.database;
            self.browsers.iter_mut().for_each(|browser| browser.receive(&database, usize::MAX));
            (0..self.browsers.len()).for_each(|browser| self.check_id(browser));
            self.now = self.now.after(WINDOW);
            for node in self.nodes.iter_mut().flatten() {
                node.drive(self.now);
            }
        }
    }

    /// A browser has what the log has up to its id, as far as the log is that which the id is of. If a command follows,
    /// it will re-read, wherever it resumes; also if the log has lost that since, as a barrier will follow.
    pub(super) fn check_id(&self, number: usize) {
        let browser = &self.browsers[number];
        let Some(id) = browser.id else { return };
        let mark = Mark::of(id, browser.stream_hash());
        self.broker.edit(|script| {
            let is_of_the_log = script.entry(mark.position).is_some_and(|e| e.tag == mark.tag);
            let all = script.entries().chain(script.lost());
            let mut after = all.filter(|entry| entry.position > mark.position);
            if !is_of_the_log || after.any(|entry| is_command(entry, browser.org)) {
                return;
            }
            for entry in script.entries().take_while(|entry| entry.position <= mark.position) {
                let numbers = self.records.get(&entry.tag).into_iter().flatten();
                for (org, key, version) in numbers.flat_map(|number| &self.publishes[*number].keys)
                {
                    let is_shown = *org == browser.org && browser.sees(*key);
                    assert!(
                        !is_shown || browser.copies[*key] >= *version,
                        "browser {number} has {id}, and not {} of record {}",
                        key_name(*key),
                        entry.position
                    );
                }
            }
        });
    }

    fn check(&self) {
        for (number, browser) in self.browsers.iter().enumerate() {
            for key in (0..KEYS).filter(|key| browser.sees(*key)) {
                let (copy, newest) = (browser.copies[key], self.acknowledged[browser.org][key]);
                assert!(
                    copy >= newest,
                    "browser {number} has version {copy} of {} of {}, and {newest} was acknowledged",
                    key_name(key),
                    ORGS[browser.org]
                );
            }
        }
        (0..self.nodes.len()).for_each(|number| self.check_cuts(number));
    }

    /// Where nothing is lost, nothing is cut.
    pub(super) fn check_cuts(&self, number: usize) {
        if let (Profile::Benign, Some(node)) = (self.profile, &self.nodes[number]) {
            assert_eq!(node.cuts, [], "nothing was lost");
        }
    }
}
