//! The counters outlive their process: a client of `/metrics` sees one server.

use super::CountersState;
use crate::hub::{Hub, View};
use crate::metrics::{CloseReason, Counters, Greeted, SweepTimes, add, read};
use crate::sync::AtomicU64;

impl Hub {
    /// The counters of all shards, added up.
    pub(super) fn save_counters(&self) -> CountersState {
        let mut sums = CountersState {
            opened: vec![0; VIEWS],
            closed: CloseReason::ALL
                .map(|reason| (reason.label().to_owned(), vec![0; VIEWS]))
                .to_vec(),
            greeted: vec![0; Greeted::ALL.len()],
            sweeps: vec![0; SweepTimes::BOUNDS_MS.len() + 1],
            ..CountersState::default()
        };
        for counters in self.counters() {
            let Counters {
                opened,
                closed,
                published,
                coalesced,
                delivered,
                keepalives,
                rereads,
                greeted,
                sweeps,
            } = counters;
            add_all(&mut sums.opened, opened);
            for (view, closed) in closed.iter().enumerate() {
                for ((_, sum), counter) in sums.closed.iter_mut().zip(closed) {
                    add_to(&mut sum[view], counter);
                }
            }
            add_to(&mut sums.published, published);
            add_to(&mut sums.coalesced, coalesced);
            add_to(&mut sums.delivered, delivered);
            add_to(&mut sums.keepalives, keepalives);
            add_to(&mut sums.rereads, rereads);
            add_all(&mut sums.greeted, greeted);
            add_all(&mut sums.sweeps, sweeps.counts());
            add_to(&mut sums.sweeps_ms, sweeps.sum_ms());
        }
        sums
    }

    /// Counts on from there. A reason that is unknown here counts as one of the server's.
    pub(super) fn restore_counters(&self, state: &CountersState) {
        let CountersState {
            opened,
            closed,
            published,
            coalesced,
            delivered,
            keepalives,
            rereads,
            greeted,
            sweeps,
            sweeps_ms,
        } = state;
        let counters = self.shard_counters();
        restore_all(&counters.opened, opened);
        for (label, counts) in closed {
            let reason = CloseReason::of_label(label).unwrap_or(CloseReason::Drained);
            for (of_view, count) in counters.closed.iter().zip(counts) {
                add(&of_view[reason as usize], *count);
            }
        }
        add(&counters.published, *published);
        add(&counters.coalesced, *coalesced);
        add(&counters.delivered, *delivered);
        add(&counters.keepalives, *keepalives);
        add(&counters.rereads, *rereads);
        restore_all(&counters.greeted, greeted);
        restore_all(counters.sweeps.counts(), sweeps);
        add(counters.sweeps.sum_ms(), *sweeps_ms);
    }

    /// Counts streams that the counters have as open and that have not come as drained: the other process ends them.
    /// Returns how many these are.
    pub(super) fn count_absent(&self) -> u64 {
        let mut absent = 0_u64;
        for view in [View::Member, View::Public, View::Topic] {
            let index = view as usize;
            let of = |counters: &Counters| {
                let closed = counters.closed[index].iter().map(read).fold(0, u64::wrapping_add);
                read(&counters.opened[index]).wrapping_sub(closed)
            };
            let open = self.counters().map(of).fold(0, u64::wrapping_add);
            let more = open.saturating_sub(self.seats_of(view) as u64);
            add(&self.shard_counters().closed[index][CloseReason::Drained as usize], more);
            absent = absent.saturating_add(more);
        }
        absent
    }
}

const VIEWS: usize = 3;

fn add_all(sums: &mut [u64], counters: &[AtomicU64]) {
    sums.iter_mut().zip(counters).for_each(|(sum, counter)| add_to(sum, counter));
}

/// Counters wrap, as whatever reads them expects.
fn add_to(sum: &mut u64, counter: &AtomicU64) {
    *sum = sum.wrapping_add(read(counter));
}

fn restore_all(counters: &[AtomicU64], counts: &[u64]) {
    counters.iter().zip(counts).for_each(|(counter, count)| add(counter, *count));
}
