//! Turns bytes into operations on the hub, on the wheel, and on their twins. One byte is one choice, so that a seed
//! can be written by hand, and keeps its meaning.

use arbitrary::{Result, Unstructured};

use crate::hub::View;
use crate::hub::tests::{Run, Step, compare};
use crate::hub::wheel::model;

/// The first two bytes choose the window (even: none) and the length of the history.
pub fn hub_ops(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let (Ok(window), Ok(history)) = (bytes.int_in_range(0..=1u64), bytes.int_in_range(1..=6usize))
    else {
        return;
    };
    compare(window * 50, history, operations(&mut bytes, hub_step));
}

/// Insertions, ticks and clean-ups.
pub fn wheel_ops(input: &[u8]) {
    model::compare(operations(&mut Unstructured::new(input), wheel_step));
}

const OPERATIONS_MAX: usize = 500;

fn operations<T>(
    bytes: &mut Unstructured<'_>,
    step: fn(&mut Unstructured<'_>) -> Result<T>,
) -> Vec<T> {
    let more = || (!bytes.is_empty()).then(|| step(bytes).ok())?;
    std::iter::from_fn(more).take(OPERATIONS_MAX).collect()
}

fn hub_step(bytes: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match bytes.int_in_range(0..=16u8)? {
        0 => Step::Subscribe {
            org: index(bytes, 2)?,
            view: *bytes.choose(&[View::Member, View::Public])?,
            back: match bytes.int_in_range(0..=12u8)? {
                back @ 0..=5 => Some((back.into(), Run::This)),
                back @ 6..=7 => Some((u64::from(back) - 6, Run::Former)),
                back @ 11..=12 => Some((u64::from(back) - 11, Run::Other)),
                _ => None,
            },
            shard: index(bytes, 2)?,
            crowd: if bytes.int_in_range(0..=15u8)? == 15 { 40 } else { 1 },
        },
        1 => {
            let (org, shard, count) = (index(bytes, 2)?, index(bytes, 2)?, 1 + index(bytes, 3)?);
            let keys = (0..count).map(|_| bytes.int_in_range(0..=11u8)).collect::<Result<_>>()?;
            Step::Publish { org, keys, shard }
        }
        2 => Step::Poll { subscriber: index(bytes, 256)?, moved: index(bytes, 2)? == 1 },
        3 => Step::PollAll,
        4 => Step::Drop(index(bytes, 256)?),
        5 => Step::Leave(index(bytes, 256)?),
        6 => Step::Return { subscriber: index(bytes, 256)?, shard: index(bytes, 2)? },
        7 => Step::Wait(bytes.int_in_range(0..=79u64)?),
        8 => Step::Wait(500 * bytes.int_in_range(1..=6u64)?),
        9 => Step::Sweep { shard: index(bytes, 2)? },
        10 => Step::Drive,
        11 => Step::Tidy,
        12 => Step::Close,
        13 => Step::Position { org: index(bytes, 2)?, page: index(bytes, 2)? == 1 },
        15 => Step::Reread { org: index(bytes, 3)?, shard: index(bytes, 2)? },
        16 => Step::EndMembers { org: index(bytes, 2)?, shard: index(bytes, 2)? },
        _ => {
            Step::EndAfter { subscriber: index(bytes, 256)?, ms: bytes.int_in_range(1..=9_000u64)? }
        }
    })
}

fn wheel_step(bytes: &mut Unstructured<'_>) -> Result<model::Step> {
    Ok(match bytes.int_in_range(0..=3u8)? {
        0 => model::Step::Insert(bytes.int_in_range(0..=200u32)?),
        1 => model::Step::Advance(bytes.int_in_range(0..=5u32)?),
        2 => model::Step::Advance(2 * bytes.int_in_range(0..=255u32)?),
        _ => model::Step::KeepEven,
    })
}

fn index(bytes: &mut Unstructured<'_>, count: usize) -> Result<usize> {
    bytes.int_in_range(0..=count - 1)
}
