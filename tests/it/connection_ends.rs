//! A request and the end of its connection arrive together, in every combination and over every transport: what is
//! complete is answered, and nothing is left.

use crate::support::http2_client::{END_HEADERS, END_STREAM, frame, kind, request};
use crate::support::peer::{Dual, Peer};
use crate::support::server::Signal;
use crate::support::{Transport, eventually};

/// How a client ends its connection, after its request.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Rst,
    CloseNotify,
    CloseNotifyFin,
    CloseNotifyRst,
    GarbageFin,
    GarbageRst,
    /// Nothing but a reset, once the server has had time to respond.
    LateRst,
}

const ENDS: [End; 8] = [
    End::Fin,
    End::Rst,
    End::CloseNotify,
    End::CloseNotifyFin,
    End::CloseNotifyRst,
    End::GarbageFin,
    End::GarbageRst,
    End::LateRst,
];

const PUBLISH: &str = "{\"keys\":[\"posts\"]}";

const STREAM: &str = "/api/acme/events";

/// What a client sends before it ends its connection.
fn requests(peer: &Peer) -> Vec<(&'static str, Vec<u8>)> {
    let get = |path: &str| peer.request("GET", path, None);
    let publish = peer.request("POST", STREAM, Some(PUBLISH));
    let more = |first: &[u8], second: &[u8]| [first, second].concat();
    let mut requests = vec![
        ("nothing", Vec::new()),
        ("a stream", get(STREAM)),
        ("a public stream", get("/api/acme/public/events")),
        ("the head of a stream", peer.request("HEAD", STREAM, None)),
        ("a probe", get("/livez")),
        ("half a head", get(STREAM)[..get(STREAM).len() - 3].to_vec()),
        ("half a body", publish[..publish.len() - 3].to_vec()),
        ("a publish", publish.clone()),
    ];
    if peer.is_http2() {
        let headers = |stream, path| {
            frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path))
        };
        requests.extend([
            ("two streams", more(&get(STREAM), &headers(3, STREAM))),
            ("a probe and a stream", more(&get("/livez"), &headers(3, STREAM))),
            ("a stream and a probe", more(&get(STREAM), &headers(3, "/livez"))),
            ("a reset stream", more(&get(STREAM), &frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]))),
        ]);
    } else {
        let large = format!("GET {STREAM} HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(5_000));
        requests.extend([
            ("a stream with a head beyond one read", large.into()),
            ("two streams", more(&get(STREAM), &get(STREAM))),
            ("a probe and a stream", more(&get("/livez"), &get(STREAM))),
            ("a publish and a stream", more(&publish, &get(STREAM))),
            ("a stream and a probe", more(&get(STREAM), &get("/livez"))),
        ]);
    }
    requests
}

fn end(mut peer: Peer, bytes: &[u8], end: End) -> Option<Peer> {
    let garbage = [bytes, &b"\xff\x00garbage\r\n\r\n".repeat(3)].concat();
    match end {
        End::Fin | End::Rst | End::LateRst => peer.send(bytes, false),
        End::CloseNotify | End::CloseNotifyFin | End::CloseNotifyRst => peer.send(bytes, true),
        End::GarbageFin | End::GarbageRst => peer.send(&garbage, false),
    }
    match end {
        End::Fin | End::CloseNotifyFin | End::GarbageFin => peer.half_close(),
        End::Rst | End::CloseNotifyRst | End::GarbageRst => {
            peer.reset();
            return None;
        }
        End::CloseNotify | End::LateRst => {}
    }
    Some(peer)
}

/// SCENARIO: a client requests a stream and closes its connection, and the server reads both at once.
/// BUG: behind TLS, hyper ended the connection before it was asked for the stream, which stayed in the place between
/// them, with its seat: for as long as no other connection of that worker was polled, and for the whole drain.
/// FIX: that place is emptied by every poll; whatever a client sends and however it ends, nothing of it is left.
#[test]
fn nothing_is_left_of_any_request_with_any_end() {
    let args =
        ["--workers", "1", "--drain-window", "0", "--drain-timeout", "1h", "--head-timeout", "1h"];
    for transport in Transport::all() {
        let mut dual = Dual::start(&args);
        drop(dual.connect(transport));
        dual.is_left_empty("a connection before");
        let before = dual.server.descriptors();
        let requests = requests(&dual.connect(transport));
        for (what, bytes) in requests {
            for how in ENDS {
                let what = format!("{what}, {how:?}, {transport:?}");
                let is_secure = transport.is_secure();
                if !is_secure
                    && matches!(how, End::CloseNotify | End::CloseNotifyFin | End::CloseNotifyRst)
                {
                    continue;
                }
                let peer = dual.connect(transport);
                let peer = dual.stopped(|| end(peer, &bytes, how));
                match how {
                    // An answer, or a few moments.
                    End::LateRst => {
                        dual.server.settle();
                        peer.into_iter().for_each(Peer::reset);
                    }
                    _ => peer.into_iter().for_each(Peer::closing),
                }
                dual.is_left_empty(&what);
                eventually(&format!("every descriptor is closed: {what}"), || {
                    dual.server.descriptors() <= before
                });
            }
        }
        // The last thing that the worker sees before the drain, without any other connection after it.
        let peers: Vec<_> = ENDS.iter().map(|how| (dual.connect(transport), *how)).collect();
        let stream = peers[0].0.request("GET", STREAM, None);
        dual.stopped(|| {
            for (peer, how) in peers {
                if !matches!(how, End::LateRst) {
                    drop(end(peer, &stream, how));
                }
            }
        });
        dual.server.signal(Signal::TERM);
        assert_eq!(dual.server.wait(), Some(0), "{transport:?}");
    }
}

/// SCENARIO: a backend sends a publish and ends its half of the connection, as `nc -N` does.
/// BUG: hyper took the end of the input for the end of the client, and dropped the request: 79 of 100 were neither
/// answered nor published.
/// FIX: a request that is complete is answered, and then the connection ends.
#[test]
fn a_complete_request_is_answered_although_its_client_sends_no_more() {
    for transport in Transport::all() {
        let dual = Dual::start(&["--workers", "1", "--coalesce", "0"]);
        let published = dual.server.metric("nudged_events_published_total");
        const TIMES: u64 = 50;
        for (method, path, body, status, times) in [
            ("POST", STREAM, Some(PUBLISH), 202, TIMES),
            ("GET", "/livez", None, 200, TIMES / 5),
            ("GET", "/metrics", None, 200, TIMES / 5),
            ("GET", "/nowhere", None, 404, TIMES / 5),
        ] {
            for n in 0..times {
                let mut peer = dual.connect(transport);
                let bytes = peer.request(method, path, body);
                let mut go = || {
                    peer.send(&bytes, n % 2 == 0);
                    peer.half_close();
                };
                // As one, or as fast as it goes.
                if n % 4 < 2 {
                    dual.stopped(go)
                } else {
                    go()
                }
                let answer = peer.read_answer();
                assert_eq!(answer, Some(status), "{method} {path}, {n}, {transport:?}");
            }
        }
        assert_eq!(
            dual.server.metric("nudged_events_published_total") - published,
            TIMES,
            "{transport:?}"
        );
        dual.is_left_empty("answered");
    }
}

/// Pipelined, the last one too.
#[test]
fn every_complete_request_before_a_half_close_is_answered() {
    for transport in Transport::http1() {
        let dual = Dual::start(&["--workers", "1", "--coalesce", "0"]);
        let mut peer = dual.connect(transport);
        let livez = peer.request("GET", "/livez", None);
        let publish = peer.request("POST", STREAM, Some(PUBLISH));
        let bytes = [&livez[..], &publish, &publish, &livez].concat();
        dual.stopped(|| {
            peer.send(&bytes, true);
            peer.half_close();
        });
        let answers = String::from_utf8(peer.read_to_end()).expect("text");
        let statuses: Vec<_> =
            answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["200", "202", "202", "200"], "{transport:?}");
        assert_eq!(dual.server.metric("nudged_events_published_total"), 2);
    }
}

/// SCENARIO: a client requests a stream and ends its half of the connection at once.
/// BUG: the stream took a seat, and wrote its greeting, although its client had gone.
/// FIX: in cleartext the reactor closes such a connection; elsewhere the seat is freed with the connection.
#[test]
fn the_request_of_a_stream_with_a_half_close_takes_no_seat() {
    for transport in Transport::all() {
        let dual = Dual::start(&["--workers", "1"]);
        let opened = || dual.server.metric("nudged_streams_opened_total");
        for _ in 0..20 {
            let mut peer = dual.connect(transport);
            let bytes = peer.request("GET", STREAM, None);
            dual.stopped(|| {
                peer.send(&bytes, true);
                peer.half_close_for_sure();
            });
            peer.closing();
            eventually("no seat is taken", || dual.server.seats() == 0);
        }
        if transport == Transport::Http1 {
            assert_eq!(opened(), 0, "none was opened");
        }
        dual.is_left_empty("streams");
        let closed: u64 = dual.server.closed().values().sum();
        assert_eq!(closed, opened());
    }
}

/// The rest of the body cannot come any more.
#[test]
fn a_half_close_within_a_body_ends_the_request_at_once() {
    for transport in Transport::all() {
        let dual = Dual::start(&["--workers", "1", "--body-timeout", "1h", "--head-timeout", "1h"]);
        for cut in [1, PUBLISH.len()] {
            let mut peer = dual.connect(transport);
            let bytes = peer.request("POST", STREAM, Some(PUBLISH));
            peer.send(&bytes[..bytes.len() - cut], true);
            peer.half_close();
            peer.closing();
        }
        assert_eq!(dual.server.metric("nudged_events_published_total"), 0);
        dual.is_left_empty("half a body");
    }
}
