//! Text for standard output and standard error. `println!` and its kind panic where these cannot be written.

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::Exit;

/// How long a reader is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Writes the text, and returns when it is written, after [`TIMEOUT`] at the latest: a pipe that is full and that
/// nothing reads blocks its writer. A stream that is closed is no error.
pub(crate) fn print(mut stream: impl Write + Send + 'static, text: String) {
    bounded(move || _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush()));
}

fn bounded(write: impl FnOnce() + Send + 'static) {
    let (alive, ended) = channel::<()>();
    let write = move || {
        let _alive = alive;
        write();
    };
    if thread::Builder::new().name("nudged-output".into()).spawn(write).is_ok() {
        _ = ended.recv_timeout(TIMEOUT);
    }
}

/// Writes what a command is for to standard output, however slowly it is read.
pub(crate) fn write(text: impl std::fmt::Display) -> Result<(), Exit> {
    let mut stdout = stdout().lock();
    let written = write!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|why| Exit::output(&why))
}

/// Writes a line beside that to standard error. That it cannot be written is no error.
#[cfg(any(feature = "jwt", feature = "bench"))]
pub(crate) fn note(text: impl std::fmt::Display) {
    _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints what clap answers, the help or an error about the arguments, and returns the exit code.
pub(crate) fn answer(answer: clap::Error) -> Result<ExitCode, Exit> {
    let code = u8::try_from(answer.exit_code()).unwrap_or(1);
    if answer.use_stderr() {
        bounded(move || _ = answer.print());
    } else {
        answer.print().and_then(|()| stdout().flush()).map_err(|why| Exit::output(&why))?;
    }
    Ok(ExitCode::from(code))
}
