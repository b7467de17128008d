//! A panic while the terminal is taken.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;

use super::screen::Screen;
use super::text::{Line, Style};

const MESSAGE: &str = "a panic on purpose";

#[test]
#[ignore = "the other test runs it, on a terminal"]
fn panics_on_a_terminal() {
    let screen = Screen::enter(true).expect("a terminal");
    screen.draw(&[Line::new(Style::Plain, "a frame")]);
    panic!("{MESSAGE}");
}

/// SCENARIO: the program panics.
/// BUG: the message was on the alternate screen, which was left with it, and the terminal had no echo.
/// FIX: the terminal is left first.
#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_its_message_on_it() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a terminal").into_string().expect("ASCII");
    let open = || OpenOptions::new().read(true).write(true).open(&name).expect("a terminal");
    let held = open();
    let before = format!("{:?}", tcgetattr(&held).expect("a terminal"));

    let mut itself = Command::new(std::env::current_exe().expect("a path"));
    itself.args(["--ignored", "--nocapture", "--exact", "cli::top::tests::panics_on_a_terminal"]);
    itself.stdin(open()).stdout(open()).stderr(Stdio::from(open()));
    let status = itself.status().expect("it runs");
    assert!(!status.success());
    drop(itself);
    assert_eq!(format!("{:?}", tcgetattr(&held).expect("a terminal")), before);

    drop(held);
    let (mut text, mut buffer, mut terminal) = (Vec::new(), [0; 4096], File::from(master));
    // An error is the end: nothing has the terminal open any more.
    while let Ok(n @ 1..) = terminal.read(&mut buffer) {
        text.extend(&buffer[..n]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let at = |part: &str| text.rfind(part).unwrap_or_else(|| panic!("no {part:?} in {text:?}"));
    assert!(at("\x1b[?1049h") < at("a frame") && at("a frame") < at("\x1b[?1049l"), "{text:?}");
    assert!(at("\x1b[?25h") < at(MESSAGE) && at("\x1b[?1049l") < at(MESSAGE), "{text:?}");
}
