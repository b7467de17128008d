//! A flood of repeated keys through NDJSON, with the default window: how many publishes are accepted,
//! and how little of it each subscriber is bothered with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::measure::{ORG, Outcome, load, micros};
use super::servers::Server;
use crate::shared::process::now;
use crate::shared::record::heading;

/// What the flood came to.
pub(crate) struct Publishing {
    subscribers: usize,
    accepted: u64,
    seconds: f64,
    cpu_us: f64,
    events: u64,
}

/// Lines of one request, which stays below the 64 KiB of the default.
const LINES: u64 = 1_000;
const DURATION: Duration = Duration::from_secs(5);

pub(crate) fn run(subscribers: usize) -> Outcome<Publishing> {
    let server = Server::with_defaults()?;
    let mut crowd = load(&server, ORG, subscribers)?;
    crowd.open(subscribers, server.pace(), |_| {})?;
    let events_before = delivered(&server)?;
    let before = server.cost()?;
    let start = now();
    let done = Arc::new(AtomicBool::new(false));
    let (address, seen) = (server.address().to_owned(), Arc::clone(&done));
    let publisher = thread::spawn(move || {
        let accepted = publish(&address).map_err(|why| why.to_string());
        seen.store(true, Ordering::Relaxed);
        accepted
    });
    while !done.load(Ordering::Relaxed) {
        crowd.wait(Some(Duration::from_millis(50)))?;
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
    let length = body.len();
    let request = format!(
        "POST /api/events HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let mut socket = TcpStream::connect(address)?;
    let (start, mut accepted) = (now(), 0);
    let mut answer = [0; 1024];
    while start.elapsed() < DURATION {
        socket.write_all(request.as_bytes())?;
        let n = socket.read(&mut answer)?;
        let answer = std::str::from_utf8(&answer[..n])?;
        if !answer.starts_with("HTTP/1.1 202 ") {
            return Err(format!("refused: {answer}").into());
        }
        accepted += LINES;
    }
    Ok(accepted)
}

/// Events that the server handed to streams so far.
fn delivered(server: &Server) -> Outcome<u64> {
    let mut socket = TcpStream::connect(server.address())?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let value = text.lines().find_map(|l| l.strip_prefix("nudged_events_delivered_total "));
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
