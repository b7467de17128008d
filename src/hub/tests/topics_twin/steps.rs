//! The steps of clients, publishers and drivers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::log::Log;
use super::reader::{Away, Delivery, Reader};
use super::{AGE, From, Lane, Limits, Orgs, Step, TOPICS, World, config};
use crate::hub::{Batch, Deadline, Hub, Pace, Start, SubscribeError, WriteKind};
use crate::ids::{Epoch, EventId, OrgName, Seq, Topic};
use crate::metrics::CloseReason;
use crate::time::{Tick, Time};
use crate::wire::{Greeting, Message, Payload};

// ===== impl World =====

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        let hub = Hub::with_shards(config(limits), 2);
        let orgs: [OrgName; 2] = ["a", "b"].map(|org| org.parse().expect("a name"));
        let topic = |n: usize| Topic {
            org: orgs[n % 2].clone(),
            name: format!("topic-{n}").parse().expect("a name"),
        };
        Self {
            hubs: [hub.on_shard(0), hub.on_shard(1)],
            passes: Default::default(),
            drains: [None, None],
            topics: (0..TOPICS).map(topic).collect(),
            current: vec![None; TOPICS],
            former: vec![None; TOPICS],
            logs: Default::default(),
            readers: Vec::new(),
            away: Vec::new(),
            orgs: Orgs::new(Hub::new(config(limits)), orgs),
            limits,
            closing: false,
            opened: 0,
            published: 0,
            now: 0,
            tick: 0,
        }
    }

    pub(super) fn apply(&mut self, step: Step) {
        let (readers, away) = (self.readers.len(), self.away.len());
        match step {
            Step::Open { topic, start, exclusive, shard, lane } => {
                let start = self.start(topic, start);
                self.open(topic, start, exclusive, shard, lane);
            }
            Step::Return { away: client, exclusive, shard, lane } if away > 0 => {
                let Away { topic, last } = self.away.swap_remove(client % away);
                self.open(topic, Start::After(last), exclusive, shard, lane);
            }
            Step::Publish { topic, bulk, size, shard } => self.publish(topic, bulk, size, shard),
            Step::Close { topic, shard } => self.close(topic, shard),
            Step::Read { reader, room } if readers > 0 => {
                let reader = &mut self.readers[reader % readers];
                let log = &self.logs[&reader.epoch];
                match reader.lane.clone() {
                    Delivery::Task(bell) if reader.sole && reader.over.is_none() => {
                        (0..=room).all(|_| reader.poll(log, &bell));
                    }
                    Delivery::Task(_) => {}
                    Delivery::Socket { .. } if reader.sole => reader.make_room(room, log),
                    Delivery::Socket { .. } => {}
                }
                self.free_ended();
            }
            Step::ReadAll => self.read_all(),
            Step::EndAfter { reader, ms } if readers > 0 => {
                let (reader, at) = (&mut self.readers[reader % readers], self.now + ms);
                reader.ours.end_at(Deadline { at: Time(at), reason: CloseReason::MaxAge });
                reader.deadline = Some(reader.deadline.map_or(at, |other| other.min(at)));
            }
            Step::Drop(reader) if readers > 0 => _ = self.free(reader % readers),
            Step::Leave(reader) if readers > 0 => {
                let away = self.free(reader % readers);
                self.away.push(away);
            }
            Step::LookSole(reader) if readers > 0 => {
                self.readers[reader % readers].look_sole();
            }
            Step::EndRivals(reader) if readers > 0 => self.end_rivals(reader % readers),
            Step::Org(step) if !self.closing => self.orgs.apply(&self.hubs[0], &step, self.now),
            Step::Wait(ms) => self.now += ms,
            Step::Sweep(shard) => _ = self.sweep(shard),
            Step::Drive => self.drive(),
            Step::Tidy => self.tidy(),
            Step::Shut => self.shut(),
            Step::Drain => self.drain(),
            _ => {}
        }
    }

    fn start(&self, topic: usize, from: From) -> Start {
        let id = |epoch: &Option<Epoch>, back: u64| {
            let log = &self.logs[&(*epoch)?];
            Some(log.id((log.head() + 1).saturating_sub(back)))
        };
        let none = EventId { epoch: Epoch(7), seq: Seq(3) };
        match from {
            From::All => Start::All,
            From::Now => Start::Now,
            From::After(back, true) => Start::After(id(&self.current[topic], back).unwrap_or(none)),
            From::After(back, false) => Start::After(id(&self.former[topic], back).unwrap_or(none)),
            From::Since(ago) => Start::Since(Time(self.now.saturating_sub(ago))),
        }
    }

    fn open(&mut self, topic: usize, start: Start, exclusive: bool, shard: usize, lane: Lane) {
        let opened =
            self.hubs[shard].subscribe_topic(&self.topics[topic], start, exclusive, Time(self.now));
        if self.closing {
            return assert!(matches!(opened, Err(SubscribeError::Closing)));
        }
        let known = self.current[topic];
        let rivals = |world: &Self| {
            let here = world.readers.iter().filter(move |one| Some(one.epoch) == known);
            here.map(|one| (one.number, one.replaced)).collect::<Vec<_>>()
        };
        let here = rivals(self);
        let (ours, greeting) = match opened {
            Ok(opened) => opened,
            Err(SubscribeError::TopicFull { max }) => {
                assert!(Some(max) == self.limits.streams && here.len() >= max && !exclusive);
                return;
            }
            Err(other) => panic!("{other:?}"),
        };
        let staying = here.iter().filter(|(_, replaced)| !replaced).count();
        assert!(exclusive || self.limits.streams.is_none_or(|max| staying < max), "too many");
        let (greeting, id) = ours.begin(greeting, None);
        self.meet(topic, id.epoch);
        let log = &self.logs[&id.epoch];
        let at = id.seq.0;
        match start {
            Start::After(last) if last.epoch == id.epoch && log.covers(last.seq.0) => {
                assert_eq!((greeting, id), (Greeting::Resumed, last));
            }
            Start::All | Start::After(_) => {
                assert_eq!(greeting, Greeting::Connected);
                assert_eq!(log.next(at), log.next(0), "it starts with all that is kept");
            }
            Start::Now => {
                assert_eq!((greeting, at), (Greeting::Connected, log.head()));
            }
            Start::Since(time) => {
                assert_eq!(greeting, Greeting::Connected);
                assert_eq!(log.next(at), log.next(log.since(time.0)), "since {time:?}");
            }
        }
        self.opened += 1;
        let mut reader = Reader::new(self.opened, ours, log, at, lane);
        if exclusive {
            let rivals = here.iter().map(|(number, _)| *number).collect();
            reader.sole = false;
            reader.rivals = Some(rivals);
            let here = self.readers.iter_mut().filter(|one| Some(one.epoch) == known);
            here.for_each(|one| one.replaced = true);
        }
        reader.take(log);
        self.readers.push(reader);
    }

    /// A topic is in this run. If that is another one than the twin knows of, the hub has forgotten the last.
    pub(super) fn meet(&mut self, topic: usize, epoch: Epoch) {
        if self.current[topic] == Some(epoch) {
            return;
        }
        assert!(!self.logs.contains_key(&epoch), "the epoch was used before");
        if let Some(known) = self.current[topic] {
            self.check_forgotten(known);
        }
        self.former[topic] = self.current[topic].replace(epoch);
        self.logs.insert(epoch, Log::new(topic, epoch, self.now));
    }

    /// The hub may forget this run of a topic.
    pub(super) fn check_forgotten(&self, epoch: Epoch) {
        assert!(!self.is_seated(epoch), "a topic with a stream is forgotten");
        let log = &self.logs[&epoch];
        let may = self.now >= log.used.0 + AGE || log.head() == 0 || self.limits.may_forget();
        assert!(may || self.closing, "a topic is forgotten before its age");
    }

    pub(super) fn is_seated(&self, epoch: Epoch) -> bool {
        self.readers.iter().any(|reader| reader.epoch == epoch)
    }

    fn publish(&mut self, topic: usize, bulk: bool, size: usize, shard: usize) {
        self.published += 1;
        let data = format!("{}{}", "x".repeat(size), self.published);
        let payload = Payload::Text(&data);
        let message = Message::new("output", payload, bulk, usize::MAX).expect("a message");
        let now = Time(self.now);
        let id = self.hubs[shard].publish_message(&self.topics[topic], &message, now);
        self.meet(topic, id.epoch);
        let log = self.logs.get_mut(&id.epoch).expect("it was met");
        log.append(bulk, format!("event: output\ndata: {data}\n\n"), self.now);
        assert_eq!(id, log.id(log.head()));
        self.follow();
        self.check_idle();
    }

    fn close(&mut self, topic: usize, shard: usize) {
        let channel = self.channels().remove(&self.topics[topic]);
        let known = self.current[topic].take();
        let seats = |all: bool| {
            let here = self.readers.iter().filter(|reader| Some(reader.epoch) == known);
            here.filter(|reader| all || !reader.replaced && !reader.expired).count()
        };
        let (least, most) = (seats(false), seats(true));
        let reason = format!("done {topic}\n");
        let ended = self.hubs[shard].close_topic(&self.topics[topic], &reason, Time(self.now));
        assert!((least..=most).contains(&ended), "{ended} of {least} to {most}");
        let Some(log) = known.and_then(|epoch| self.logs.get_mut(&epoch)) else { return };
        self.former[topic] = known;
        log.append(
            false,
            format!("event: closed\ndata: {{\"reason\":\"done {topic}\\n\"}}\n\n"),
            self.now,
        );
        log.closed = true;
        let channel = channel.expect("the twin knows of it");
        log.keep(&super::bounds::kept(&channel).1, self.limits);
    }

    fn end_rivals(&mut self, reader: usize) {
        let newcomer = &self.readers[reader];
        let Some(rivals) = newcomer.rivals.clone().filter(|_| !newcomer.sole) else { return };
        newcomer.ours.end_rivals();
        for reader in &mut self.readers {
            reader.put_out |= rivals.contains(&reader.number);
        }
    }

    /// Frees a seat. Returns its client.
    fn free(&mut self, index: usize) -> Away {
        let Reader { ours, epoch, at, number, .. } = self.readers.swap_remove(index);
        drop(ours);
        self.readers.iter_mut().for_each(|other| other.lose_rival(number));
        let log = self.logs.get_mut(&epoch).expect("it has a reader");
        if !self.readers.iter().any(|reader| reader.epoch == epoch) {
            log.leave(self.tick, self.now);
        }
        Away { topic: log.topic, last: log.id(at) }
    }

    /// Those whose streams have ended go.
    fn free_ended(&mut self) {
        while let Some(index) = self.readers.iter().position(|reader| reader.over.is_some()) {
            let away = self.free(index);
            self.away.push(away);
        }
    }

    fn read_all(&mut self) {
        // An exclusive one begins once the others have gone.
        for _ in 0..3 {
            for reader in &mut self.readers {
                let log = &self.logs[&reader.epoch];
                reader.look_sole();
                reader.make_room(1_000, log);
            }
            self.free_ended();
        }
    }

    /// One batch of one sweep. Returns whether there may be more.
    fn sweep(&mut self, shard: usize) -> bool {
        let Some(mut sweep) = self.hubs[shard].driver().next_sweep() else { return false };
        let mut batch = Batch::default();
        // What is left of the sweep is put back when it is dropped.
        sweep.collect(&mut batch);
        drop(sweep);
        self.serve(batch);
        true
    }

    fn drive(&mut self) {
        self.tick = self.now / 1_000;
        for shard in 0..2 {
            let (hub, tick) = (self.hubs[shard].clone(), Tick(self.tick as u32));
            let mut batch = Batch::default();
            hub.driver().tick(tick, &mut Vec::new());
            let mut timers = Vec::new();
            hub.driver().timers(tick, &mut timers);
            hub.driver().fire(&timers, &mut batch);
            self.note_expired();
            self.serve(batch);
            let mut batches = Vec::new();
            let mut batch = Batch::default();
            while self.passes[shard].turn(&hub.driver(), Time(self.now), &mut batch, |batch| {
                batches.push(std::mem::take(batch));
            }) {}
            batches.into_iter().for_each(|batch| self.serve(batch));
            self.end_some(shard);
            while self.sweep(shard) {}
        }
        for reader in self.readers.iter().filter(|reader| reader.waits) {
            let notified = match &reader.lane {
                Delivery::Task(bell) => bell.0.load(Ordering::Relaxed),
                Delivery::Socket { .. } => false,
            };
            let log = &self.logs[&reader.epoch];
            assert!(notified || !reader.has_work(log), "not woken at {}", reader.at);
        }
    }

    fn note_expired(&mut self) {
        let ticked = self.tick * 1_000;
        for reader in &mut self.readers {
            reader.expired |= reader.deadline.is_some_and(|at| at <= ticked);
        }
    }

    /// What the driver does with a batch.
    fn serve(&mut self, mut batch: Batch) {
        batch.wake();
        for op in std::mem::take(&mut batch.writes) {
            let reader = self.readers.iter_mut().find(|reader| reader.socket() == op.socket);
            let reader = reader.expect("a write to a socket that is there");
            let log = &self.logs[&reader.epoch];
            match op.kind {
                WriteKind::Events { count } => {
                    let before = Seq(reader.at);
                    let frames = &batch.events[batch.events.len() - count..];
                    let frames: Vec<_> = frames.iter().map(|(_, frame)| frame.clone()).collect();
                    reader.write(&frames, before, log);
                }
                WriteKind::CatchUp => reader.take(log),
                WriteKind::End(reason) => {
                    reader.cut(reason, self.closing);
                }
                WriteKind::Keepalive => panic!("none is due"),
            }
        }
        self.free_ended();
    }

    fn end_some(&mut self, shard: usize) {
        let driver = self.hubs[shard].driver();
        if self.drains[shard].is_none() {
            self.drains[shard] = driver.begin_drain();
        }
        while let Some(drain) = &mut self.drains[shard] {
            let mut batch = Batch::default();
            let pace = drain.collect(&driver, Time(self.now), &mut batch);
            self.serve(batch);
            if pace != Pace::Now {
                return;
            }
        }
    }

    fn tidy(&mut self) {
        (0..64).for_each(|part| self.hubs[0].driver().tidy(Tick(part), Time(self.now)));
        self.orgs.tidy(self.tick, self.now);
        self.follow();
        self.check_idle();
        self.check_aged();
    }

    fn shut(&mut self) {
        self.closing = true;
        self.hubs[0].close(Time(self.now));
        self.orgs.leave();
    }

    fn drain(&mut self) {
        self.closing = true;
        self.hubs[0].drain(Time(self.now), Duration::ZERO);
        self.orgs.leave();
    }
}
