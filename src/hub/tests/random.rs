//! Random operations on the hub and its twin.

use proptest::prelude::*;

use super::{Run, Step, compare};
use crate::hub::View;

fn step() -> impl Strategy<Value = Step> {
    let (org, shard, subscriber) = (|| 0..2usize, || 0..2usize, || 0..1_000usize);
    let view = prop_oneof![Just(View::Member), Just(View::Public)];
    let run = prop_oneof![9 => Just(Run::This), 1 => Just(Run::Former), 1 => Just(Run::Other)];
    let back = prop::option::of((0..6u64, run));
    let crowd = prop_oneof![15 => Just(1usize), 1 => Just(40)];
    let keys = prop::collection::vec(0..12u8, 1..4);
    prop_oneof![
        9 => (org(), view, back, shard(), crowd).prop_map(|(org, view, back, shard, crowd)| Step::Subscribe { org, view, back, shard, crowd }),
        18 => (org(), keys, shard()).prop_map(|(org, keys, shard)| Step::Publish { org, keys, shard }),
        15 => (subscriber(), any::<bool>()).prop_map(|(subscriber, moved)| Step::Poll { subscriber, moved }),
        2 => Just(Step::PollAll),
        2 => (org(), any::<bool>()).prop_map(|(org, page)| Step::Position { org, page }),
        3 => (subscriber(), 1..9_000u64).prop_map(|(subscriber, ms)| Step::EndAfter { subscriber, ms }),
        3 => subscriber().prop_map(Step::Drop),
        3 => subscriber().prop_map(Step::Leave),
        3 => (subscriber(), shard()).prop_map(|(subscriber, shard)| Step::Return { subscriber, shard }),
        6 => (0..80u64).prop_map(Step::Wait),
        2 => (1..7u64).prop_map(|halves| Step::Wait(halves * 500)),
        8 => shard().prop_map(|shard| Step::Sweep { shard }),
        6 => Just(Step::Drive),
        3 => (0..3usize, shard()).prop_map(|(org, shard)| Step::Reread { org, shard }),
        1 => (org(), shard()).prop_map(|(org, shard)| Step::EndMembers { org, shard }),
        2 => Just(Step::Tidy),
        1 => prop::bool::weighted(0.3).prop_map(|close| if close { Step::Close } else { Step::Tidy }),
    ]
}

proptest! {
    #[test]
    fn the_hub_behaves_like_its_twin(
        coalesce in prop_oneof![Just(0), Just(50)],
        history in 1..6usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        compare(coalesce, history, steps);
    }
}
