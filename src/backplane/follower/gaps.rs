//! Records that are missing behind the head.

/// What is missing, for as long as it is open whether it was lost on the way or is gone.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The position of the record that came instead, when the log was last open.
    next: Option<u64>,
    reopens: u8,
}

// ===== impl Gaps =====

impl Gaps {
    /// Each time another record came: the log is being trimmed, or the way is a bad one.
    const REOPENS_MAX: u8 = 3;

    /// Whether the records before this one, which came instead of them, are gone. Otherwise the log has to be opened
    /// again.
    pub(super) fn are_gone(&mut self, next: u64) -> bool {
        let are_gone = self.next == Some(next) || self.reopens == Self::REOPENS_MAX;
        if are_gone {
            self.close();
        } else {
            self.next = Some(next);
            self.reopens += 1;
        }
        are_gone
    }

    /// Nothing is missing.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.next.is_some()
    }
}
