//! A flood of repeated keys through NDJSON, with the default coalescing window: how many publishes are
//! accepted, and how few events each subscriber receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::measure::{ORG, Outcome, load, micros};
use super::servers::Server;
use crate::shared::http::{Connection, NDJSON, get, post};
use crate::shared::process::now;
use crate::shared::record::heading;

/// The figures of one flood.
pub(crate) struct Publishing {
    subscribers: usize,
    accepted: u64,
    seconds: f64,
    cpu_us: f64,
    events: u64,
}

/// Lines of one request, whose body is below the default limit of 64 KiB.
const LINES: u64 = 1_000;
const DURATION: Duration = Duration::from_secs(5);

pub(crate) fn run(subscribers: usize) -> Outcome<Publishing> {
    let server = Server::with_defaults()?;
    let mut clients = load(&server, ORG, subscribers)?;
    clients.open(subscribers, server.pace(), |_| {})?;
    let events_before = delivered(&server)?;
    let before = server.cost()?;
    let start = now();
    let done = Arc::new(AtomicBool::new(false));
    let (address, stop) = (server.address().to_owned(), Arc::clone(&done));
    let publisher = thread::spawn(move || {
        let accepted = publish(&address).map_err(|why| why.to_string());
        stop.store(true, Ordering::Relaxed);
        accepted
    });
    while !done.load(Ordering::Relaxed) {
        clients.wait(Some(Duration::from_millis(50)))?;
    }
    let accepted = publisher.join().expect("the publisher does not panic")?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_us = micros(server.cost()? - before) / accepted as f64;
    let events = delivered(&server)? - events_before;
    Ok(Publishing { subscribers, accepted, seconds, cpu_us, events })
}

/// Posts one batch after the other on one connection. Returns how many lines were accepted.
fn publish(address: &str) -> Outcome<u64> {
    let line = |n: u64| format!("{{\"org\":\"{ORG}\",\"keys\":[\"posts\",\"feed:{}\"]}}\n", n % 20);
    let body: String = (0..LINES).map(line).collect();
    let request = post("/api/events", NDJSON, "", &body);
    let mut connection = Connection::open(address.parse()?)?;
    let (start, mut accepted) = (now(), 0);
    while start.elapsed() < DURATION {
        connection.exchange(&request, 202)?;
        accepted += LINES;
    }
    Ok(accepted)
}

/// Events that the server has delivered to streams so far.
fn delivered(server: &Server) -> Outcome<u64> {
    let mut connection = Connection::open(server.address().parse()?)?;
    let text = connection.exchange(&get("/metrics", ""), 200)?;
    let value = text.lines().find_map(|line| line.strip_prefix("nudged_events_delivered_total "));
    Ok(value.ok_or("no such metric")?.parse()?)
}

pub(crate) fn markdown(all: &[Publishing]) -> String {
    let mut text = heading("publish");
    text.push_str(
        "Batches of 1,000 lines with 20 different pairs of keys for one org, back to back on one \
         connection, for 5 s; one worker, the default window of 50 ms.\n\n\
         | subscribers | publishes accepted (/s) | a second of server CPU | CPU a publish (µs) | \
         events each subscriber got (/s) |\n|---:|---:|---:|---:|---:|\n",
    );
    for run in all {
        let each = run.events as f64 / run.subscribers as f64 / run.seconds;
        text.push_str(&format!(
            "| {} | {:.0} | {:.0} | {:.2} | {each:.1} |\n",
            run.subscribers,
            run.accepted as f64 / run.seconds,
            1e6 / run.cpu_us,
            run.cpu_us
        ));
    }
    text
}
