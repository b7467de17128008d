//! An upgrade that succeeds: another reactor goes on with the streams.

use std::collections::BTreeSet;
use std::net::Shutdown;

use super::*;

/// Nothing is lost or doubled, and the old reactor has nothing of them left.
#[tokio::test]
async fn streams_go_on_in_the_next_process() {
    let (mut rig, mut next) = two(uncoalesced(400));
    let (server, client) = wide_pair();
    let end = server.try_clone().expect("a descriptor");
    let mut idle = rig.begin_on((server, client), rig.open()).await;
    let mut blocked = rig.begin(rig.open()).await;
    rig.publish_each(0..60).await;
    assert_eq!(registrations(&end), 1);
    // One that the sweeps have not reached yet.
    rig.publish(&key(60));
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent, SentStreams { given: 2, kept: 0 });
    assert_eq!(registrations(&end), 0, "the old poller watches it no more");
    assert_eq!(rig.hub.seats(), 0);
    assert_eq!(rig.closed(CloseReason::Client), 0, "none has ended");
    drop(rig);
    next.run().await;
    assert_eq!(registrations(&end), 1);
    next.publish(&key(61));
    next.deliver_all(62, [&mut idle, &mut blocked]).await;
    drop((idle, blocked));
    let hub = next.hub.clone();
    next.run_until(|| hub.seats() == 0).await;
}

/// Wherever a full socket has cut an event, a client receives each byte once.
#[tokio::test]
async fn the_rest_of_a_cut_event_goes_on() {
    let mut rests = BTreeSet::new();
    for len in 1..60 {
        let (mut rig, mut next) = two(uncoalesced(400));
        let mut client = rig.begin(rig.open()).await;
        for n in 0..60 {
            rig.publish(&format!("{n:0>len$}", len = 300 + len));
            rig.run().await;
        }
        let (_ends, given) = rig.give(&next).await;
        rests.insert(given.states[0].rest.as_ref().map_or(0, Vec::len));
        assert!(given.states[0].stream.seat.blocked_ms.is_some());
        drop(rig);
        next.publish("last");
        next.run_until(|| {
            client.read(4096);
            client.keys().len() == 61
        })
        .await;
        assert!(client.keys()[..60].iter().all(|key| key.len() == 300 + len));
        assert_eq!(client.keys().last(), Some(&"last"));
        assert_eq!(client.events.len(), 62);
    }
    assert!(rests.len() > 10, "it is cut in different places: {rests:?}");
}

/// A rest may be all but any number of bytes of an event: these are made by hand.
#[tokio::test]
async fn a_rest_of_every_length_is_written_first() {
    let (mut rig, _) = two(uncoalesced(400));
    let mut client = rig.begin_on(wide_pair(), rig.open()).await;
    rig.publish("k");
    rig.run_until(|| {
        client.read(4096);
        client.keys() == ["k"]
    })
    .await;
    let mut rest: Vec<u8> = b"15\r\nid: 0000000000000001-9\n\r\n".to_vec();
    while !rest.is_empty() {
        let (mut next, _) = two(uncoalesced(400));
        let sent = rest.clone();
        let (_ends, _) =
            rig.give_changed(&next, move |state| state.rest = Some(sent.clone())).await;
        next.run().await;
        let mut bytes = vec![0; rest.len()];
        client.socket.set_nonblocking(false).expect("a socket");
        client.socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        client.socket.read_exact(&mut bytes).expect("the rest");
        client.socket.set_nonblocking(true).expect("a socket");
        assert_eq!(bytes, rest);
        next.publish("after");
        next.run().await;
        let before = client.keys().len();
        next.run_until(|| {
            client.read(4096);
            client.keys().len() > before
        })
        .await;
        rest.remove(0);
        rig = next;
    }
    assert!(client.keys()[1..].iter().all(|key| *key == "after"));
}

/// Clients that leave, or send, while the workers stand still.
#[tokio::test]
async fn clients_may_do_anything_in_a_freeze() {
    let (mut rig, mut next) = two(uncoalesced(8));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(rig.begin_on(wide_pair(), rig.open()).await);
    }
    rig.run_until(|| clients.iter_mut().all(|client| client.read(4096) > 0 || client.read(1) == 0))
        .await;
    let [mut talks, half_closed, vanished, resets] =
        <[Client; 4]>::try_from(clients).ok().expect("four");
    talks.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("connected");
    half_closed.socket.shutdown(Shutdown::Write).expect("connected");
    drop(vanished);
    SockRef::from(&resets.socket).set_linger(Some(Duration::ZERO)).expect("connected");
    drop(resets);
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent.given, 4);
    assert_eq!(rig.hub.seats(), 0);
    let hub = next.hub.clone();
    next.run_until(|| hub.seats() == 1).await;
    assert_eq!((next.closed(CloseReason::Client), next.closed(CloseReason::Reset)), (2, 1));
    next.publish("still-here");
    next.run_until(|| {
        talks.read(4096);
        talks.keys() == ["still-here"]
    })
    .await;
    // What it has sent counts in the process after the next, too.
    let (_ends, given) = next.give(&two(uncoalesced(8)).0).await;
    assert_eq!(given.states[0].discarded, 18);
}

/// An HTTP/1.0 body has no chunks.
#[tokio::test]
async fn a_body_keeps_its_framing() {
    let (mut rig, mut next) = two(uncoalesced(8));
    let (server, mut client) = wide_pair();
    let (fields, permit) = (Fields::default(), ConnPermit::default());
    let handoff = Handoff { stream: rig.open(), chunked: false, fields, surplus: 7, permit };
    rig.handle.hand_off(Transport::Plain(watched(server)), handoff);
    rig.publish("one");
    rig.run().await;
    let (_ends, given) = rig.give(&next).await;
    assert_eq!((given.states[0].chunked, given.states[0].discarded), (false, 7));
    next.publish("two");
    next.run().await;
    let mut body = Vec::new();
    next.run_until(|| {
        let mut bytes = [0; 4096];
        let length = client.socket.read(&mut bytes).unwrap_or_default();
        body.extend_from_slice(&bytes[..length]);
        body.ends_with(b"[\"two\"]}\n\n")
    })
    .await;
    let head = body.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let mut names = Vec::new();
    client.parser.push(&body[head..], |event| names.push(event.name)).expect("small events");
    assert_eq!(names, ["connected", "invalidate", "invalidate"]);
}

/// A stream in a TLS session, and one that is about to end, stay; the others go.
#[tokio::test]
async fn what_cannot_be_given_stays() {
    let (mut rig, mut next) = two(uncoalesced(8));
    let mut client = rig.begin_on(wide_pair(), rig.open()).await;
    // One whose bytes do not go to its socket as they are, as those of a TLS session.
    let read = Arc::default();
    let (server, _other) = wide_pair();
    rig.hand_off(Metered::reading(server, &read), rig.open(), 0);
    let (server, mut full) = narrow_pair();
    let earlier = fill(&server);
    let now = rig.clock.now();
    let ends = rig.open().with_deadline(Deadline { at: now, reason: CloseReason::MaxAge });
    rig.arrive(server, ends, 0);
    rig.run().await;
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 2).await;
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent, SentStreams { given: 1, kept: 1 });
    assert_eq!(rig.hub.seats(), 1);
    assert!(full.take(earlier).iter().all(|byte| *byte == b'x'));
    next.publish("here");
    rig.publish("there");
    next.run_until(|| {
        client.read(4096);
        client.keys() == ["here"]
    })
    .await;
    rig.run().await;
    rig.hub.drain(rig.clock.now(), Duration::ZERO);
    rig.run_until(|| hub.seats() == 0).await;
    assert_eq!(next.hub.seats(), 1);
}

/// Two workers give to three.
#[tokio::test]
async fn the_number_of_workers_may_change() {
    const SEATS: usize = 31;
    let config = Config { hub: uncoalesced(8), ..Config::default() };
    let old = rigs(2, &config);
    let mut next = rigs(3, &config);
    let mut clients = Vec::new();
    let mut old = <[Rig; 2]>::try_from(old).ok().expect("two");
    for n in 0..SEATS {
        let (server, client) = wide_pair();
        old[usize::from(n % 4 == 0)].arrive(server, old[usize::from(n % 4 == 0)].open(), 0);
        clients.push(client);
    }
    for rig in &mut old {
        rig.run().await;
    }
    old[0].publish("before");
    old[0].hand_over_hub(&next[0]);
    let ends = Ends::new();
    let handles: Vec<_> = old.iter().map(|rig| rig.handle.clone()).collect();
    let freeze = Freeze::begin(&handles, &ends.old);
    let workers = next.iter().map(|rig| rig.handle.clone()).collect();
    let adopter = Adopter::new(workers, next[0].admission.clone(), None, next[0].clock.now());
    let [first, second] = &mut old;
    let (control, new) = (ends.old.clone(), ends.new.clone());
    // Each worker has a thread.
    let taken = thread::scope(|scope| {
        let upgrade = scope.spawn(move || {
            freeze.wait_stopped(soon()).expect("they stop");
            let sent = freeze.send_streams(soon()).expect("the streams are sent");
            let taken = receive_lanes(&new, 2, adopter, |_| ()).1.expect("the streams are taken");
            freeze.release(&Outcome::Given(Successor::new(control)));
            assert_eq!(sent.given, taken);
            taken
        });
        scope.spawn(|| while first.driver.turn() {});
        while second.driver.turn() {}
        upgrade.join().expect("no panic")
    });
    assert_eq!(taken, SEATS as u64);
    next[0].publish("after");
    for rig in &mut next {
        rig.run().await;
        let delivered = read(&rig.hub.shard_counters().delivered);
        assert!((20..=22).contains(&delivered), "two events to a third of {SEATS}: {delivered}");
    }
    let mut rig = next.remove(0);
    rig.run_until(|| {
        clients.iter_mut().all(|client| {
            client.read(4096);
            client.keys() == ["before", "after"]
        })
    })
    .await;
}

/// Workers of one server.
fn rigs(count: usize, config: &Config) -> Vec<Rig> {
    let clock = Clock::start_after(Duration::ZERO);
    let hub = Hub::with_shards(config.hub.clone(), count);
    hub.begin(clock.now());
    (0..count).map(|shard| Rig::on(hub.on_shard(shard), config.clone(), clock)).collect()
}
