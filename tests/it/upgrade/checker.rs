//! What clients notice while something happens to their server: streams, a publisher and a prober, all the time.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::shared::crowd::{Crowd, Tally};
use super::shared::traffic::{Probed, Prober, Published, Publisher};

pub(super) struct Checker {
    streams: usize,
    publisher: Publisher,
    prober: Prober,
    /// Has what was published, once nothing more is.
    published: Sender<Published>,
    crowd: JoinHandle<(Tally, u64, u64)>,
}

/// What all of them have noticed.
#[derive(Debug)]
pub(super) struct Seen {
    streams: usize,
    pub(super) tally: Tally,
    pub(super) published: Published,
    pub(super) probed: Probed,
    /// Publishes that were accepted and have not arrived, and events that have arrived at some only.
    pub(super) missing: u64,
    pub(super) behind: u64,
}

const ORGS: usize = 5;
const PUBLISHES: Duration = Duration::from_millis(200);
const CONNECTS: Duration = Duration::from_millis(3);
const TURN: Duration = Duration::from_millis(5);
/// How long the last events may take to arrive.
const CATCH_UP: Duration = Duration::from_secs(20);

// ===== impl Checker =====

impl Checker {
    /// Opens so many streams, and returns once all are open.
    pub(super) fn start(server: SocketAddr, streams: usize) -> Self {
        let orgs: Vec<_> = (0..ORGS).map(|org| format!("org-{org}")).collect();
        let mut crowd = Crowd::new(server, &orgs).expect("a poller");
        crowd.open(streams).expect("all streams open");
        let (sender, published) = channel();
        let crowd = thread::spawn(move || {
            let published: Published = loop {
                match published.try_recv() {
                    Ok(published) => break published,
                    Err(TryRecvError::Empty) => crowd.turn(TURN).expect("a poller"),
                    // The test has failed.
                    Err(TryRecvError::Disconnected) => return (Tally::default(), 0, 0),
                }
            };
            let missing = |crowd: &Crowd| -> u64 {
                let by_org = published.accepted.iter().enumerate();
                by_org.map(|(org, numbers)| crowd.missing(org, numbers.iter().copied())).sum()
            };
            let start = Instant::now();
            while crowd.open_now() > 0
                && (missing(&crowd) > 0 || crowd.behind() > 0)
                && start.elapsed() < CATCH_UP
            {
                crowd.turn(TURN).expect("a poller");
            }
            (crowd.tally.clone(), missing(&crowd), crowd.behind())
        });
        let publisher = Publisher::start(server, 0, orgs, PUBLISHES);
        let prober = Prober::start(server, CONNECTS);
        Self { streams, publisher, prober, published: sender, crowd }
    }

    pub(super) fn finish(self) -> Seen {
        let published = self.publisher.stop();
        let probed = self.prober.stop();
        self.published.send(published.clone()).expect("it receives");
        let (tally, missing, behind) = self.crowd.join().expect("it does not panic");
        Seen { streams: self.streams, tally, published, probed, missing, behind }
    }

    /// Ends it; no client may have noticed anything.
    pub(super) fn expect_nothing(self, what: &str) -> Seen {
        let seen = self.finish();
        if let Some(noticed) = seen.noticed() {
            panic!("{what}: {noticed}");
        }
        seen
    }
}

// ===== impl Seen =====

impl Seen {
    /// What clients have noticed and must not, in words.
    pub(super) fn noticed(&self) -> Option<String> {
        let Self { streams, tally, published, probed, missing, behind } = self;
        let mut noticed: Vec<String> = tally.noticed(*streams).into_iter().collect();
        if *missing + *behind > 0 {
            noticed.push(format!(
                "{missing} publishes were lost, {behind} events arrived at some only"
            ));
        }
        if published.failed > 0 {
            noticed.push(format!("{} publishes failed: {:?}", published.failed, published.failure));
        }
        if probed.refused + probed.failed > 0 {
            noticed.push(format!(
                "{} connects refused, {} failed: {:?}",
                probed.refused, probed.failed, probed.failure
            ));
        }
        assert!(
            tally.events > 0 && probed.answered > 0 || !noticed.is_empty(),
            "nothing happened: {self:?}"
        );
        (!noticed.is_empty()).then(|| noticed.join("; "))
    }
}
