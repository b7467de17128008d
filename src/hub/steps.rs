//! Counts steps of what must not grow faster than its input, so that tests can compare counts in place of times. Outside
//! of them it is nothing.

#[cfg(all(test, not(nudged_loom)))]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts one.
#[inline(always)]
pub(super) fn step() {
    #[cfg(all(test, not(nudged_loom)))]
    TAKEN.set(TAKEN.get() + 1);
}

/// The steps of what `run` does on this thread.
#[cfg(all(test, not(nudged_loom)))]
pub(super) fn of(run: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    run();
    TAKEN.get() - before
}
