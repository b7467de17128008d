//! Exclusive streams on several servers: the last one in the order of the log is the only one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use proptest::prelude::*;

use super::super::Bell;
use super::{Client, Cluster, HubConfig, Lines, Start, config, events, topic};
use crate::hub::SubscribeError;
use crate::metrics::CloseReason;

fn append(cluster: &mut Cluster, claim: u64) {
    cluster.append(|lines| _ = lines.exclusive(&topic("run"), claim));
}

fn claim(cluster: &Cluster, node: usize, number: u64) -> Client {
    cluster.nodes[node].claim("run", number).expect("open")
}

fn is_sole(client: &Client) -> bool {
    client.stream.poll_sole(Waker::noop()).is_ready()
}

#[test]
fn a_claim_ends_the_others_of_every_server_once_the_log_has_it() {
    let mut cluster = Cluster::new();
    let mut others = [0, 1].map(|node| cluster.open(node, "run", Start::All));
    let mut walk = cluster.open(0, "walk", Start::All);
    let mut newest = claim(&cluster, 0, 1);
    cluster.publish("run", "one");
    for other in &mut others {
        assert_eq!(other.names(), "one", "until then they go on");
    }
    append(&mut cluster, 1);
    cluster.follow();
    assert!(!is_sole(&newest));
    cluster.publish("run", "two");
    for other in &mut others {
        assert_eq!(other.take(), (String::new(), true), "nothing that was published since");
    }
    drop(others);
    assert!(is_sole(&newest));
    assert_eq!((&*newest.names(), &*walk.names()), ("one two", ""));
    let ended = [0, 1].map(|node| cluster.nodes[node].ended(CloseReason::Replaced));
    assert_eq!(ended, [1, 1]);
}

/// Both have their seats before either's record is applied anywhere.
#[test]
fn of_two_claims_on_two_servers_the_last_in_the_log_wins_everywhere() {
    for order in [[0, 1], [1, 0]] {
        for leader in [0, 1] {
            let mut cluster = Cluster::new();
            let mut claims = [claim(&cluster, 0, 7), claim(&cluster, 1, 8)];
            let mut plain = [0, 1].map(|node| cluster.open(node, "run", Start::All));
            for node in order {
                append(&mut cluster, [7, 8][node]);
            }
            // One server is ahead of the other.
            while cluster.apply(leader) {}
            cluster.follow();
            let [loser, winner] = order;
            assert!(is_sole(&claims[loser]), "it waits for nothing, as it is replaced");
            assert_eq!(claims[loser].take(), (String::new(), true));
            for stream in &mut plain {
                assert_eq!(stream.take(), (String::new(), true));
            }
            drop(plain);
            cluster.publish("run", "one");
            assert!(is_sole(&claims[winner]));
            assert_eq!(claims[winner].names(), "one");
        }
    }
}

#[test]
fn of_two_claims_on_one_server_the_last_in_the_log_wins() {
    for [first, last] in [[0, 1], [1, 0]] {
        let mut cluster = Cluster::new();
        let mut claims = [claim(&cluster, 0, 7), claim(&cluster, 0, 8)];
        append(&mut cluster, [7, 8][first]);
        cluster.follow();
        assert!(
            is_sole(&claims[first]),
            "the other's claim is still to come, and ends nothing yet"
        );
        assert_eq!(claims[last].names(), "");
        append(&mut cluster, [7, 8][last]);
        cluster.follow();
        assert_eq!(claims[first].take(), (String::new(), true));
        assert_eq!(claims[last].names(), "");
        let [one, two] = claims;
        drop(if first == 0 { one } else { two });
    }
}

/// The stream ends if its record was not acknowledged, which may be in the log all the same, now or later.
#[test]
fn a_claim_whose_stream_has_gone_ends_the_others_and_no_later_one() {
    let mut cluster = Cluster::new();
    let mut old = cluster.open(1, "run", Start::All);
    drop(claim(&cluster, 0, 7));
    cluster.follow();
    assert_eq!(old.names(), "", "as long as the log does not have it");
    let mut next = claim(&cluster, 0, 8);
    append(&mut cluster, 7);
    append(&mut cluster, 8);
    cluster.follow();
    assert_eq!(old.take(), (String::new(), true));
    assert_eq!(next.names(), "");
}

/// A record that is stored twice says the same twice.
#[test]
fn a_claim_that_comes_twice_does_not_end_its_own_stream() {
    let mut cluster = Cluster::new();
    let mut newest = claim(&cluster, 0, 7);
    append(&mut cluster, 7);
    append(&mut cluster, 7);
    cluster.follow();
    assert!(is_sole(&newest));
    assert_eq!(newest.names(), "");
}

/// A stream that begins after a claim is none of those that it ends, also where the topic begins after it.
#[test]
fn a_stream_that_begins_after_a_claim_stays() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    let mut newest = claim(&cluster, 0, 7);
    append(&mut cluster, 7);
    while cluster.apply(0) {}
    let mut later = cluster.open(0, "run", Start::All);
    cluster.follow();
    assert_eq!((&*newest.names(), &*later.names()), ("one", "one"));
}

#[test]
fn the_claimant_is_woken_once_the_last_has_gone() {
    let mut cluster = Cluster::new();
    let old = cluster.open(0, "run", Start::All);
    let newest = claim(&cluster, 0, 7);
    append(&mut cluster, 7);
    cluster.follow();
    let bell = Arc::new(Bell(AtomicBool::new(false)));
    assert!(newest.stream.poll_sole(&bell.clone().into()).is_pending());
    drop(old);
    assert!(bell.0.load(Ordering::Relaxed) && is_sole(&newest));
}

/// While the log does not answer, clients cannot make claims grow without a bound.
#[test]
fn claims_are_as_many_as_a_topic_may_have_streams() {
    let cluster = Cluster::with(&HubConfig { topic_streams_max: Some(2), ..config() });
    let plain = [0, 1].map(|_| cluster.open(0, "run", Start::All));
    let claims = [claim(&cluster, 0, 7), claim(&cluster, 0, 8)];
    let refused = || cluster.nodes[0].claim("run", 9).err();
    assert_eq!(refused(), Some(SubscribeError::TopicFull { max: 2 }));
    drop(plain);
    assert_eq!(refused(), Some(SubscribeError::TopicFull { max: 2 }));
    drop(claims);
    assert_eq!(refused(), None);
}

/// SCENARIO: many exclusive streams of one topic are opened at once, and a record has all of their claims.
/// BUG: each claim went through all streams of the topic, and for each of them through all claims, under the topic's
/// lock and on the one thread that applies records.
/// FIX: the claims of a record are settled together.
#[test]
fn many_claims_of_one_record_take_steps_in_proportion() {
    let of = |count: u64| {
        let mut cluster = Cluster::new();
        let _plain: Vec<_> = (0..count).map(|_| cluster.open(0, "run", Start::All)).collect();
        let mut claims: Vec<_> = (0..count).map(|number| claim(&cluster, 0, number)).collect();
        cluster.append(|lines| {
            (0..count).for_each(|number| _ = lines.exclusive(&topic("run"), number));
        });
        let steps = crate::hub::steps::of(|| cluster.follow());
        let last = claims.pop().expect("some");
        assert_eq!(
            cluster.nodes[0].hub.topic_streams(&topic("run")),
            2 * usize::try_from(count).expect("few")
        );
        for mut replaced in claims {
            assert_eq!(replaced.take(), (String::new(), true));
        }
        drop(_plain);
        assert!(is_sole(&last));
        steps
    };
    let (some, twice) = (of(20), of(40));
    assert!(twice < some * 3, "{some}, and {twice} for twice as many");
}

proptest! {
    /// Claims decide in the same way in one record and in several, also those that come twice.
    #[test]
    fn claims_of_one_record_decide_as_those_of_several(
        open in prop::collection::vec(0..4u64, 0..5),
        records in prop::collection::vec(prop::collection::vec(0..5u64, 1..5), 1..4),
        closes in prop::collection::vec(any::<bool>(), 3),
    ) {
        let world = || {
            let cluster = Cluster::new();
            let claims: Vec<_> = open.iter().map(|number| claim(&cluster, 0, *number)).collect();
            let plain = cluster.open(0, "run", Start::All);
            (cluster, claims, plain)
        };
        let [(mut one, one_claims, one_plain), (mut several, several_claims, several_plain)] = [world(), world()];
        for (claims, closes) in records.iter().zip(closes) {
            let close = |lines: &mut Lines| if closes { lines.close(&topic("run"), "done"); };
            one.append(|lines| {
                claims.iter().for_each(|claim| _ = lines.exclusive(&topic("run"), *claim));
                events(lines, "run", "e");
                close(lines);
            });
            claims.iter().for_each(|claim| append(&mut several, *claim));
            several.append(|lines| {
                events(lines, "run", "e");
                close(lines);
            });
        }
        one.follow();
        several.follow();
        let ends = |claims: Vec<Client>, plain: Client| {
            claims.into_iter().chain([plain]).map(|mut client| client.take()).collect::<Vec<_>>()
        };
        prop_assert_eq!(ends(one_claims, one_plain), ends(several_claims, several_plain));
    }
}
