//! The terminal while `nudged top` has it: the alternate screen, no cursor, and each key at once; and as it was before,
//! whatever ends that.

#![expect(clippy::disallowed_types, reason = "loom runs no terminal")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::termios::{Action, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use rustix::termios::{tcflow, tcgetattr, tcgetwinsize, tcsetattr};

use super::text::Line;

/// The terminal of standard output. Dropping it leaves the terminal as it was.
#[derive(Debug)]
pub(super) struct Screen {
    writer: Writer,
    has_style: bool,
}

/// Where text for the terminal is written: in a thread of its own, because a terminal whose output is stopped (^S), or
/// that nothing reads, would keep everything else waiting, the end too.
#[derive(Clone, Debug)]
struct Writer {
    parts: Sender<Part>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that are not written yet; one at most.
    frames: AtomicUsize,
    /// Of standard input, before this program changed them; `None` unless it has.
    modes: Mutex<Option<Termios>>,
}

#[derive(Debug)]
enum Part {
    Enter,
    Frame(String),
    /// Closes the sender once it is written.
    Leave(Sender<()>),
}

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";

/// No style, the cursor, and the screen that was before.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// How long a terminal that nothing reads is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a terminal has that reports no size.
const SIZE: (usize, usize) = (80, 24);

// ===== impl Screen =====

impl Screen {
    /// Takes the terminal. A panic of any thread gives it back first, so that its message is seen.
    pub(super) fn enter(has_style: bool) -> io::Result<Self> {
        let (parts, receiver) = channel();
        let state = Arc::<State>::default();
        let mut terminal = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let written = state.clone();
        let write = move || write_all(&mut terminal, &receiver, &written);
        thread::Builder::new().name("nudged-screen".into()).spawn(write)?;

        let screen = Self { writer: Writer { parts, state }, has_style };
        let (writer, before) = (screen.writer.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            writer.leave();
            before(panic);
        }));
        screen.resume();
        Ok(screen)
    }

    /// Takes the terminal again, if it was left; draw afterwards. The modes may be those of a shell by now.
    pub(super) fn resume(&self) {
        self.writer.set_modes();
        _ = self.writer.parts.send(Part::Enter);
    }

    /// Leaves the terminal as it was.
    pub(super) fn leave(&self) {
        self.writer.leave();
    }

    /// Draws the lines from the top on. A frame for which the terminal is too slow is not drawn.
    pub(super) fn draw(&self, lines: &[Line]) {
        let Writer { parts, state } = &self.writer;
        if state.frames.load(Ordering::SeqCst) > 0 {
            return;
        }
        let (width, height) = size();
        let mut text = String::new();
        for (row, line) in (1..=height).zip(lines) {
            // Cleared first: behind a line of the full width, that would clear its last character.
            text += &format!("\x1b[{row};1H\x1b[K");
            line.write(&mut text, width, self.has_style);
        }
        if lines.len() < height {
            text += &format!("\x1b[{};1H\x1b[J", lines.len() + 1);
        }
        state.frames.fetch_add(1, Ordering::SeqCst);
        _ = parts.send(Part::Frame(text));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The columns and rows of the terminal.
pub(super) fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok();
    size.map_or(SIZE, |size| match (size.ws_col.into(), size.ws_row.into()) {
        (0, _) | (_, 0) => SIZE,
        size => size,
    })
}

/// Calls this with each key, until it returns false or the terminal is gone.
pub(super) fn read_keys(mut each: impl FnMut(u8) -> bool + Send + 'static) -> io::Result<()> {
    let read = move || {
        let mut terminal = io::stdin().lock();
        let mut key = [0];
        while matches!(terminal.read(&mut key), Ok(1)) && each(key[0]) {}
    };
    thread::Builder::new().name("nudged-keys".into()).spawn(read).map(drop)
}

// ===== impl Writer =====

impl Writer {
    /// Each key is read at once, and is not shown. Those that send a signal still do.
    fn set_modes(&self) {
        let input = io::stdin();
        let Ok(mut modes) = tcgetattr(&input) else { return };
        let mut before = self.state.modes.lock();
        // Without these, they are ours: the process was stopped and goes on.
        if before.is_none() || modes.local_modes.contains(LocalModes::ICANON) {
            *before = Some(modes.clone());
        }
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        _ = tcsetattr(&input, OptionalActions::Now, &modes);
    }

    /// Only if it was entered, and once.
    fn leave(&self) {
        let (alive, written) = channel();
        _ = self.parts.send(Part::Leave(alive));
        if written.recv_timeout(TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            // Perhaps ^S has stopped its output.
            let terminal = io::stdout();
            _ = tcflow(&terminal, Action::OOff).and_then(|()| tcflow(&terminal, Action::OOn));
            _ = written.recv_timeout(TIMEOUT);
        }
        let modes = self.state.modes.lock().take();
        if let Some(modes) = modes {
            // At once: to wait until everything is written might take for ever.
            _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
    }
}

/// Writes what comes, for as long as the screen is entered. That a terminal is gone is noticed by what reads its keys.
fn write_all(terminal: &mut File, parts: &Receiver<Part>, state: &State) {
    let mut is_entered = false;
    for part in parts {
        match part {
            Part::Enter => {
                _ = terminal.write_all(ENTER.as_bytes());
                is_entered = true;
            }
            Part::Frame(text) => {
                if is_entered {
                    _ = terminal.write_all(text.as_bytes());
                }
                state.frames.fetch_sub(1, Ordering::SeqCst);
            }
            Part::Leave(_alive) => {
                if is_entered {
                    _ = terminal.write_all(LEAVE.as_bytes());
                }
                is_entered = false;
            }
        }
    }
}
