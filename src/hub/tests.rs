//! The hub against a naive twin, over operations in virtual time: random ones here, and those that the
//! fuzzer finds.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod random;
mod twin;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use self::twin::{Limits, Next, TwinOrg, visible};
use super::{Deadline, Hub, Keys, NotTakenIn, Subscription, Sweep, Turn, View};
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::ids::{Epoch, EventId, OrgName, Time};
use crate::metrics::CloseReason;
use crate::wire::{self, Greeting, Parser};

/// `who` is any number; it counts round those who are there.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `back` is an id that many events behind the head, or one beyond it.
    Subscribe {
        org: usize,
        view: View,
        back: Option<(u64, Run)>,
        lane: usize,
        crowd: usize,
    },
    Publish {
        org: usize,
        keys: Vec<u8>,
        lane: usize,
    },
    /// As the task that serves the stream, which may have moved and have a new waker.
    Poll {
        who: usize,
        moved: bool,
    },
    PollAll,
    /// Ends so many milliseconds from now.
    EndAfter {
        who: usize,
        ms: u64,
    },
    Drop(usize),
    /// Loses its connection and keeps the last id that it heard.
    Leave(usize),
    Return {
        who: usize,
        lane: usize,
    },
    Wait(u64),
    /// One turn of one lane's driver.
    Turn {
        lane: usize,
    },
    /// All that the drivers have to do.
    Drive,
    Tidy,
    Close,
}

/// Of which run of the channel an id is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    This,
    Former,
}

/// What a browser knows.
struct Client {
    org: usize,
    view: View,
    last: EventId,
    /// Keys that were published for it and that it has neither heard of nor been told to re-read.
    owed: BTreeMap<usize, Vec<String>>,
}

/// One subscriber, ours and the twin's.
struct Pair {
    ours: Subscription,
    client: Client,
    bell: Arc<Bell>,
    position: usize,
    waits: bool,
    /// When something was last handed to it, in whole seconds.
    touched: u64,
    deadline: Option<u64>,
    /// It was found that its deadline has passed.
    ended: bool,
}

struct Bell(AtomicBool);

struct World {
    hubs: [Hub; 2],
    sweeps: [VecDeque<Sweep>; 2],
    orgs: [OrgName; 2],
    twins: [Option<TwinOrg>; 2],
    /// Every run of a channel that there ever was.
    epochs: HashSet<Epoch>,
    former: [Epoch; 2],
    pairs: Vec<Pair>,
    away: Vec<Client>,
    limits: Limits,
    closing: bool,
    now: u64,
    tick: u64,
}

const KEEPALIVE: u64 = 4;

/// Takes the steps with a hub and with its twin, and panics where they part.
pub(crate) fn compare(coalesce: u64, history: usize, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(coalesce, history);
    steps.into_iter().for_each(|step| world.take(step));
    world.settle();
    drop(world.pairs);
    assert_eq!(world.hubs[0].seats(), 0);
}

fn name(key: u8) -> String {
    if key.is_multiple_of(2) { format!("even{key}") } else { format!("odd{key}") }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ===== impl World =====

impl World {
    fn new(coalesce: u64, history: usize) -> Self {
        let limits = Limits { coalesce, history, age: 3_000, keys_max: 4 };
        let hub = Hub::with_lanes(
            HubConfig {
                coalesce: Duration::from_millis(coalesce),
                keepalive: Duration::from_secs(KEEPALIVE),
                history_events: history,
                history_age: Duration::from_millis(limits.age),
                keys_max: limits.keys_max,
                public: PublicPolicy { orgs: PublicOrgs::All, keys: ["even*"].iter().collect() },
                ..HubConfig::default()
            },
            2,
        );
        Self {
            hubs: [hub.on_lane(0), hub.on_lane(1)],
            sweeps: Default::default(),
            orgs: ["a", "b"].map(|org| org.parse().expect("a name")),
            twins: [None, None],
            epochs: HashSet::new(),
            former: [Epoch(0); 2],
            pairs: Vec::new(),
            away: Vec::new(),
            limits,
            closing: false,
            now: 0,
            tick: 0,
        }
    }

    fn take(&mut self, step: Step) {
        let (here, away) = (self.pairs.len(), self.away.len());
        match step {
            Step::Subscribe { org, view, back, lane, crowd } => {
                let id = back.and_then(|(back, run)| self.some_id(org, back, run));
                (0..crowd).for_each(|_| self.subscribe(org, view, id, lane));
            }
            Step::Publish { org, keys, lane } => self.publish(org, &keys, lane),
            Step::Poll { who, moved } if here > 0 => {
                let who = who % here;
                if moved {
                    self.pairs[who].bell = Arc::new(Bell(AtomicBool::new(false)));
                }
                self.poll(who);
            }
            Step::PollAll => self.poll_all(),
            Step::EndAfter { who, ms } if here > 0 => {
                let pair = &mut self.pairs[who % here];
                let at = self.now + ms;
                pair.ours.end_at(Deadline { at: Time(at), reason: CloseReason::Expired });
                pair.deadline = Some(pair.deadline.map_or(at, |other| other.min(at)));
            }
            Step::Drop(who) if here > 0 => _ = self.leave(who % here),
            Step::Leave(who) if here > 0 => {
                let client = self.leave(who % here);
                self.away.push(client);
            }
            Step::Return { who, lane } if away > 0 => {
                let client = self.away.swap_remove(who % away);
                self.come_back(client, lane);
            }
            Step::Poll { .. }
            | Step::EndAfter { .. }
            | Step::Drop(_)
            | Step::Leave(_)
            | Step::Return { .. } => {}
            Step::Wait(ms) => self.now += ms,
            Step::Turn { lane } => _ = self.turn(lane),
            Step::Drive => self.drive(),
            Step::Tidy => self.tidy(),
            Step::Close => self.close(),
        }
        assert_eq!(self.hubs[0].seats(), self.pairs.len());
        let on_lanes = self.hubs.each_ref().map(Hub::seats_on_lane);
        assert_eq!(on_lanes.iter().sum::<usize>(), self.pairs.len());
        if !self.closing {
            assert_eq!(self.hubs[0].channels(), self.twins.iter().flatten().count());
        }
    }

    fn some_id(&self, org: usize, back: u64, run: Run) -> Option<EventId> {
        let twin = self.twins[org].as_ref()?;
        let epoch = match run {
            Run::This => twin.epoch,
            Run::Former => self.former[org],
        };
        Some(EventId { epoch, seq: (twin.events.len() as u64 + 1).saturating_sub(back) })
    }

    /// Somebody new, who may say that it was here before.
    fn subscribe(&mut self, org: usize, view: View, id: Option<EventId>, lane: usize) {
        let Some((mut pair, greeting)) = self.enter(org, view, id, lane) else { return };
        if greeting == Greeting::Resumed {
            let twin = self.twins[org].as_ref().expect("it has a subscriber");
            let missed =
                twin.events.iter().map(|event| event.keys.as_ref()).chain([twin.held.as_ref()]);
            for (n, keys) in missed.enumerate().skip(pair.position) {
                let keys = keys.map(|keys| visible(keys, view)).unwrap_or_default();
                pair.client.owed.insert(n + 1, keys);
            }
        }
        self.pairs.push(pair);
    }

    /// A browser whose connection was lost: what it is owed it is owed still, or it has to re-read.
    fn come_back(&mut self, client: Client, lane: usize) {
        let entered = self.enter(client.org, client.view, Some(client.last), lane);
        let Some((mut pair, greeting)) = entered else { return };
        if greeting == Greeting::Resumed {
            pair.client.owed = client.owed;
        }
        self.pairs.push(pair);
    }

    fn enter(
        &mut self,
        org: usize,
        view: View,
        id: Option<EventId>,
        lane: usize,
    ) -> Option<(Pair, Greeting)> {
        let entered = self.hubs[lane].subscribe(&self.orgs[org], view, id, Time(self.now));
        if self.closing {
            assert!(matches!(entered, Err(NotTakenIn::Closing)));
            return None;
        }
        let (ours, greeting) = entered.expect("not closing");
        let twin = self.twins[org].get_or_insert_with(|| {
            let epoch = ours.position().epoch;
            assert!(self.epochs.insert(epoch), "it was used before");
            TwinOrg::new(epoch, self.now, self.limits)
        });
        let resumed = id
            .filter(|id| id.epoch == twin.epoch)
            .map(|id| usize::try_from(id.seq).expect("small"))
            .filter(|position| twin.covers(*position));
        let position = resumed.unwrap_or(twin.events.len());
        assert_eq!(greeting, resumed.map_or(Greeting::Connected, |_| Greeting::Resumed));
        let last = twin.id(position);
        assert_eq!(ours.position(), last);
        let client = Client { org, view, last, owed: BTreeMap::new() };
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        let pair = Pair {
            ours,
            client,
            bell,
            position,
            waits: false,
            touched: self.tick,
            deadline: None,
            ended: false,
        };
        Some((pair, greeting))
    }

    fn leave(&mut self, index: usize) -> Client {
        let Pair { client, .. } = self.pairs.swap_remove(index);
        if !self.pairs.iter().any(|pair| pair.client.org == client.org) {
            let twin = self.twins[client.org].as_mut().expect("it had a subscriber");
            twin.idle_since = self.tick * 1_000;
        }
        client
    }

    fn publish(&mut self, org: usize, keys: &[u8], lane: usize) {
        // Closing leaves windows behind that it released, and they may close the next one early.
        if self.closing && self.limits.coalesce > 0 {
            return;
        }
        let keys: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let config = self.hubs[lane].config();
        let checked = Keys::new(keys.iter().map(String::as_str), config).expect("few");
        let published = self.hubs[lane].publish(&self.orgs[org], &checked, Time(self.now));
        let Some(twin) = &mut self.twins[org] else {
            assert!(published.id.is_none() || self.closing);
            return;
        };
        let seq = twin.publish(&keys, self.now);
        assert_eq!(published.id, Some(twin.id(seq)));
        let here = self.pairs.iter_mut().map(|pair| &mut pair.client);
        // Who is away since a former run of the channel is not waited for.
        let epoch = twin.epoch;
        let away = self.away.iter_mut().filter(|client| client.last.epoch == epoch);
        for client in here.chain(away).filter(|client| client.org == org) {
            client.owed.entry(seq).or_default().extend(visible(&keys, client.view));
        }
    }

    /// What a driver does at once. Returns whether there may be more.
    fn turn(&mut self, lane: usize) -> bool {
        let (hub, sweeps) = (&self.hubs[lane], &mut self.sweeps[lane]);
        sweeps.extend(std::iter::from_fn(|| hub.next_sweep()));
        if let Some(mut sweep) = sweeps.pop_front() {
            let mut turn = Turn::default();
            if sweep.turn(&mut turn) {
                sweeps.push_back(sweep);
            }
            turn.wake();
        }
        !sweeps.is_empty()
    }

    fn drive(&mut self) {
        for hub in &self.hubs {
            hub.close_windows(Time(self.now));
        }
        for twin in self.twins.iter_mut().flatten() {
            if self.now >= twin.closes {
                twin.release(self.now);
            }
        }
        self.tick = self.now / 1_000;
        for lane in 0..2 {
            let (mut due, mut turn) = (Vec::new(), Turn::default());
            self.hubs[lane].tick(self.tick as u32, &mut due);
            self.hubs[lane].keep_alive(&due, &mut turn);
            let mut alarms = Vec::new();
            self.hubs[lane].alarms(self.tick as u32, &mut alarms);
            self.hubs[lane].ring(&alarms, &mut turn);
            turn.wake();
            while self.turn(lane) {}
        }
        let ticked = self.tick * 1_000;
        for pair in &mut self.pairs {
            pair.ended |= pair.deadline.is_some_and(|at| at <= ticked);
        }
        for pair in self.pairs.iter().filter(|pair| pair.waits) {
            let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
            if pair.position < twin.events.len() || self.closing || pair.ended {
                assert!(pair.bell.0.load(Ordering::Relaxed), "asleep over something to take");
            }
        }
        if !self.closing {
            let expected: usize = self.twins.iter().flatten().map(TwinOrg::bytes).sum();
            let bytes = self.hubs[0].common().history_bytes.load(Ordering::Relaxed);
            assert_eq!(bytes, expected as u64, "bytes in all histories");
        }
    }

    fn tidy(&mut self) {
        (0..64).for_each(|part| self.hubs[0].tidy(part, Time(self.now)));
        for (org, place) in self.twins.iter_mut().enumerate() {
            let Some(twin) = place else { continue };
            twin.expire(self.now);
            let listened_to = self.pairs.iter().any(|pair| pair.client.org == org);
            let waited_for = self.now < twin.idle_since + self.limits.age;
            if !listened_to && !waited_for && twin.held.is_none() {
                self.former[org] = twin.epoch;
                *place = None;
            }
        }
    }

    fn close(&mut self) {
        self.hubs[0].close(Time(self.now));
        self.twins.iter_mut().flatten().for_each(|twin| twin.release(self.now));
        self.closing = true;
    }

    /// Polls one subscriber once, and lets it go if its stream has ended. Returns whether there may
    /// be more for it.
    fn poll(&mut self, index: usize) -> bool {
        let pair = &mut self.pairs[index];
        let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
        let expected = if pair.ended {
            Next::End
        } else {
            twin.next(&mut pair.position, pair.client.view, self.closing)
        };
        pair.bell.0.store(false, Ordering::Relaxed);
        let got = match pair.ours.poll_next(&Waker::from(pair.bell.clone())) {
            Poll::Ready(Some(frame)) => {
                Next::Event(String::from_utf8(frame.payload().to_vec()).expect("UTF-8"))
            }
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Nothing,
        };
        pair.waits = got == Next::Nothing;
        let more = match &got {
            Next::Event(text) if text == ": keepalive\n\n" => {
                assert_eq!(expected, Next::Nothing);
                let silence = self.tick - pair.touched;
                assert!(silence >= KEEPALIVE * 3 / 4, "after {silence} s of silence");
                pair.touched = self.tick;
                return true;
            }
            Next::Event(text) => {
                pair.client.hear(text);
                pair.touched = self.tick;
                true
            }
            Next::Nothing => false,
            Next::End => {
                let client = self.leave(index);
                self.away.push(client);
                false
            }
        };
        assert_eq!(got, expected);
        more
    }

    fn poll_all(&mut self) {
        for index in (0..self.pairs.len()).rev() {
            while self.poll(index) {}
        }
    }

    /// Nothing more is published: everybody takes what there is, and then nothing may be owed.
    fn settle(&mut self) {
        self.drive();
        self.poll_all();
        while let Some(client) = self.away.pop() {
            self.come_back(client, 0);
        }
        self.now += self.limits.coalesce + 1;
        self.drive();
        self.poll_all();
        for Pair { client, .. } in &self.pairs {
            assert!(client.owed.values().all(Vec::is_empty), "lost silently: {:?}", client.owed);
        }
        assert!(!self.closing || self.pairs.is_empty());
    }
}

// ===== impl Client =====

impl Client {
    /// Crosses off what an event settles, read as a browser reads it.
    fn hear(&mut self, text: &str) {
        let mut events = Vec::new();
        Parser::default().push(text.as_bytes(), |event| events.push(event)).expect("small");
        let [wire::Event { name, data, id }] = &events[..] else { panic!("one event: {text:?}") };
        let id: EventId = id.parse().expect("an id");
        assert!(id.epoch == self.last.epoch && id.seq > self.last.seq, "{id} after {}", self.last);
        self.last = id;
        let seq = usize::try_from(id.seq).expect("small");
        if name == "connected" {
            self.owed.retain(|owed, _| *owed > seq);
        } else {
            assert!(self.owed.range(..seq).all(|(_, keys)| keys.is_empty()), "passed over");
            let owed = self.owed.remove(&seq).unwrap_or_default();
            let told = |key: &String| data.contains(&format!("\"{key}\""));
            assert!(owed.iter().all(told), "{owed:?} in {data}");
        }
    }
}
