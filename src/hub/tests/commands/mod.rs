//! Commands to open streams (to end, to re-read) in virtual time: which streams they reach, when, and which ids resume
//! afterwards.

mod world;

use std::time::Duration;

use self::world::{Client, World, count, name};
use crate::config::HubConfig;
use crate::hub::batch::VISITS_PER_TURN;
use crate::hub::{Batch, CommandPasses, Frames, Hub, Keys, SocketId, Taken, View, WriteKind};
use crate::time::Time;
use crate::wire::Greeting;

/// Over which each command is spread.
const WINDOW: Duration = Duration::from_secs(5);

/// At each time as many were reached as the part of the window that has passed.
#[test]
fn a_reread_and_an_end_are_spread_evenly_over_the_window() {
    for ends in [false, true] {
        let mut world = World::new(1);
        let mut clients: Vec<_> = (0..1_000).map(|_| world.member("acme")).collect();
        let others: Vec<_> = (0..5).map(|_| world.open("acme", View::Public, None, 0).0).collect();
        let begin = world.now;
        let requested = world.command("acme", ends);
        assert_eq!(requested, if ends { 1_000 } else { 1_005 });
        let (mut sum, reached) = (0, world.run(6_000));
        for (at, count) in reached {
            sum += count;
            let share = usize::try_from((at - begin) / 5).expect("small");
            assert!(
                sum <= share + 1 + 5 && sum + 5 >= share.min(1_000),
                "{sum} at {at} of {begin}"
            );
        }
        assert!(world.is_idle(), "a pass goes on");
        let is = if ends { Client::has_ended } else { Client::has_reread };
        assert_eq!(count(&mut clients, is), 1_000);
        drop(others);
    }
}

/// SCENARIO: a member is removed; the others come back while the last streams have still to end.
/// BUG (avoided): those that have come back are ended again.
#[test]
fn only_member_streams_that_are_open_at_the_command_end() {
    let mut world = World::new(2);
    let mut old: Vec<_> =
        (0..40).map(|n| world.open("acme", View::Member, None, n % 2).0).collect();
    let mut public = world.open("acme", View::Public, None, 0).0;
    let mut other = world.member("other");
    assert_eq!(world.end("acme"), 40);
    let mut back = Vec::new();
    for _ in 0..60 {
        world.run(100);
        for n in (0..old.len()).rev() {
            old[n].take();
            if old[n].ended {
                let Client { stream, last, .. } = old.swap_remove(n);
                drop(stream);
                world.publish("acme", "while");
                let (client, greeting) = world.open("acme", View::Member, Some(last), n % 2);
                assert_eq!(greeting, Greeting::Resumed);
                back.push(client);
            }
        }
    }
    assert!(old.is_empty() && world.is_idle());
    assert_eq!(back.len(), 40);
    let closed = |client: &mut Client| {
        client.take();
        client.ended
    };
    assert_eq!(count(back.iter_mut().chain([&mut public, &mut other]), closed), 0);
    assert_eq!(world.end("unused"), 0);
}

/// The end of a removed stream comes before what it has still to take: its client resumes, if it may.
#[test]
fn a_stream_whose_end_is_due_gets_no_further_event() {
    let mut world = World::new(1);
    let mut task = world.member("acme");
    let socket = world.member("acme");
    let (id, mut frames) = (SocketId(3), Frames::new());
    assert_eq!(socket.stream.take_frames(id, &mut frames), Taken::Idle);
    socket.stream.stay_blocked(id, false);
    assert_eq!(world.end("acme"), 2);
    world.run(5_000);
    world.publish("acme", "secret");
    task.take();
    assert!(task.ended && task.events.is_empty(), "{:?}", task.events);
    let taken = socket.stream.take_frames(id, &mut frames);
    assert_eq!(taken, Taken::End(crate::metrics::CloseReason::Removed));
    assert!(frames.is_empty());
}

/// SCENARIO: a database is restored. Clients are away, have re-read, or have still to do so.
/// BUG (avoided): one that has not re-read comes back with the id of an event published since, and is `resumed`.
#[test]
fn no_id_from_before_resumes_and_every_id_after_a_reread_does() {
    for all in [false, true] {
        let mut world = World::new(1);
        let away = world.member("acme").last;
        let mut clients: Vec<_> = (0..100).map(|_| world.member("acme")).collect();
        world.publish("acme", "before");
        clients.iter_mut().for_each(Client::take);
        let before = clients[0].last;
        let now = Time(world.now);
        let streams = if all { world.hub.reread_all(now, WINDOW) } else { world.reread("acme") };
        assert_eq!(streams, 100);
        let resumes = |world: &World, id| world.open("acme", View::Member, Some(id), 0).1;
        for step in 0..60 {
            world.run(100);
            let key = format!("k{step}");
            world.publish("acme", &key);
            for client in &mut clients {
                let reread = client.has_reread();
                assert!(client.events.contains(&key), "every stream gets every event");
                let expected = if reread { Greeting::Resumed } else { Greeting::Connected };
                assert_eq!(resumes(&world, client.last), expected, "{} at {step}", client.last);
            }
            assert_eq!(resumes(&world, away), Greeting::Connected);
            assert_eq!(resumes(&world, before), Greeting::Connected);
        }
        for client in &clients {
            let (rereads, keys): (Vec<_>, Vec<_>) =
                client.events.iter().partition(|event| *event == "connected");
            assert_eq!(rereads.len(), 1, "once each");
            let all: Vec<_> = (0..60).map(|n| format!("k{n}")).collect();
            assert_eq!(keys[0], "before");
            assert!(keys[1..].iter().copied().eq(&all), "in order: {keys:?}");
        }
    }
}

#[test]
fn a_stream_that_opens_after_the_command_does_not_reread_again() {
    let mut world = World::new(1);
    let mut old: Vec<_> = (0..10).map(|_| world.member("acme")).collect();
    world.reread("acme");
    world.run(1_000);
    let (mut new, greeting) = world.open("acme", View::Member, Some(old[9].last), 0);
    assert_eq!(greeting, Greeting::Connected);
    world.run(5_000);
    assert_eq!(count(&mut old, Client::has_reread), 10);
    assert!(!new.has_reread());
}

/// A stream that was taken a seat for, and whose greeting was not written yet.
#[test]
fn a_stream_that_is_about_to_begin_begins_with_what_it_has_to_do() {
    let world = World::new(1);
    let last = world.member("acme").last;
    let hub = world.hub.on_shard(0);
    let (stream, greeting) =
        hub.subscribe(&name("acme"), View::Member, Some(last), Time(0)).expect("open");
    assert_eq!(greeting, Greeting::Resumed);
    world.reread("acme");
    let position = stream.position();
    assert_eq!(world.open("acme", View::Member, Some(position), 0).1, Greeting::Connected);
    let (greeting, id) = stream.begin(greeting, None);
    assert_eq!(greeting, Greeting::Connected);
    assert_eq!(world.open("acme", View::Member, Some(id), 0).1, Greeting::Resumed);
}

/// SCENARIO: commands come again and again, faster than a window passes.
/// BUG (avoided): each begins with the first streams again, and the last ones never have their turn.
#[test]
fn commands_within_a_window_starve_no_stream() {
    for ends in [false, true] {
        let mut world = World::new(1);
        let mut clients: Vec<_> = (0..100).map(|_| world.member("acme")).collect();
        for round in 0..600 {
            world.command("acme", ends);
            world.run(10);
            clients.iter_mut().for_each(Client::take);
            assert!(world.passes[0].len() <= 1, "at {round}");
        }
        let is = if ends { Client::has_ended } else { Client::has_reread };
        assert_eq!(count(&mut clients, is), 100);
        if !ends {
            // Each of them re-reads once more after the last command.
            let last = clients[0].events.len();
            clients.iter_mut().for_each(|client| client.events.clear());
            assert!(last <= 4, "{last} times in 6 s");
            world.run(6_000);
            assert!(count(&mut clients, Client::has_reread) > 95);
        }
        assert!(world.is_idle());
    }
}

/// SCENARIO: members are removed, or a database is restored, more often than once in a window.
/// BUG: each command gave the streams that were left a whole window again, so that the last of 1,000 streams had its turn
/// after some 35 s in place of 5.
/// FIX: a pass keeps its pace, and takes that of the last command when it begins again.
#[test]
fn commands_without_a_pause_delay_no_stream() {
    for ends in [false, true] {
        let mut world = World::new(1);
        let mut clients: Vec<_> = (0..1_000).map(|_| world.member("acme")).collect();
        let begin = world.now;
        while world.now <= begin + 5_000 {
            world.command("acme", ends);
            world.run(10);
            clients.iter_mut().for_each(Client::take);
        }
        let is = if ends { Client::has_ended } else { Client::has_reread };
        assert_eq!(count(&mut clients, is), 1_000, "after one window, if they end: {ends}");

        // The last command reaches all within two windows, at a pace that is no faster.
        clients.iter_mut().for_each(|client| client.events.clear());
        let reached = world.run(10_000);
        assert!(world.is_idle());
        if !ends {
            assert!(count(&mut clients, Client::has_reread) > 990);
            let most = reached.values().max();
            assert!(most.is_some_and(|most| *most <= 2), "{most:?} at once");
        }
    }
}

/// A socket took nothing of the `connected`: it is given back, and taken again.
#[test]
fn a_reread_that_the_socket_does_not_take_is_not_lost() {
    let mut world = World::new(1);
    let client = world.member("acme");
    let (id, mut frames) = (SocketId(3), Frames::new());
    assert_eq!(client.stream.take_frames(id, &mut frames), Taken::Idle);
    world.reread("acme");
    let mut kinds = Vec::new();
    world.passes[0].turn(&world.hub.driver(), Time(world.now), &mut Batch::default(), |batch| {
        kinds.extend(
            batch.writes.iter().map(|op| (op.socket, matches!(op.kind, WriteKind::CatchUp))),
        );
        batch.clear();
    });
    assert_eq!(kinds, [(id, true)]);
    assert_eq!(client.stream.take_frames(id, &mut frames), Taken::Reread);
    let seq = frames[0].0;
    client.stream.give_back(seq, true, id, false);
    frames.clear();
    assert_eq!(client.stream.take_frames(id, &mut frames), Taken::Reread);
    frames.clear();
    assert_eq!(client.stream.take_frames(id, &mut frames), Taken::Idle);
}

/// SCENARIO: a slow client has still to re-read after the window, an event is published, and then the org's members have
/// to end. The client receives that event, and its connection breaks before the `connected`.
/// BUG: the request to end had the event count as one from before the reread. The client got it under its own id, and was
/// `resumed` with that.
/// FIX: only a request to re-read says which events are from before it.
#[test]
fn a_request_to_end_lets_no_stream_skip_its_reread() {
    let mut world = World::new(1);
    let mut slow = world.member("acme");
    world.publish("acme", "before");
    world.reread("acme");
    world.run(12_000);
    (0..64).for_each(|part| world.hub.driver().tidy(crate::time::Tick(part), Time(world.now)));
    world.publish("acme", "after");
    world.end("acme");
    for _ in 0..2 {
        slow.take_one();
        let resumed = world.open("acme", View::Member, Some(slow.last), 0).1 == Greeting::Resumed;
        assert_eq!(resumed, slow.events.contains(&"connected".into()), "{:?}", slow.events);
    }
    assert!(slow.events.contains(&"connected".into()), "{:?}", slow.events);
}

/// SCENARIO: a backend has everything re-read on a server that knows many orgs.
/// BUG: the request visited all of them at once, and its worker served no stream meanwhile.
/// FIX: it visits some at a time. What it has reached by the time its client has gone re-reads, too.
#[test]
fn a_reread_of_all_orgs_is_made_in_parts() {
    let mut world = World::new(1);
    let mut clients: Vec<_> = (0..600).map(|n| world.member(&format!("org-{n}"))).collect();
    let mut whole = world.hub.reread_all_in_parts(Time(world.now), WINDOW);
    let (mut parts, mut goes_on) = (Vec::new(), true);
    while goes_on {
        let before = whole.streams();
        goes_on = whole.step();
        parts.push(whole.streams() - before);
    }
    drop(whole);
    assert!(parts.len() > 2 && parts.iter().all(|part| *part <= VISITS_PER_TURN), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 600);
    world.run(6_000);
    assert_eq!(count(&mut clients, Client::has_reread), 600);

    clients.iter_mut().for_each(|client| client.events.clear());
    let mut begun = world.hub.reread_all_in_parts(Time(world.now), WINDOW);
    begun.step();
    let reached = begun.streams();
    drop(begun);
    assert!((1..600).contains(&reached), "{reached}");
    world.run(6_000);
    assert_eq!(count(&mut clients, Client::has_reread), reached);
    assert!(world.is_idle());
}

/// What is kept for streams that have not re-read is bounded by the history, and freed after the window.
#[test]
fn a_reread_leaves_no_memory() {
    let mut world = World::new(1);
    let mut clients: Vec<_> = (0..3).map(|_| world.member("acme")).collect();
    (0..400).for_each(|n| world.publish("acme", &format!("{n:0100}")));
    let memory = |world: &World| world.hub.shared.common.memory.bytes();
    let before = memory(&world);
    world.reread("acme");
    (0..400).for_each(|n| world.publish("acme", &format!("{n:0100}")));
    assert!(memory(&world) <= 2 * before + 4_096, "{} of {before}", memory(&world));
    clients.iter_mut().for_each(Client::take);
    world.run(12_000);
    world.publish("acme", &format!("{:0100}", 7));
    assert!(memory(&world) <= before + 1_024, "{} of {before}", memory(&world));
    (0..64).for_each(|part| world.hub.driver().tidy(crate::time::Tick(part), Time(world.now)));
    let commands = world.hub.shared.registry.sum(|channel| {
        channel.state.lock().feeds.org_mut().iter().filter(|feed| feed.commands.is_some()).count()
    });
    assert_eq!(commands, 0);
}

/// SCENARIO: within the window of a reread events are published, and then the history loses them: there are too many keys
/// for one event, they are too old, or everything is re-read again, where the last stream has left.
/// BUG: the copies for streams that had not re-read stayed, which no stream gets then, for up to a minute.
/// FIX: they go with the history.
#[test]
fn what_the_history_forgets_is_not_kept_for_a_reread() {
    let lose: fn(&World) = |world| {
        let keys: Vec<_> = (0..world.hub.config().keys_max).map(|n| format!("{n:0500}")).collect();
        let keys = Keys::new(keys.iter().map(String::as_str), world.hub.config()).expect("keys");
        world.hub.publish(&name("acme"), &keys, Time(world.now));
    };
    let age: fn(&World) = |world| {
        let later = Time(world.now).after(world.hub.config().history_age + WINDOW);
        (0..64).for_each(|part| world.hub.driver().tidy(crate::time::Tick(part), later));
    };
    let reread: fn(&World) = |world| _ = world.reread("acme");
    for (forget, leaves) in [(lose, false), (age, false), (reread, true)] {
        let world = World::new(1);
        let mut client = Some(world.member("acme"));
        world.reread("acme");
        (0..5).for_each(|n| world.publish("acme", &format!("k{n}")));
        let uncovered = || {
            let of = |feed: &crate::hub::feed::Feed| feed.uncovered_bytes();
            world
                .hub
                .shared
                .registry
                .sum(|channel| channel.state.lock().feeds.org_mut().iter().map(of).sum())
        };
        assert!(uncovered() > 0);
        client.take_if(|_| leaves);
        forget(&world);
        assert_eq!(uncovered(), 0);
    }
}

/// SCENARIO: the histories are as large as they may be, everything is re-read, and events are published meanwhile.
/// BUG: what each publish kept for streams that had not re-read was not given room, and exceeded the bound.
/// FIX: it counts as the event itself does.
#[test]
fn the_bound_of_all_histories_holds_in_a_reread() {
    let history_bytes_total = 16 * 1_024;
    let config =
        HubConfig { coalesce: Duration::ZERO, history_bytes_total, ..HubConfig::default() };
    let hub = Hub::new(config);
    let member = |org| hub.subscribe(&org, View::Member, None, Time(0)).expect("open").0;
    let streams: Vec<_> = ["a", "b"].map(|org| member(name(org))).into();
    for n in 0..200 {
        let key = format!("{n:0300}");
        let keys = Keys::new([key.as_str()], hub.config()).expect("a key");
        hub.publish(&name(if n % 2 == 0 { "a" } else { "b" }), &keys, Time(0));
        if n == 100 {
            hub.reread_all(Time(0), WINDOW);
        }
        let memory = hub.shared.common.memory.bytes();
        assert!(memory <= history_bytes_total as u64, "{memory} bytes after {n}");
    }
    drop(streams);
}

/// A driver that ends in the middle of its work leaves a pass to its successor.
#[test]
fn a_dropped_driver_leaves_its_passes_to_the_next() {
    for all in [false, true] {
        let mut world = World::new(1);
        let mut clients: Vec<_> = (0..10).map(|_| world.member("acme")).collect();
        let now = Time(world.now);
        if all {
            world.hub.reread_all(now, WINDOW)
        } else {
            world.reread("acme")
        };
        world.run(1_000);
        world.passes[0] = CommandPasses::default();
        world.run(5_000);
        assert_eq!(count(&mut clients, Client::has_reread), 10);
    }
}
