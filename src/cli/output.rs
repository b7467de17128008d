//! Text for standard output or standard error, without waiting for ever for their readers.

use std::io::Write;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long a reader is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Writes the text, and returns when it is written, after [`TIMEOUT`] at the latest: a pipe that is full and that nothing
/// reads blocks its writer. A stream that is closed is no error.
pub(crate) fn print(mut stream: impl Write + Send + 'static, text: String) {
    let (alive, ended) = channel::<()>();
    let write = move || {
        let _alive = alive;
        _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    };
    if thread::Builder::new().name("nudged-output".into()).spawn(write).is_ok() {
        _ = ended.recv_timeout(TIMEOUT);
    }
}
