//! Publishes to the orgs of the crowd, one number after the other: single ones, one line for each org,
//! and bursts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::client::{Client, JSON, NDJSON};
use super::follower::key;
use super::stage::{ORGS, Part, Phase, Stage, add, org};

/// One connection a step; nothing is sent twice, so that the numbers stay in order.
const STEP: Duration = Duration::from_millis(250);

/// Of so many steps, one also has a burst.
const BURST_EVERY: u64 = 20;
const BURST: usize = 200;
/// More keys than one event may have: everybody is told to re-read.
const FLOOD: usize = 300;

/// Longer than the server joins publishes.
const WINDOW: Duration = Duration::from_millis(200);

pub(crate) fn run(address: SocketAddr, stage: &Arc<Stage>) -> io::Result<()> {
    let mut spoken = false;
    for step in 1_u64.. {
        match stage.phase() {
            Phase::Run | Phase::Settle => {
                spoken = false;
                publish(address, stage, step)?;
                stage.reach(Part::Publisher, Phase::Settle);
                thread::sleep(STEP);
            }
            Phase::LastWord if !spoken => {
                thread::sleep(WINDOW);
                to_each(&mut Client::connect(address)?, stage)?;
                spoken = true;
            }
            Phase::LastWord => stage.rest(Part::Publisher, Phase::LastWord),
            Phase::End => break,
        }
    }
    Ok(())
}

fn publish(address: SocketAddr, stage: &Stage, step: u64) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    for org in 0..ORGS {
        if fastrand::u8(..4) != 0 {
            let body = format!("{{\"keys\":[\"{}\"]}}", next(stage, org));
            client.post(&format!("/api/{}/events", self::org(org)), JSON, &body)?;
        }
    }
    match step % BURST_EVERY {
        0 => {
            let org = fastrand::usize(..ORGS);
            let flood = (step / BURST_EVERY).is_multiple_of(4);
            let lines = (0..if flood { FLOOD } else { BURST }).map(|_| line(stage, org));
            client.post("/api/events", NDJSON, &lines.collect::<String>()).map(drop)
        }
        5 => to_each(&mut client, stage),
        _ => Ok(()),
    }
}

/// One line for each org, in one request.
fn to_each(client: &mut Client, stage: &Stage) -> io::Result<()> {
    let lines: String = (0..ORGS).map(|org| line(stage, org)).collect();
    client.post("/api/events", NDJSON, &lines).map(drop)
}

fn line(stage: &Stage, org: usize) -> String {
    format!("{{\"org\":\"{}\",\"keys\":[\"{}\"]}}\n", self::org(org), next(stage, org))
}

fn next(stage: &Stage, org: usize) -> String {
    add(&stage.tally.published, 1);
    key(stage.numbers[org].fetch_add(1, Ordering::Release) + 1)
}
