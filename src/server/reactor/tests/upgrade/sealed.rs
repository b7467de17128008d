//! Streams behind TLS go on in the next process too, with their keys.

use std::collections::BTreeSet;

use super::super::sealed::SealedClient;
use super::*;
use crate::state::{Recorded as _, kinds};

// ===== impl Receiver =====

impl Receiver for SealedClient {
    fn read(&mut self, most: usize) -> usize {
        Self::read(self, most)
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

/// Nothing is lost or doubled, whether a stream is idle or its socket is full, and no end of the session is sent.
#[tokio::test]
async fn streams_behind_tls_go_on_in_the_next_process() {
    let (mut rig, mut next) = two(uncoalesced(400));
    let mut idle = rig.begin_sealed(wide_pair()).await;
    let mut blocked = rig.begin_sealed(narrow_pair()).await;
    rig.publish_each(0..60).await;
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent, SentStreams { given: 2, kept: 0 });
    // A version that knows no keys would write in the clear: it must not know the records.
    assert!(given.states.iter().all(|state| state.kind() == kinds::SEALED_STREAM));
    assert_eq!(rig.hub.seats(), 0);
    assert_eq!(rig.closed(CloseReason::Client), 0, "none has ended");
    drop(rig);
    next.run().await;
    next.publish(&key(60));
    next.deliver_all(61, [&mut idle, &mut blocked]).await;
    assert!(!idle.closed && !blocked.closed);
    drop((idle, blocked));
    let hub = next.hub.clone();
    next.run_until(|| hub.seats() == 0).await;
}

/// A full socket cuts records anywhere, and a client sends records of which a part has arrived, and key updates.
#[tokio::test]
async fn whatever_is_on_its_way_goes_on() {
    let (mut pendings, mut partials) = (BTreeSet::new(), BTreeSet::new());
    for len in 1..20 {
        let (mut rig, mut next) = two(uncoalesced(400));
        let mut client = rig.begin_sealed(narrow_pair()).await;
        // The record that is cut has 16 KiB, so that no acknowledgement makes room for all of it.
        let length = |n: usize| if n == 3 { 20_000 } else { 300 + len };
        for n in 0..60 {
            rig.publish(&format!("{n:0>len$}", len = length(n)));
            rig.run().await;
        }
        client.session.refresh_traffic_keys().expect("TLS 1.3");
        client.session.writer().write_all(&vec![b'x'; 10 * len]).expect("a session");
        let sent = crate::server::tls::test_sessions::records(&mut client.session);
        let (some, rest) = sent.split_at(30 + len);
        client.client.socket.write_all(some).expect("connected");
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(1));
            rig.run().await;
        }
        let (_ends, given) = rig.give(&next).await;
        let sealed = given.states[0].sealed.as_ref().expect("behind TLS");
        pendings.insert(sealed.pending.len());
        partials.insert(sealed.partial.len());
        drop(rig);
        client.client.socket.write_all(rest).expect("connected");
        next.publish("last");
        next.run_until(|| {
            client.read(4096);
            client.keys().len() == 61
        })
        .await;
        let mut keys = client.keys();
        assert_eq!(keys.pop(), Some("last"));
        assert!(keys.iter().enumerate().all(|(n, key)| key.parse() == Ok(n)));
        assert!(keys.iter().enumerate().all(|(n, key)| key.len() == length(n)));
        assert_eq!(client.client.events.len(), 62);
        assert_eq!(next.hub.seats(), 1);
    }
    assert!(pendings.len() > 10, "records are cut in different places: {pendings:?}");
    assert!(partials.len() > 10, "records have arrived in different parts: {partials:?}");
}

/// SCENARIO: the socket of an idle stream is full when its client requests a key update, and then the process is
/// replaced. The answer does not wait for the next event.
#[tokio::test]
async fn an_answer_that_a_full_socket_delays_goes_on_without_an_event() {
    // No keepalive has it written.
    let keepalive = Duration::from_secs(3_600);
    let (mut rig, mut next) = two(HubConfig { keepalive, ..uncoalesced(400) });
    let (server, client) = narrow_pair();
    let end = server.try_clone().expect("a descriptor");
    let mut client = rig.begin_sealed((server, client)).await;
    rig.run_until(|| {
        client.read(4096);
        client.client.events.len() == 1
    })
    .await;
    // Not a part of the session.
    let (mut filled, mut quiet) = (0, 0);
    while quiet < 60 {
        let more = fill(&end);
        quiet = if more > 0 { 0 } else { quiet + 1 };
        filled += more;
        // The kernel makes room for more when what has been sent is acknowledged, after 40 ms at the latest.
        thread::sleep(Duration::from_millis(2));
    }
    client.session.refresh_traffic_keys().expect("TLS 1.3");
    client.send();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(1));
        rig.run().await;
    }
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.states[0].stream.seat.blocked_ms, None, "no event was written");
    assert_eq!(given.states[0].discarded, 27, "the update was read");
    drop(rig);
    client.client.take(filled);
    let mut read = client.read(100);
    assert_eq!(read, 0, "the answer was not written before");
    next.run_until(|| {
        read += client.read(100);
        read >= 27
    })
    .await;
}

/// An upgrade that fails leaves the streams as they were: what was saved of their keys is not used.
#[tokio::test]
async fn streams_behind_tls_that_stay_lose_nothing() {
    let mut rig = Rig::new(uncoalesced(400));
    let mut idle = rig.begin_sealed(wide_pair()).await;
    let mut blocked = rig.begin_sealed(narrow_pair()).await;
    rig.publish_each(0..60).await;
    assert_eq!(rig.give_in_vain().await, SentStreams { given: 2, kept: 0 });
    rig.publish(&key(60));
    rig.deliver_all(61, [&mut idle, &mut blocked]).await;
}
