//! A terminal: a pair of pseudo-terminals, and what a user would see on it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::eventually;
use super::killed::Killed;
use super::server::Server;

/// A terminal with nothing on it. What is written to it is read at once.
pub(crate) struct Terminal {
    master: File,
    /// Held open, so that the terminal outlives the programs on it.
    slave: File,
    picture: Arc<Mutex<Picture>>,
    is_closed: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

/// What is seen, as far as the program may change it. Anything else that is written to it is a failure.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// The screen that a shell uses, and the alternate one; larger than what may be used of them.
    screens: [Vec<Vec<char>>; 2],
    pub(crate) is_alternate: bool,
    pub(crate) has_cursor: bool,
    /// Whether there was ever a style.
    pub(crate) has_style: bool,
    row: usize,
    column: usize,
    /// Where the cursor was on the screen of the shell.
    saved: (usize, usize),
    /// Times that the first row was drawn.
    frames: usize,
    /// A frame of the old size may be on its way.
    is_resizing: bool,
    /// A sequence that has not ended yet.
    sequence: String,
    /// What is no part of the above.
    pub(crate) strange: Vec<String>,
}

// ===== impl Terminal =====

impl Terminal {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        // A program that inherits it would keep its own terminal from hanging up.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a terminal").into_string().expect("ASCII");
        let slave = OpenOptions::new().read(true).write(true).open(&name).expect("a terminal");
        let picture = Arc::new(Mutex::new(Picture::new(columns.into(), rows.into())));
        let master = File::from(master);
        let (mut output, seen) = (master.try_clone().expect("a descriptor"), picture.clone());
        let is_closed = Arc::new(AtomicBool::new(false));
        let ends = is_closed.clone();
        let read = move || {
            let mut buffer = [0; 4096];
            let while_open = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            while !ends.load(Ordering::SeqCst) {
                let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&while_open));
                if ready.is_ok_and(|ready| ready > 0) {
                    let Ok(n @ 1..) = output.read(&mut buffer) else { return };
                    seen.lock().expect("no panic").feed(&buffer[..n]);
                }
            }
        };
        let reader = std::thread::spawn(read);
        let terminal = Self { master, slave, picture, is_closed, reader };
        terminal.set_size(columns, rows);
        terminal
    }

    /// Closes it, as the end of a window or of a connection does.
    pub(crate) fn hang_up(self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.reader.join().expect("no panic");
    }

    fn set_size(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a terminal");
    }

    /// Changes its size, as a window does, while a program draws frames on it.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.picture().is_resizing = true;
        self.set_size(columns, rows);
        // The first one may have begun before.
        let frames = self.picture().frames;
        self.eventually("two frames", |picture| picture.frames >= frames + 2);
        let mut picture = self.picture();
        (picture.columns, picture.rows) = (columns.into(), rows.into());
        picture.is_resizing = false;
        let (columns, rows) = (picture.columns, picture.rows);
        for (row, line) in picture.screen().iter_mut().enumerate() {
            line[if row < rows { columns } else { 0 }..].fill(' ');
        }
    }

    /// The program with these arguments as the only one on this terminal, which controls it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Server::command_by(&["setsid", "--ctty"]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").args(args);
        self.attach(&mut command);
        command
    }

    /// Has a command read from the terminal, and write to it.
    pub(crate) fn attach(&self, command: &mut Command) {
        let end = || Stdio::from(self.slave.try_clone().expect("a descriptor"));
        command.stdin(end()).stdout(end()).stderr(end());
    }

    pub(crate) fn run(&self, args: &[&str]) -> Killed {
        Killed(self.command(args).spawn().expect("setsid(1) of util-linux"))
    }

    /// Types these keys.
    pub(crate) fn type_keys(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Prints as another program on it does.
    pub(crate) fn print(&self, text: &str) {
        (&self.slave).write_all(text.as_bytes()).expect("a terminal");
    }

    pub(crate) fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().expect("no panic")
    }

    /// Waits until this is seen.
    pub(crate) fn expect(&self, what: &str) {
        self.eventually(what, |picture| picture.text().contains(what));
    }

    pub(crate) fn eventually(&self, what: &str, holds: impl Fn(&Picture) -> bool) {
        let start = Instant::now();
        loop {
            let picture = self.picture().clone();
            assert!(picture.strange.is_empty(), "{:?}", picture.strange);
            if holds(&picture) {
                return;
            }
            assert!(start.elapsed() < super::BOUND, "not in time: {what}, on\n{}", picture.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything about it that outlives a program: its modes, characters and speeds, as stty(1) has them too.
    pub(crate) fn modes(&self) -> (String, String) {
        let mut stty = Command::new("stty");
        stty.arg("-a").stdin(self.slave.try_clone().expect("a descriptor"));
        let shown = stty.output().expect("stty(1) of coreutils").stdout;
        let modes = tcgetattr(self.slave.as_fd()).expect("a terminal");
        (format!("{modes:?}"), String::from_utf8(shown).expect("text"))
    }

    /// Waits until all that was written is seen.
    pub(crate) fn settle(&self, mark: &str) {
        self.print(mark);
        eventually("the last text is seen", || self.picture().text().contains(mark));
    }
}

// ===== impl Picture =====

impl Picture {
    fn new(columns: usize, rows: usize) -> Self {
        let screen = || vec![vec![' '; 250]; 80];
        Self {
            columns,
            rows,
            screens: [screen(), screen()],
            is_alternate: false,
            has_cursor: true,
            has_style: false,
            row: 0,
            column: 0,
            saved: (0, 0),
            frames: 0,
            is_resizing: false,
            sequence: String::new(),
            strange: Vec::new(),
        }
    }

    /// The lines of the screen that is shown, without blanks at their ends.
    pub(crate) fn text(&self) -> String {
        let rows = self.screens[usize::from(self.is_alternate)].iter().take(self.rows);
        let lines = rows.map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// The text of the row that begins so.
    pub(crate) fn line(&self, start: &str) -> Option<String> {
        self.text().lines().find(|line| line.starts_with(start)).map(str::to_owned)
    }

    /// The text is ASCII: a byte of another one would be strange.
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let c = char::from(*byte);
            match (self.sequence.is_empty(), c) {
                (true, '\x1b') => self.sequence.push(c),
                (true, '\r') => self.column = 0,
                (true, '\n') => self.row += 1,
                (true, ' '..='~') => self.put(c),
                (true, _) => self.strange.push(format!("{c:?}")),
                (false, c) => {
                    self.sequence.push(c);
                    let is_end = self.sequence.len() > 2 && matches!(c, '@'..='~');
                    if is_end || self.sequence.len() == 2 && c != '[' {
                        let sequence = std::mem::take(&mut self.sequence);
                        self.obey(&sequence);
                    }
                }
            }
        }
    }

    fn screen(&mut self) -> &mut Vec<Vec<char>> {
        &mut self.screens[usize::from(self.is_alternate)]
    }

    fn put(&mut self, c: char) {
        let (row, column) = (self.row, self.column);
        if row < self.rows && column < self.columns || self.is_resizing {
            self.screen()[row][column] = c;
        } else if self.is_alternate {
            // What a shell prints may be longer.
            self.strange.push(format!("{c:?} at {row}, {column}"));
        }
        self.column += 1;
    }

    fn obey(&mut self, sequence: &str) {
        let (row, column) = (self.row, self.column);
        match &sequence[2..] {
            "?1049h" => {
                self.saved = if self.is_alternate { self.saved } else { (row, column) };
                self.is_alternate = true;
                self.screen().iter_mut().for_each(|row| row.fill(' '));
            }
            "?1049l" => {
                self.is_alternate = false;
                (self.row, self.column) = self.saved;
            }
            "?25h" => self.has_cursor = true,
            "?25l" => self.has_cursor = false,
            "2J" => self.screen().iter_mut().for_each(|row| row.fill(' ')),
            "K" => {
                let row = self.screen().get_mut(row).into_iter().flatten();
                row.skip(column).for_each(|place| *place = ' ');
            }
            "J" if column == 0 => {
                self.screen().iter_mut().skip(row).for_each(|row| row.fill(' '));
            }
            "0m" => {}
            style if style.ends_with('m') => self.has_style = true,
            place if place.ends_with('H') => {
                let place = place.trim_end_matches('H').split_once(';');
                let place =
                    place.and_then(|(row, column)| Some((row.parse().ok()?, column.parse().ok()?)));
                let (row, column): (usize, usize) = place.unwrap_or((1, 1));
                (self.row, self.column) = (row - 1, column - 1);
                self.frames += usize::from((row, column) == (1, 1));
            }
            _ => self.strange.push(format!("{sequence:?}")),
        }
    }
}
