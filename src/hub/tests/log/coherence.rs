//! Browsers that go from one server to another one, against a database: whatever happens to the log, the servers and the
//! streams, each browser reads again what has changed.

use proptest::prelude::*;

use super::*;
use crate::hub::Filter;

/// Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Keys change in the database, and a record says so.
    Publish {
        lines: Vec<(usize, Vec<usize>)>,
    },
    /// Everything of an org changes, and a record has its clients re-read.
    Reread {
        org: usize,
        with: Vec<usize>,
        after: bool,
    },
    Beat,
    /// A node reads so many records.
    Follow {
        node: usize,
        records: usize,
    },
    /// The log loses its last records, whose positions others get, and a barrier follows.
    Forget {
        records: usize,
    },
    Open {
        node: usize,
        org: usize,
        public: bool,
        filter: Option<usize>,
    },
    /// A stream receives so many frames.
    Receive {
        browser: usize,
        frames: usize,
    },
    Keepalive {
        browser: usize,
    },
    Leave {
        browser: usize,
    },
    /// A browser goes on with the id that it has, and may lose the connection before anything comes.
    Return {
        browser: usize,
        node: usize,
        begins: bool,
    },
    /// A backend reads the position and then the data of a page, with which a browser begins.
    Page {
        node: usize,
        org: usize,
        public: bool,
    },
    Wait {
        node: usize,
        ms: u64,
    },
    Tidy {
        node: usize,
    },
}

/// A record of the log.
enum Entry {
    Lines(String),
    Barrier,
}

struct Browser {
    org: usize,
    view: View,
    filter: Option<usize>,
    id: Option<EventId>,
    copies: [u64; KEYS],
    stream: Option<Subscription>,
    /// It has begun with this, which it has not received yet.
    greeted: Option<Greeting>,
}

struct World {
    nodes: [Node; 2],
    /// How many entries of the log each one has read.
    read: [usize; 2],
    log: Vec<(Mark, Entry)>,
    tags: u64,
    /// The version of each key of each org.
    database: [[u64; KEYS]; 2],
    version: u64,
    browsers: Vec<Browser>,
}

const KEYS: usize = 6;

const ORGS: [&str; 2] = ["acme", "else"];

fn key(key: usize) -> String {
    if key.is_multiple_of(2) { format!("open{key}") } else { format!("shut{key}") }
}

impl World {
    fn new(coalesce: u64, events: usize, tail: usize) -> Self {
        let config = HubConfig {
            coalesce: Duration::from_millis(coalesce),
            history_events: events,
            history_age: Duration::from_millis(3_000),
            keys_max: 4,
            ..config()
        };
        let node = |tail| Node::with_tail(config.clone(), tail);
        Self {
            nodes: [node(tail), node(tail * 2)],
            read: [0, 0],
            log: Vec::new(),
            tags: 0,
            database: [[0; KEYS]; 2],
            version: 0,
            browsers: Vec::new(),
        }
    }

    fn append(&mut self, entry: Entry) {
        self.tags += 1;
        let position = self.log.len() as u64 + 1;
        self.log.push((Mark { tag: self.tags, position }, entry));
    }

    fn change(&mut self, org: usize, changed: &[usize]) {
        self.version += 1;
        changed.iter().for_each(|key| self.database[org][key % KEYS] = self.version);
    }

    fn line(&mut self, org: usize, changed: &[usize]) -> String {
        self.change(org, changed);
        let names: Vec<_> = changed.iter().map(|changed| key(changed % KEYS)).collect();
        keys(ORGS[org], &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn follow(&mut self, node: usize, records: usize) {
        for _ in 0..records {
            let Some((mark, entry)) = self.log.get(self.read[node]) else { return };
            match entry {
                Entry::Lines(lines) => self.nodes[node].apply(*mark, lines),
                Entry::Barrier => _ = self.nodes[node].hub.cut(*mark, self.nodes[node].now),
            }
            self.read[node] += 1;
        }
    }

    fn forget(&mut self, records: usize) {
        let left = self.log.len().saturating_sub(records % 5);
        self.log.truncate(left);
        self.append(Entry::Barrier);
        for node in 0..2 {
            if self.read[node] > left {
                self.read[node] = left;
                self.follow(node, 1);
            }
        }
    }

    fn open(&mut self, node: usize, browser: usize) {
        let now = self.nodes[node].now;
        let Browser { org, view, filter, id, .. } = self.browsers[browser];
        let hub = &self.nodes[node].hub;
        let (mut stream, greeting) =
            hub.subscribe(&super::org(ORGS[org]), view, id, now).expect("not closing");
        if let Some(only) = filter {
            let filter = Filter::new([key(only).as_str()], hub.config()).expect("a filter");
            stream.set_filter(filter);
        }
        let browser = &mut self.browsers[browser];
        (browser.stream, browser.greeted) = (Some(stream), Some(greeting));
    }

    fn receive(&mut self, browser: usize, frames: usize) {
        let Self { browsers, database, .. } = self;
        let browser = &mut browsers[browser];
        let Some(stream) = &mut browser.stream else { return };
        if let Some(greeting) = browser.greeted.take() {
            let (greeting, id) = stream.begin(greeting, browser.id);
            browser.id = Some(id);
            if greeting == Greeting::Connected {
                browser.copies = database[browser.org];
            }
        }
        for _ in 0..frames {
            match stream.poll_next(Waker::noop()) {
                Poll::Pending => return,
                Poll::Ready(None) => {
                    browser.stream = None;
                    return;
                }
                Poll::Ready(Some(frame)) => {
                    let Received { text, id } = received(&frame.payload());
                    browser.id = id.or(browser.id);
                    if text == "connected" {
                        browser.copies = database[browser.org];
                    }
                    for name in text.split(' ') {
                        if let Some(key) = (0..KEYS).find(|number| key(*number) == name) {
                            browser.copies[key] = database[browser.org][key];
                        }
                    }
                }
            }
        }
    }

    fn apply(&mut self, step: Step) {
        let some = |browser: usize, all: &[Browser]| (!all.is_empty()).then(|| browser % all.len());
        match step {
            Step::Publish { lines } => {
                let lines = lines.iter().map(|(org, changed)| self.line(org % 2, changed));
                let lines = lines.collect();
                self.append(Entry::Lines(lines));
            }
            Step::Reread { org, with, after } => {
                let org = org % 2;
                self.change(org, &[0, 1, 2, 3, 4, 5]);
                let reread = reread(ORGS[org]);
                let with = if with.is_empty() { String::new() } else { self.line(org, &with) };
                self.append(Entry::Lines(if after { reread + &with } else { with + &reread }));
            }
            Step::Beat => self.append(Entry::Lines(String::new())),
            Step::Follow { node, records } => self.follow(node, records),
            Step::Forget { records } => self.forget(records),
            Step::Open { node, org, public, filter } => {
                let view = if public { View::Public } else { View::Member };
                let (id, copies) = (None, [0; KEYS]);
                self.browsers.push(Browser {
                    org,
                    view,
                    filter,
                    id,
                    copies,
                    stream: None,
                    greeted: None,
                });
                self.open(node, self.browsers.len() - 1);
            }
            Step::Receive { browser, frames } => {
                if let Some(browser) = some(browser, &self.browsers) {
                    self.receive(browser, frames);
                }
            }
            Step::Keepalive { browser } => {
                let Some(browser) = some(browser, &self.browsers) else { return };
                let browser = &mut self.browsers[browser];
                if let (Some(stream), None) = (&browser.stream, browser.greeted) {
                    let keepalive = received(&stream.keepalive_frame().payload());
                    browser.id = keepalive.id.or(browser.id);
                }
            }
            Step::Leave { browser } => {
                if let Some(browser) = some(browser, &self.browsers) {
                    self.browsers[browser].stream = None;
                }
            }
            Step::Return { browser, node, begins } => {
                let Some(browser) = some(browser, &self.browsers) else { return };
                self.browsers[browser].stream = None;
                self.open(node, browser);
                if begins {
                    self.receive(browser, 0);
                }
            }
            Step::Page { node, org, public } => {
                let positions =
                    self.nodes[node].hub.position(&super::org(ORGS[org]), self.nodes[node].now);
                let (view, position) = match (public, positions.public) {
                    (true, Some(public)) => (View::Public, public),
                    _ => (View::Member, positions.member),
                };
                let (id, copies) = (Some(position.id), self.database[org]);
                self.browsers.push(Browser {
                    org,
                    view,
                    filter: None,
                    id,
                    copies,
                    stream: None,
                    greeted: None,
                });
            }
            Step::Wait { node, ms } => self.nodes[node].wait(ms),
            Step::Tidy { node } => {
                let node = &self.nodes[node];
                (0..64).for_each(|tick| node.hub.driver().tidy(crate::time::Tick(tick), node.now));
            }
        }
    }

    /// Everything comes to rest, and no browser has a copy that is stale.
    fn settle(&mut self) {
        for node in 0..2 {
            self.follow(node, usize::MAX);
        }
        for browser in 0..self.browsers.len() {
            if self.browsers[browser].stream.is_none() {
                self.open(browser % 2, browser);
            }
        }
        for _ in 0..4 {
            for browser in 0..self.browsers.len() {
                self.receive(browser, usize::MAX);
            }
            self.nodes.iter_mut().for_each(|node| node.wait(WINDOW));
        }
        for (number, browser) in self.browsers.iter().enumerate() {
            for (key, copy) in browser.copies.iter().enumerate() {
                let shown = browser.view == View::Member || key.is_multiple_of(2);
                if shown && browser.filter.is_none_or(|only| only == key) {
                    let newest = self.database[browser.org][key];
                    assert_eq!(*copy, newest, "key {key} of browser {number}");
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (node, browser, org) = (|| 0..2usize, || 0..100usize, || 0..2usize);
    let some_keys = |from: usize| prop::collection::vec(0..KEYS, from..4);
    let line = (prop::bool::weighted(0.3).prop_map(usize::from), some_keys(1));
    prop_oneof![
        16 => prop::collection::vec(line, 1..4).prop_map(|lines| Step::Publish { lines }),
        2 => (org(), some_keys(0), any::<bool>()).prop_map(|(org, with, after)| Step::Reread { org, with, after }),
        4 => Just(Step::Beat),
        14 => (node(), 1..5usize).prop_map(|(node, records)| Step::Follow { node, records }),
        2 => (0..5usize).prop_map(|records| Step::Forget { records }),
        6 => (node(), org(), any::<bool>(), prop::option::weighted(0.3, 0..KEYS)).prop_map(|(node, org, public, filter)| Step::Open { node, org, public, filter }),
        12 => (browser(), 0..4usize).prop_map(|(browser, frames)| Step::Receive { browser, frames }),
        10 => browser().prop_map(|browser| Step::Keepalive { browser }),
        4 => browser().prop_map(|browser| Step::Leave { browser }),
        14 => (browser(), node(), any::<bool>()).prop_map(|(browser, node, begins)| Step::Return { browser, node, begins }),
        3 => (node(), org(), any::<bool>()).prop_map(|(node, org, public)| Step::Page { node, org, public }),
        10 => (node(), 1..120u64).prop_map(|(node, ms)| Step::Wait { node, ms }),
        2 => (node(), 500..4_000u64).prop_map(|(node, ms)| Step::Wait { node, ms }),
        2 => node().prop_map(|node| Step::Tidy { node }),
    ]
}

proptest! {
    #[test]
    fn no_browser_keeps_a_stale_copy(
        coalesce in prop_oneof![Just(0), Just(50)],
        events in 1..6usize,
        tail in 300..3_000usize,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(coalesce, events, tail);
        steps.into_iter().for_each(|step| world.apply(step));
        world.settle();
    }
}
