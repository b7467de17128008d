//! The passes of one driver that carry commands to streams out, by when they go on.

use std::collections::BTreeMap;

use super::batch::{Batch, SEATS_PER_TURN, VISITS_PER_TURN};
use super::command::CommandPass;
use super::driver::ShardDriver;
use super::pass::Pace;
use crate::time::Time;

/// At most one for each channel and view with seats on the shard, and one over all of them.
#[derive(Debug, Default)]
pub(crate) struct CommandPasses {
    /// By time, and by a number that keeps the times apart.
    due: BTreeMap<(Time, u64), CommandPass>,
    numbered: u64,
    /// The last command to all streams that is known.
    seen: u64,
    /// There is a pass over all streams of the shard.
    over_shard: bool,
}

// ===== impl CommandPasses =====

impl CommandPasses {
    /// Goes on with those that are due, until enough seats were reached for one turn. What is collected is given to
    /// `serve`, which empties the batch. Returns whether there is more to do now.
    pub(crate) fn turn(
        &mut self,
        driver: &ShardDriver,
        now: Time,
        batch: &mut Batch,
        mut serve: impl FnMut(&mut Batch),
    ) -> bool {
        self.begin(driver);
        let mut seats = 0;
        while seats < SEATS_PER_TURN
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= now
        {
            let mut pass = first.remove();
            let pace = pass.collect(driver, now, batch);
            // A pass that reaches no seat costs about as much as one that reaches one.
            seats += batch.seats().max(1);
            serve(batch);
            match pace {
                Pace::Now => self.put(now, pass),
                Pace::At(time) => self.put(time, pass),
                Pace::Over => self.over_shard &= !pass.is_of_shard(),
            }
        }
        self.next(driver).is_some_and(|next| next <= now)
    }

    /// When there is something to do next.
    pub(crate) fn next(&self, driver: &ShardDriver) -> Option<Time> {
        let next = self.due.first_key_value().map(|((due, _), _)| *due);
        if driver.has_reread_of_all(self.seen) { Some(Time(0)) } else { next }
    }

    #[cfg(all(test, not(nudged_loom)))]
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    /// Begins some of those that commands need.
    fn begin(&mut self, driver: &ShardDriver) {
        for _ in 0..VISITS_PER_TURN {
            let Some(pass) = driver.next_command(&mut self.seen) else { return };
            // The one that there is carries out what came since.
            let is_known = pass.is_of_shard() && std::mem::replace(&mut self.over_shard, true);
            if !is_known {
                self.put(Time(0), pass);
            }
        }
    }

    fn put(&mut self, due: Time, pass: CommandPass) {
        self.numbered += 1;
        self.due.insert((due, self.numbered), pass);
    }
}
