//! Publishes consecutive numbers to the orgs of the steady subscribers: one by one, a line for each org,
//! and in bursts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::checker::key;
use super::client::Client;
use super::phase::{ORGS, Phase, Role, Shared, add, org};
use crate::shared::http::{JSON, NDJSON};

/// One connection per step; nothing is retried, so that the numbers stay in order.
const STEP: Duration = Duration::from_millis(250);

/// One step in this many has a burst.
const BURST_EVERY: u64 = 20;
const BURST: usize = 200;
/// More keys than one event may have, so that live streams get `connected`.
const FLOOD: usize = 300;

/// Longer than the server's coalescing window.
const WINDOW: Duration = Duration::from_millis(200);

pub(crate) fn run(address: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let mut published = false;
    for step in 1_u64.. {
        match shared.phase() {
            Phase::Run | Phase::Settle => {
                published = false;
                publish(address, shared, step)?;
                shared.reach(Role::Publisher, Phase::Settle);
                thread::sleep(STEP);
            }
            Phase::Quiesce if !published => {
                thread::sleep(WINDOW);
                to_each(&mut Client::connect(address)?, shared)?;
                published = true;
            }
            Phase::Quiesce => shared.idle(Role::Publisher, Phase::Quiesce),
            Phase::Stop => break,
        }
    }
    Ok(())
}

fn publish(address: SocketAddr, shared: &Shared, step: u64) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    for org in 0..ORGS {
        if fastrand::u8(..4) != 0 {
            let body = format!("{{\"keys\":[\"{}\"]}}", next(shared, org));
            client.post(&format!("/api/{}/events", self::org(org)), JSON, &body)?;
        }
    }
    match step % BURST_EVERY {
        0 => {
            let org = fastrand::usize(..ORGS);
            let flood = (step / BURST_EVERY).is_multiple_of(4);
            let lines = (0..if flood { FLOOD } else { BURST }).map(|_| line(shared, org));
            client.post("/api/events", NDJSON, &lines.collect::<String>())
        }
        5 => to_each(&mut client, shared),
        _ => Ok(()),
    }
}

/// One line for each org, in one request.
fn to_each(client: &mut Client, shared: &Shared) -> io::Result<()> {
    let lines: String = (0..ORGS).map(|org| line(shared, org)).collect();
    client.post("/api/events", NDJSON, &lines)
}

fn line(shared: &Shared, org: usize) -> String {
    format!("{{\"org\":\"{}\",\"keys\":[\"{}\"]}}\n", self::org(org), next(shared, org))
}

fn next(shared: &Shared, org: usize) -> String {
    add(&shared.tally.published, 1);
    key(shared.numbers[org].fetch_add(1, Ordering::Release) + 1)
}
