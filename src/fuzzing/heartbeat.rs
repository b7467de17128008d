//! Heartbeats around any stream, in any pieces, with silences anywhere: a comment goes out exactly where a naive twin
//! puts one, and three readers get the same events as without.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};

use super::readers::{by_sse_codec, by_twin};
use super::sse::parse;
use crate::stream::{Heartbeat, Pulse};

/// What the inner body does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// It is pending for longer than a period.
    Silence,
    Bytes(&'a [u8]),
}

/// The first byte is the length of the pieces, the second has a bit for each of the next eight pieces: whether there is
/// a silence before it.
pub fn heartbeat(input: &[u8]) {
    let [piece_len, silences, stream @ ..] = input else { return };
    if stream.len() > 1 << 12 {
        return; // the twin looks at the whole stream at each silence
    }
    let pieces = stream.chunks(usize::from(*piece_len).max(1)).chain([&b""[..]]);
    let steps = pieces.enumerate().flat_map(|(n, piece)| {
        let silence = (silences >> (n % 8) & 1 == 1).then_some(Step::Silence);
        silence.into_iter().chain([Step::Bytes(piece)])
    });
    compare(&steps.collect::<Vec<_>>());
}

/// Returns the number of pings.
pub(super) fn compare(steps: &[Step<'_>]) -> u64 {
    let without = bytes_of(steps);
    let (with, pings) = through_heartbeat(steps);
    let all = with.concat();
    assert_eq!(all, by_naive_twin(steps), "{steps:?}");

    let received = parse([&without[..]]);
    assert_eq!(parse(with.iter().map(Vec::as_slice)), received, "{steps:?}");
    assert_eq!(by_twin(&all), received, "{steps:?}");
    if sse_codec_reads(&without) {
        let received = by_sse_codec([&without[..]]);
        assert_eq!(by_sse_codec(with.iter().map(Vec::as_slice)), received, "{steps:?}");
    }
    pings
}

/// `sse-codec` takes a byte order mark at the beginning of any line for one.
fn sse_codec_reads(stream: &[u8]) -> bool {
    let text = str::from_utf8(stream);
    text.is_ok_and(|text| !text.strip_prefix('\u{feff}').unwrap_or(text).contains('\u{feff}'))
}

fn bytes_of(steps: &[Step<'_>]) -> Vec<u8> {
    let bytes = |step: &Step<'_>| match step {
        Step::Silence => Vec::new(),
        Step::Bytes(bytes) => bytes.to_vec(),
    };
    steps.iter().flat_map(bytes).collect()
}

// ===== the heartbeat =====

/// A body that is pending once for each silence.
struct Script(VecDeque<Option<Bytes>>);

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(None) => Poll::Pending,
            Some(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
        }
    }
}

/// The frames that come out, and the number of pings. Two periods pass before every poll.
fn through_heartbeat(steps: &[Step<'_>]) -> (Vec<Vec<u8>>, u64) {
    let step = |step: &Step<'_>| match step {
        Step::Silence => None,
        Step::Bytes(bytes) => Some(Bytes::copy_from_slice(bytes)),
    };
    let inner = Script(steps.iter().map(step).collect());
    let response = Response::builder().header("content-type", "text/event-stream").body(inner);
    let pulse = Pulse::new(Duration::from_secs(15));
    let mut body = Heartbeat::around(response.expect("a response"), &pulse).into_body();
    let mut frames = Vec::new();
    loop {
        pulse.pass_periods(2);
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => frames.push(frame.into_data().expect("data").to_vec()),
            Poll::Ready(None) => break,
        }
    }
    assert_eq!((pulse.open(), pulse.cancelled()), (0, 0));
    (frames, pulse.pings())
}

// ===== the naive twin =====

const BOM: &str = "\u{ef}\u{bb}\u{bf}";

/// What comes out: at each silence it looks at all that came before.
fn by_naive_twin(steps: &[Step<'_>]) -> Vec<u8> {
    let all = latin(&bytes_of(steps));
    let leads = steps.iter().find(|step| **step != Step::Bytes(b"")) == Some(&Step::Silence);
    // A byte order mark, or the beginning of one, which has no meaning.
    let left_out = match () {
        () if !leads => 0,
        () if all.starts_with(BOM) => BOM.len(),
        () if BOM.starts_with(&all) => all.len(),
        () => 0,
    };
    let (mut before, mut out) = (String::new(), String::new());
    for step in steps {
        match step {
            Step::Silence if is_between_events(&before) => {
                out += if has_id(&before) { ": ping\n" } else { ": ping\n\n" };
            }
            Step::Silence => {}
            Step::Bytes(bytes) => {
                let from = left_out.saturating_sub(before.len());
                let bytes = latin(bytes);
                out.extend(bytes.get(from..));
                before += &bytes;
            }
        }
    }
    out.chars().map(|byte| u8::try_from(byte).expect("a byte")).collect()
}

/// A text with a character for each byte.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The lines that are complete.
fn lines(text: &str) -> Vec<String> {
    let text = text.strip_prefix(BOM).unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
    lines.pop();
    lines
}

fn is_between_events(before: &str) -> bool {
    if before.is_empty() || before == BOM {
        return true;
    }
    let lines = lines(before);
    let last = lines.iter().rfind(|line| !line.starts_with(':'));
    before.ends_with('\n') && last.is_none_or(|line| line.is_empty())
}

fn has_id(before: &str) -> bool {
    lines(before).iter().any(|line| line.split(':').next() == Some("id"))
}

#[cfg(test)]
mod tests;
