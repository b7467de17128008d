//! A processor for the server, and the others for what measures it.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::measure::Outcome;

/// Where the server runs, and where this program does: a server that shares its processor with what measures it is
/// measured as slower than it is.
/// Dropping this takes all of them again.
pub(crate) struct Processors {
    all: CpuSet,
    first: CpuSet,
    others: CpuSet,
}

// ===== impl Processors =====

impl Processors {
    pub(crate) fn find() -> Outcome<Self> {
        let all = sched_getaffinity(None)?;
        let mut numbers = numbers(&all);
        let (mut first, mut others) = (CpuSet::new(), CpuSet::new());
        first.set(numbers.next().ok_or("no processor")?);
        numbers.for_each(|cpu| others.set(cpu));
        match others.count() {
            0 => Err("the server and the generator need a processor each".into()),
            _ => Ok(Self { all, first, others }),
        }
    }

    /// For this thread, and what it starts from now on.
    pub(crate) fn take_first(&self) -> Outcome<()> {
        Ok(sched_setaffinity(None, &self.first)?)
    }

    pub(crate) fn take_others(&self) -> Outcome<()> {
        Ok(sched_setaffinity(None, &self.others)?)
    }

    /// The numbers of all but the first.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> {
        numbers(&self.others)
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        _ = sched_setaffinity(None, &self.all);
    }
}

/// Calls `start` with this thread on one of its processors, so that what it starts has that one only.
pub(crate) fn on_one<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (all, mut one) = (sched_getaffinity(None)?, CpuSet::new());
    numbers(&all).take(1).for_each(|cpu| one.set(cpu));
    sched_setaffinity(None, &one)?;
    let started = start();
    sched_setaffinity(None, &all)?;
    started
}

fn numbers(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu))
}
