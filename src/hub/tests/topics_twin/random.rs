//! Random operations on topics.

use proptest::prelude::*;

use super::{From, Lane, Limits, Step, TOPICS, check, orgs};
use crate::hub::View;

fn step() -> impl Strategy<Value = Step> {
    let (topic, shard, some) = (|| 0..TOPICS, || 0..2usize, || 0..1_000usize);
    let start = prop_oneof![
        4 => Just(From::All),
        1 => Just(From::Now),
        4 => (0..12u64, prop::bool::weighted(0.8)).prop_map(|(back, this)| From::After(back, this)),
        2 => (0..4_000u64).prop_map(From::Since),
    ];
    let lane = || {
        prop_oneof![Just(Lane::Task), (0..4usize).prop_map(Lane::Socket), Just(Lane::Socket(1_000))]
    };
    let exclusive = || prop::bool::weighted(0.15);
    let view = prop_oneof![Just(View::Member), Just(View::Public)];
    let size = prop_oneof![4 => 0..40usize, 1 => 0..2_000usize];
    let org =
        prop_oneof![
            (0..2usize, view, any::<bool>())
                .prop_map(|(org, view, resume)| orgs::Step::Subscribe { org, view, resume }),
            (0..2usize, 0..30usize).prop_map(|(org, keys)| orgs::Step::Publish { org, keys }),
            some().prop_map(orgs::Step::Read),
            some().prop_map(orgs::Step::Drop),
        ];
    prop_oneof![
        12 => (topic(), start, exclusive(), shard(), lane()).prop_map(|(topic, start, exclusive, shard, lane)| Step::Open { topic, start, exclusive, shard, lane }),
        5 => (some(), exclusive(), shard(), lane()).prop_map(|(away, exclusive, shard, lane)| Step::Return { away, exclusive, shard, lane }),
        30 => (topic(), any::<bool>(), size, shard()).prop_map(|(topic, bulk, size, shard)| Step::Publish { topic, bulk, size, shard }),
        2 => (topic(), shard()).prop_map(|(topic, shard)| Step::Close { topic, shard }),
        15 => (some(), 0..6usize).prop_map(|(reader, room)| Step::Read { reader, room }),
        2 => Just(Step::ReadAll),
        2 => (some(), 1..9_000u64).prop_map(|(reader, ms)| Step::EndAfter { reader, ms }),
        2 => some().prop_map(Step::Drop),
        4 => some().prop_map(Step::Leave),
        4 => some().prop_map(Step::LookSole),
        1 => some().prop_map(Step::EndRivals),
        8 => org.prop_map(Step::Org),
        5 => (0..80u64).prop_map(Step::Wait),
        3 => (1..7u64).prop_map(|halves| Step::Wait(halves * 500)),
        5 => shard().prop_map(Step::Sweep),
        8 => Just(Step::Drive),
        3 => Just(Step::Tidy),
        1 => prop::bool::weighted(0.1).prop_map(|shut| if shut { Step::Shut } else { Step::Drive }),
        1 => prop::bool::weighted(0.1).prop_map(|drain| if drain { Step::Drain } else { Step::Drive }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let bytes = prop_oneof![3 => Just(usize::MAX / 2), 2 => 500..6_000usize];
    let total = prop_oneof![3 => Just(usize::MAX / 2), 1 => 1_000..20_000usize];
    let idle = prop_oneof![3 => Just(10_000), 1 => 0..TOPICS];
    let streams = prop_oneof![3 => Just(None), 1 => (1..4usize).prop_map(Some)];
    (1..7usize, bytes, total, idle, streams).prop_map(
        |(events, bytes, bytes_total, idle, streams)| Limits {
            events,
            bytes,
            bytes_total,
            idle,
            streams,
        },
    )
}

proptest! {
    #[test]
    fn no_event_of_a_topic_is_lost_unnoticed(limits in limits(), steps in prop::collection::vec(step(), 1..200)) {
        check(limits, steps);
    }
}
