//! A topic is created with what the tail of the log has for it.

use super::{Cluster, HubConfig, Node, Start, config, events, topic};
use crate::hub::Hub;
use crate::ids::Mark;
use crate::wire::Greeting;

#[test]
fn a_topic_that_was_forgotten_is_there_again_with_its_events_and_ids() {
    let mut cluster = Cluster::new();
    let mark = cluster.publish("run", "one two");
    cluster.publish("run", "three");
    let kept = cluster.open(0, "run", Start::All).take_events();
    cluster.nodes[0].wait(200_000);
    assert_eq!(cluster.nodes[0].hub.topics(), 0, "it was idle for too long");
    assert_eq!(cluster.open(0, "run", Start::All).take_events(), kept);
    cluster.nodes[0].wait(200_000);
    let id = Hub::topic_id(&topic("run"), mark, 1);
    let mut client = cluster.open(0, "run", Start::After(id));
    assert_eq!((client.greeting, &*client.names()), (Greeting::Resumed, "two three"));
    cluster.publish("run", "four");
    assert_eq!(client.names(), "four", "once");
}

#[test]
fn an_event_creates_its_topic_with_what_came_before_it() {
    let mut cluster = Cluster::new();
    cluster.publish("run", "one");
    cluster.nodes[1].wait(200_000);
    assert_eq!(cluster.nodes[1].hub.topics(), 0);
    cluster.publish("run", "two three");
    for node in [0, 1] {
        assert_eq!(cluster.open(node, "run", Start::All).names(), "one two three");
    }
}

/// As of a topic that was there all the time, some of what the log has is kept, and ids from before that are not covered.
#[test]
fn a_topic_is_filled_within_its_limits() {
    let mut cluster = Cluster::keeping(3);
    let marks: Vec<_> =
        (0..9).map(|n| cluster.publish("run", &format!("e{n} b{n} other-b{n}"))).collect();
    let kept = cluster.open(0, "run", Start::All).names();
    assert_eq!(kept, "b6 b7 other-b7 e8 b8 other-b8");
    cluster.nodes[0].wait(200_000);
    for (position, mark) in marks.iter().enumerate() {
        let start = Start::After(Hub::topic_id(&topic("run"), *mark, 0));
        let (mut old, mut new) = (cluster.open(1, "run", start), cluster.open(0, "run", start));
        assert_eq!(old.greeting, new.greeting, "{position}");
        assert_eq!(old.names(), new.names(), "{position}");
    }
}

/// Bulk events are many, and those that matter are not pushed out by them, as far as a bounded look back goes.
#[test]
fn many_bulk_events_do_not_keep_others_out() {
    let mut cluster = Cluster::keeping(4);
    cluster.publish("run", "one");
    for n in 0..12 {
        cluster.publish("run", &format!("b{n}"));
    }
    cluster.nodes[0].wait(200_000);
    for node in [0, 1] {
        assert_eq!(cluster.open(node, "run", Start::All).names(), "one b8 b9 b10 b11");
    }
}

/// What the tail has no more is unknown: no id from before is covered, and every other one is.
#[test]
fn a_topic_without_events_covers_what_the_tail_has() {
    let mut cluster = Cluster::new();
    let node = Node::new(config(), 2_000);
    cluster.nodes.push(node);
    let marks: Vec<_> = (0..100).map(|_| cluster.publish("other", "one")).collect();
    let resumed: Vec<_> = marks
        .iter()
        .map(|mark| {
            let id = Hub::topic_id(&topic("run"), *mark, 0);
            cluster.open(2, "run", Start::After(id)).greeting == Greeting::Resumed
        })
        .collect();
    let known: Vec<_> = marks.iter().map(|mark| cluster.nodes[2].hub.has_mark(*mark)).collect();
    assert_eq!(resumed, known);
    assert!(!known[0] && known[99] && known[95]);
    let never = Hub::topic_id(&topic("run"), Mark::default(), 0);
    assert_eq!(cluster.open(2, "run", Start::After(never)).greeting, Greeting::Connected);
}

/// What is filled counts, and gives way, as what is published does.
#[test]
fn topics_that_are_filled_stay_within_their_memory() {
    let total = 20_000;
    let config = HubConfig { topics_bytes_total: total, ..config() };
    let mut cluster = Cluster::with(&config);
    let text = "x".repeat(300);
    let names: Vec<_> = (0..40).map(|n| format!("run-{n}")).collect();
    for name in &names {
        cluster.append(|lines| {
            for _ in 0..20 {
                lines.message(&topic(name), "e", super::Payload::Text(&text), false);
            }
        });
    }
    cluster.follow();
    let streams: Vec<_> = names.iter().map(|name| cluster.open(0, name, Start::All)).collect();
    let one = 600;
    let most = (total + names.len() * one) as u64;
    assert!(cluster.nodes[0].hub.topics_bytes() <= most, "{}", cluster.nodes[0].hub.topics_bytes());
    for mut stream in streams {
        assert!(stream.names().ends_with('e'), "each has its newest event");
    }
}

/// Several records, and several events of each, are gone through once.
#[test]
fn lines_of_other_topics_in_the_same_records_are_theirs() {
    let mut cluster = Cluster::new();
    for n in 0..3 {
        cluster.append(|lines| {
            events(lines, "run", &format!("r{n}"));
            events(lines, "walk", &format!("w{n}"));
            events(lines, "run", &format!("s{n}"));
        });
    }
    cluster.follow();
    cluster.nodes[0].wait(200_000);
    for node in [0, 1] {
        assert_eq!(cluster.open(node, "run", Start::All).names(), "r0 s0 r1 s1 r2 s2");
        assert_eq!(cluster.open(node, "walk", Start::All).names(), "w0 w1 w2");
    }
}

/// SCENARIO: a record has more for a topic than several times what a topic may keep, and the topic has no stream.
/// BUG: the backlog that the first of these events creates was filled with nothing, as the record was too long, and
/// counted as one that has it: no event was kept, not even the newest.
/// FIX: of the newest record of a topic everything counts.
#[test]
fn a_topic_that_keeps_little_has_the_newest_event_of_a_long_record() {
    let mut cluster = Cluster::with(&HubConfig { topic_bytes: 100, ..config() });
    for round in 0..3 {
        let words: Vec<_> = (0..20).map(|n| format!("e{round}-{n}")).collect();
        cluster.publish("run", &words.join(" "));
        for node in [0, 1] {
            let mut stream = cluster.open(node, "run", Start::All);
            assert!(stream.names().ends_with(&words[19]), "node {node}, round {round}");
        }
        cluster.nodes[1].wait(200_000);
        assert_eq!(cluster.nodes[1].hub.topics(), 0);
    }
}

/// SCENARIO: more topics are published to in turn than a server keeps without a stream.
/// BUG: each event removed the topic that was idle longest, which was the next one to be published to, and read all of
/// its own topic's events in the tail again, up to 400 records, on the one thread that applies records.
/// FIX: while there are as many as may be, an event without a stream begins no topic: it is in the tail.
#[test]
fn topics_beyond_those_that_are_kept_are_left_in_the_tail() {
    for limit in [
        HubConfig { idle_topics_max: 3, ..config() },
        HubConfig { topics_bytes_total: 20_000, topic_bytes: 2_000, ..config() },
    ] {
        let mut cluster = Cluster::with(&limit);
        let names: Vec<_> = (0..40).map(|n| format!("run-{n}")).collect();
        let mut steps = Vec::new();
        for round in 0..6 {
            steps.push(crate::hub::steps::of(|| {
                for name in &names {
                    cluster.append(|lines| {
                        let text = "x".repeat(300);
                        let event = format!("e{round}");
                        lines.message(&topic(name), &event, super::Payload::Text(&text), false);
                    });
                }
                while cluster.apply(0) {}
            }));
        }
        let most = steps[0] * 2;
        assert!(steps.iter().all(|steps| *steps <= most), "{steps:?}");
        for name in &names {
            let kept = cluster.open(0, name, Start::All).names();
            assert!(kept.ends_with("e3 e4 e5"), "{name}: {kept}");
        }
    }
}

/// The events of a record that is long are gone through a fixed number of times each, also when they are read again.
#[test]
fn a_record_of_many_events_of_one_topic_takes_steps_in_proportion() {
    let of = |count: usize| {
        let mut cluster = Cluster::new();
        crate::hub::steps::of(|| {
            let words: Vec<_> = (0..count).map(|n| format!("e{n}")).collect();
            cluster.publish("run", &words.join(" "));
            cluster.nodes[1].wait(200_000);
            assert!(cluster.open(1, "run", Start::All).names().ends_with(&words[count - 1]));
        })
    };
    let (some, twice) = (of(500), of(1_000));
    assert!(twice < some * 3, "{some}, and {twice} for twice as many");
}
