//! Connections that wait for the header in which their proxy names the client.

use super::waiting::{STREAM, connect, send};
use super::*;
use crate::admission::{Entrance, PeerSource};
use crate::metrics::HeaderRefusal;
use crate::server::proxy_protocol::HeaderState;
use crate::server::reactor::Accepted;
use crate::stream::{Sockets as _, drive_with};
use crate::time::Time;

/// Of 192.0.2.1.
const HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC6\x33\x64\x02\x12\x67\x01\xBB";

/// No poller is asked between the accept and the answer, as without a header.
#[tokio::test]
async fn a_request_that_came_with_its_header_is_answered_in_the_turn_of_its_connection() {
    let mut rig = Rig::new(uncoalesced(8));
    let (client, mut accepted) = connect(&rig.admission).await;
    accepted.admitted = rig.admission.admit(None, Entrance::Public).await;
    accepted.header = HeaderState::Due;
    let admitted = Arc::downgrade(&accepted.admitted);
    send(&accepted, &client, &[HEADER, STREAM].concat());
    rig.handle.accept(accepted, None);
    rig.driver.turn();
    assert_eq!(rig.hub.seats(), 1);
    assert_eq!(admitted.strong_count(), 0, "its stream has what it counts for");
}

/// A part of it is left where it is, and costs nothing; the rest need not come with the request.
#[tokio::test]
async fn a_header_in_parts_is_read_once_it_is_whole() {
    let mut rig = Rig::new(uncoalesced(8));
    let (mut client, mut accepted) = connect(&rig.admission).await;
    accepted.admitted = rig.admission.admit(None, Entrance::Public).await;
    accepted.header = HeaderState::Due;
    let admitted = Arc::downgrade(&accepted.admitted);
    rig.handle.accept(accepted, None);
    for part in HEADER.chunks(5) {
        let source = admitted.upgrade().expect("it waits").peer_source();
        assert_eq!(source, PeerSource::Socket);
        client.write_all(part).expect("connected");
        rig.run().await;
    }
    let named = || admitted.upgrade().is_some_and(|a| a.peer() == Some([192, 0, 2, 1].into()));
    rig.run_until(named).await;
    client.write_all(STREAM).expect("connected");
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 1).await;
}

/// The oldest goes first, and only those that wait for their header.
#[tokio::test]
async fn the_oldest_that_waits_for_its_header_makes_room() {
    let config = Config { connections_max: Some(3), ..Config::default() };
    let mut rig = Rig::with(config);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (client, mut accepted) = connect(&rig.admission).await;
        let peer = accepted.admitted.peer();
        drop(accepted.admitted);
        accepted.admitted = rig.admission.admit(None, Entrance::Public).await;
        accepted.header = HeaderState::Due;
        let admitted = Arc::downgrade(&accepted.admitted);
        rig.handle.accept(accepted, None);
        rig.run().await;
        waiting.push((client, admitted, peer));
    }
    waiting[0].0.write_all(HEADER).expect("connected");
    let first = waiting[0].1.clone();
    rig.run_until(|| first.upgrade().is_some_and(|admitted| admitted.peer().is_some())).await;
    let admission = rig.admission.clone();
    let mut next = Box::pin(admission.admit(waiting[0].2, Entrance::Public));
    let mut admitted = None;
    rig.run_until(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(ready) = next.as_mut().poll(&mut cx) {
            admitted = Some(ready);
        }
        admitted.is_some()
    })
    .await;
    assert!(!admitted.expect("a place").is_unproven(), "it is a regular one");
    let open = |n: usize| waiting[n].1.strong_count() > 0;
    assert_eq!([0, 1, 2].map(open), [true, false, true]);
}

/// SCENARIO: all places are taken when a connection of a proxy comes, so a task waits for its header. The client that this
/// names may have one connection, and has one, which has become idle.
/// BUG: a task that makes no room lets the client be refused, although the idle one can be closed.
/// FIX: the idle one is closed for it, as in the reactor.
#[tokio::test]
async fn beyond_all_places_too_an_idle_connection_of_the_named_client_makes_room() {
    let config =
        Config { connections_max: Some(1), address_connections_max: Some(1), ..Config::default() };
    let mut rig = Rig::with(config);
    let idle = rig.admission.admit(None, Entrance::Public).await;
    assert!(idle.set_peer([192, 0, 2, 1].into()));
    let (mut client, accepted) = connect(&rig.admission).await;
    let Accepted { socket, .. } = accepted;
    let admitted = rig.admission.admit(None, Entrance::Public).await;
    assert!(admitted.is_unproven(), "it is beyond the limit");
    rig.context.dispatch(Accepted { socket, admitted, header: HeaderState::Due }, None);
    rig.run().await;
    idle.closer().note_idle();
    client.write_all(&[HEADER, STREAM].concat()).expect("connected");
    rig.run_until(|| idle.is_closed()).await;
    drop(idle);
    let hub = rig.hub.clone();
    rig.run_until(|| hub.seats() == 1).await;
}

/// SCENARIO: a server stops while balancers have connections open without a header, as before each of their own requests.
/// BUG: each counts as refused, for a header that is missing, and the log has a line that blames the balancer.
/// FIX: it is closed without.
#[tokio::test]
async fn what_a_drain_closes_is_not_refused() {
    let hub = HubConfig { drain_grace: Duration::from_millis(10), ..HubConfig::default() };
    let config = Config { hub, ..Config::default() };
    let (hub, clock) = (Hub::new(config.hub.clone()), Clock::start());
    let (context, admission, draining) = context_with(config, &hub, clock);
    let handle = context.reactor.clone();
    let mut reactor = Reactor::new(context).expect("a poller");
    let (mut client, mut accepted) = connect(&admission).await;
    accepted.header = HeaderState::Due;
    handle.accept(accepted, None);
    reactor.turn(Time(0));
    draining.send_replace(true);
    hub.drain(clock.now(), Duration::ZERO);
    drive_with(hub, clock, reactor).await;
    while client.read(&mut [0]).is_err() {
        yield_now().await;
    }
    assert_eq!(admission.header_refusals().read(HeaderRefusal::Missing), 0);
}
