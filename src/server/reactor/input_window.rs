//! What the client of a stream sends, counted over a bounded time.

use crate::config::{STREAM_INPUT_MAX, STREAM_INPUT_WINDOW};
use crate::time::Time;

/// The bytes that a client has sent on its stream since a window began. The next one begins with the first bytes after
/// its end, so within any minute a client may send twice the limit, and never more.
///
/// There is one for each stream, so it has six bytes: 17 bits for the bytes, which need no more beyond the limit, and 31
/// for the second in which it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InputWindow([u16; 3]);

/// What may still be read from streams in a turn of their reactor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TurnInput {
    /// In bytes, of all of them together.
    pub(crate) left: usize,
    pub(crate) now: Time,
}

const WINDOW_TICKS: u32 = STREAM_INPUT_WINDOW.as_secs() as u32;

const BYTES_BITS: u32 = 17;
const BYTES_MAX: u32 = (1 << BYTES_BITS) - 1;

/// The client has sent nothing on the stream.
const NOT_BEGUN: u32 = (1 << 31) - 1;

// ===== impl InputWindow =====

impl InputWindow {
    /// Of a client that has sent so many bytes with its request.
    pub(super) fn new(bytes: usize) -> Self {
        Self::packed(bytes, NOT_BEGUN)
    }

    /// One that began so many seconds ago, if the client had sent something by then.
    #[cfg(target_os = "linux")]
    pub(super) fn restored(bytes: u32, age_s: Option<u32>, now: Time) -> Self {
        let begun_at = age_s.map_or(NOT_BEGUN, |age| now.tick().0.saturating_sub(age));
        Self::packed(bytes as usize, begun_at)
    }

    /// Its bytes, and its age in seconds.
    #[cfg(target_os = "linux")]
    pub(super) fn state(self, now: Time) -> (u32, Option<u32>) {
        let (bytes, begun_at) = self.unpacked();
        (bytes, (begun_at != NOT_BEGUN).then(|| now.tick().0.saturating_sub(begun_at)))
    }

    /// The client has sent so many bytes more.
    pub(super) fn add(&mut self, more: usize, now: Time) {
        let now = now.tick().0;
        *self = match self.unpacked() {
            (bytes, NOT_BEGUN) => Self::packed(more.saturating_add(bytes as usize), now),
            (_, begun_at) if now.saturating_sub(begun_at) >= WINDOW_TICKS => {
                Self::packed(more, now)
            }
            (bytes, begun_at) => Self::packed(more.saturating_add(bytes as usize), begun_at),
        };
    }

    pub(super) fn is_exceeded(self) -> bool {
        self.unpacked().0 as usize > STREAM_INPUT_MAX
    }

    fn packed(bytes: usize, begun_at: u32) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(BYTES_MAX).min(BYTES_MAX);
        let bits = u64::from(begun_at.min(NOT_BEGUN)) << BYTES_BITS | u64::from(bytes);
        Self([bits as u16, (bits >> 16) as u16, (bits >> 32) as u16])
    }

    fn unpacked(self) -> (u32, u32) {
        let [low, middle, high] = self.0.map(u64::from);
        let bits = high << 32 | middle << 16 | low;
        (bits as u32 & BYTES_MAX, (bits >> BYTES_BITS) as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_is_a_minute_and_begins_with_the_first_bytes() {
        let at = |second: u64| Time(second * 1_000);
        let mut window = InputWindow::new(1_000);
        window.add(STREAM_INPUT_MAX - 1_000, at(500));
        window.add(0, at(559));
        assert!(!window.is_exceeded());
        let mut exceeded = window;
        exceeded.add(1, at(559));
        assert!(exceeded.is_exceeded(), "what came with the request counts");
        window.add(STREAM_INPUT_MAX, at(560));
        assert!(!window.is_exceeded(), "a minute later it may send as much");
        window.add(1, at(619));
        assert!(window.is_exceeded());
    }

    /// The naive twin keeps all that came, with its time.
    fn twin(sent: &[(usize, u64)]) -> bool {
        let Some((_, mut begins)) = sent.first().copied() else { return false };
        let mut bytes = 0;
        for (some, second) in sent {
            if *second >= begins + 60 {
                (begins, bytes) = (*second, 0);
            }
            bytes += some;
        }
        bytes > STREAM_INPUT_MAX
    }

    proptest! {
        /// Also if it goes to another process, whose clock has another beginning, at any time.
        #[test]
        fn windows_count_as_a_naive_twin_does(
            steps in proptest::collection::vec((0..40_000_usize, 0..90_u64, any::<bool>()), 1..40),
            begins in 1_000_000..2_000_000_u64,
        ) {
            let (mut window, mut sent, mut second, mut shift) = (InputWindow::new(0), vec![], begins, 0);
            for (bytes, pause, moves) in steps {
                second += pause;
                window.add(bytes, Time((second + shift) * 1_000));
                sent.push((bytes, second));
                prop_assert_eq!(window.is_exceeded(), twin(&sent));
                if moves {
                    let (bytes, age_s) = window.state(Time((second + shift) * 1_000));
                    shift = (shift + 7_777) % 30_000;
                    window = InputWindow::restored(bytes, age_s, Time((second + shift) * 1_000));
                }
            }
        }
    }
}
