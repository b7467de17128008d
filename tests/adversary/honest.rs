//! The honest subscribers and their publishers: each publish must reach each subscriber once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nudged::bench::{Load, Options, Publish, Quantiles, Ramp, Tally};
use nudged::client::Verify;

use crate::stage::{BIG, HONEST_ADDRESSES, STREAMS_PER_CONNECTION, Stage};
use crate::tokens;

/// All honest subscribers.
pub(crate) struct Honest {
    groups: Vec<Group>,
    stop: Arc<AtomicBool>,
}

/// Subscribers on one transport, with a publisher of their own.
struct Group {
    name: &'static str,
    load: Load,
    /// At the end of the last phase: the faults until then, and the refused publishes.
    before: (Tally, u32),
}

/// What a group received in a phase.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) name: &'static str,
    /// From when a publish was due to each delivery; `None` without any.
    pub(crate) latency: Option<Quantiles>,
    /// What was lost, repeated or cut.
    pub(crate) faults: Option<String>,
}

/// Each group publishes this often, at moments of its own.
pub(crate) const EVERY: Duration = Duration::from_millis(500);

/// A publish that has not arrived for this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// The longest that a phase may exceed its time.
const GRACE: Duration = Duration::from_secs(40);

const TURN: Duration = Duration::from_millis(20);

// ===== impl Honest =====

impl Honest {
    pub(crate) fn open(stage: &Stage) -> Result<Self, String> {
        let (sizes, stop) = (stage.sizes, Arc::<AtomicBool>::default());
        let (plain, tls) = (format!("http://{}", stage.plain), format!("https://{}", stage.tls));
        let publish_url = format!("http://{}/api/events", stage.backend);
        let orgs: String =
            (0..sizes.small).map(|org| line(&format!("small-{org}"))).collect::<Vec<_>>().concat();
        let one = |name, base: &str, org: &str, count, http2| {
            (name, format!("{base}/api/{org}/events"), line(org), count, http2)
        };
        let mut groups = Vec::new();
        for (name, url, body, subscribers, http2) in [
            one("one org", &plain, BIG, sizes.big, None),
            ("orgs of one", format!("{plain}/api/small-{{s}}/events"), orgs, sizes.small, None),
            one("TLS", &tls, "secure", sizes.tls, None),
            one("HTTP/2", &tls, "shared", sizes.http2, Some(STREAMS_PER_CONNECTION)),
        ] {
            let content_type = "application/x-ndjson".into();
            let (stream_url, url) = (url, publish_url.clone());
            let options = Options {
                url: stream_url,
                verify: Verify::None,
                http2,
                subscribers,
                ramp: Ramp { per_second: None, pending_max: 64 },
                headers: vec![("authorization".into(), format!("Bearer {}", tokens::honest()))],
                sources: (1..=HONEST_ADDRESSES as u8).map(address).collect(),
                publish: Some(Publish {
                    url,
                    body,
                    content_type,
                    headers: Vec::new(),
                    every: EVERY,
                }),
                duration: None,
                processes: Vec::new(),
                drain_timeout: LOST_AFTER,
            };
            let fault = |why| format!("{name}: {why}");
            let mut load = Load::new(&options, stop.clone()).map_err(fault)?;
            load.open(subscribers, options.ramp, |_| {}).map_err(fault)?;
            if load.subscribers() != subscribers {
                return Err(format!("{name}: only {} streams are open", load.subscribers()));
            }
            groups.push(Group { name, load, before: Default::default() });
        }
        Ok(Self { groups, stop })
    }

    /// Publishes for this long, and waits until every event has arrived or is lost.
    pub(crate) fn listen(&mut self, duration: Duration) -> Vec<Received> {
        let (count, start) = (duration.as_millis() / EVERY.as_millis(), Instant::now());
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let offset = EVERY / self.groups.len() as u32;
        let Self { groups, stop } = self;
        stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(groups.iter_mut())
                .map(|(number, group)| {
                    scope.spawn(move || {
                        thread::sleep(offset * number);
                        group.listen(count)
                    })
                })
                .collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                // The rest is lost: the phase ends with what has arrived.
                if start.elapsed() > duration + GRACE {
                    stop.store(true, Ordering::Relaxed);
                }
                thread::sleep(TURN);
            }
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    pub(crate) fn close(self) -> Result<(), String> {
        for (number, mut group) in self.groups.into_iter().enumerate() {
            group.load.close(number % 2 == 0).map_err(|why| why.to_string())?;
        }
        Ok(())
    }
}

/// A line of a publish to many.
fn line(org: &str) -> String {
    format!("{{\"org\":\"{org}\",\"keys\":[\"{{n}}\"]}}\n")
}

/// The honest subscribers' addresses; the attackers have others.
pub(crate) fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number).into()
}

// ===== impl Group =====

impl Group {
    fn listen(&mut self, count: u32) -> Received {
        let ended = self.load.publish(count, EVERY).err().map(|why| why.to_string());
        let latencies = self.load.take_latencies();
        Received {
            name: self.name,
            latency: latencies.each(),
            faults: ended.or_else(|| self.faults()),
        }
    }

    /// Those since this was last called.
    fn faults(&mut self) -> Option<String> {
        let refusals = self.load.refusals().map_or((0, ""), |refusals| refusals);
        let (now, (before, refused)) = (self.load.tally(), self.before);
        let mut faults = Vec::new();
        for (now, before, what) in [
            (refusals.0.into(), refused.into(), "publishes refused"),
            (now.missed, before.missed, "events lost"),
            (now.duplicates, before.duplicates, "events repeated"),
            (now.reordered, before.reordered, "events out of order"),
            (now.disconnects, before.disconnects, "streams cut"),
        ] {
            if now > before {
                faults.push(format!("{} {what}", now - before));
            }
        }
        if refusals.0 > refused {
            faults.push(format!("the first refusal: {}", refusals.1.trim_end()));
        }
        self.before = (now, refusals.0);
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}
