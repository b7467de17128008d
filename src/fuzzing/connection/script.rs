//! The language of the inputs: what a client does on its connection, one byte for one choice, so that a seed can be
//! written by hand, and keeps its meaning.
//!
//! The first byte is a set of flags ([`TLS`], [`ALPN_H2`], [`SMALL_BUFFERS`]). Then come steps:
//!
//! | bytes | step |
//! |---|---|
//! | `w` n data | sends n bytes, behind TLS in a record; the first of these steps performs the handshake |
//! | `r` n data | sends n bytes as they are, behind TLS too |
//! | `e` type n data | sends a TLS record of this type, encrypted (`e` 23 0: an empty one) |
//! | `k` n | sends a KeyUpdate, and goes on with new keys; if n is odd, the server has to do the same |
//! | `f` type flags stream n data | sends an HTTP/2 frame |
//! | `c` n | from now on, sends in pieces of n bytes, between which the server has turns; 0: whole |
//! | `t` n | of what the next step sends, sends only n bytes |
//! | `p` n | does nothing for n seconds; 0: until the server has had some turns |
//! | `n` n | publishes an event with n keys of 250 bytes |
//! | `h`, `g` | stops reading, goes on reading |
//! | `x` n | does the step before n times more |
//! | `s`, `z` | shuts down its sending half; resets the connection |
//!
//! Other bytes in the place of a step are skipped, and data may be cut by the end of the input.

use std::time::Duration;

/// The connection is behind TLS.
pub(super) const TLS: u8 = 1;

/// Behind TLS, the client offers HTTP/2.
pub(super) const ALPN_H2: u8 = 2;

/// The buffers of both sockets are as small as the kernel permits.
pub(super) const SMALL_BUFFERS: u8 = 4;

/// One thing that the client does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Write(&'a [u8]),
    Raw(&'a [u8]),
    Record(u8, &'a [u8]),
    KeyUpdate { requested: bool },
    Frame { kind: u8, flags: u8, stream: u8, payload: &'a [u8] },
    Pieces(usize),
    Cut(usize),
    Pause(Duration),
    Publish { keys: u8 },
    Hold,
    Read,
    ShutDown,
    Reset,
}

impl Step<'_> {
    /// Whether it sends nothing, and takes no time.
    pub(super) fn is_setting(self) -> bool {
        matches!(self, Self::Pieces(_) | Self::Cut(_) | Self::Hold | Self::Read)
    }
}

/// Steps in one input, repeated ones included.
const STEPS_MAX: usize = 2_000;

/// The steps of an input, after its flags.
pub(super) fn steps(mut input: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    while steps.len() < STEPS_MAX
        && let Some(kind) = byte(&mut input)
    {
        if kind == b'x' {
            let times = byte(&mut input).unwrap_or(0);
            let again = steps.last().copied();
            steps.extend(again.into_iter().cycle().take(times.into()));
        } else {
            steps.extend(step(kind, &mut input));
        }
    }
    steps.truncate(STEPS_MAX);
    steps
}

fn step<'a>(kind: u8, input: &mut &'a [u8]) -> Option<Step<'a>> {
    Some(match kind {
        b'w' => Step::Write(data(input)),
        b'r' => Step::Raw(data(input)),
        b'e' => Step::Record(byte(input)?, data(input)),
        b'k' => Step::KeyUpdate { requested: byte(input)? % 2 == 1 },
        b'f' => Step::Frame {
            kind: byte(input)?,
            flags: byte(input)?,
            stream: byte(input)?,
            payload: data(input),
        },
        b'c' => Step::Pieces(byte(input)?.into()),
        b't' => Step::Cut(byte(input)?.into()),
        b'p' => Step::Pause(Duration::from_secs(byte(input)?.into())),
        b'n' => Step::Publish { keys: byte(input)? },
        b'h' => Step::Hold,
        b'g' => Step::Read,
        b's' => Step::ShutDown,
        b'z' => Step::Reset,
        _ => return None,
    })
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn data<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::from(byte(input).unwrap_or(0)).min(input.len());
    let (data, rest) = input.split_at(len);
    *input = rest;
    data
}
