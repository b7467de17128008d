//! How a server starts that takes over from another one: on a thread that may block, it receives everything before its
//! workers start. What comes to the other one afterwards is passed on.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, BufReader, Read};
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::adopt::Adopter;
use super::control::{Control, ControlError};
use super::late::{Late, LateSender};
use super::memory_file;
use super::message::Message;
use super::predecessor::{Capacity, Predecessor};
use super::stream_records::BUFFER_BYTES;
use super::thread::{on_thread, wait};
use crate::admission::{Entrance, PeerSource};
use crate::http::{App, Done, NotPassedOn, Operation};
use crate::hub::Hub;
use crate::metrics::Limit;
use crate::server::passed_connection::PassedConnection;
use crate::server::serving::{Serving, Stop};
use crate::server::worker::Worker;
use crate::server::{ServeError, systemd};
use crate::state::{Record, RecordReader};
use crate::time::Clock;

/// What the old process passes on, once this one is live.
pub(crate) struct LateMessages {
    control: Arc<Control>,
    workers: Vec<LateSender>,
    app: Arc<App>,
    hub: Hub,
    /// Over which commands are spread.
    window: Duration,
    /// Bytes of the lines of an operation.
    lines_max: u64,
}

/// Between two looks at the log that servers share.
const LOG_CHECK: Duration = Duration::from_millis(10);

/// The longest wait for the last record that has reached a stream of the old process.
const APPLIED_MAX: Duration = Duration::from_millis(500);

/// How much longer the lines of a publish may be than its body, with what each of a few has beside it.
const LINES_PER_BYTE: u64 = 8;
const LINES_MORE: u64 = 64 * 1024;

/// The longest sleep of the thread that receives what comes late.
const RECEIVE_MAX: Duration = Duration::from_secs(3_600);

/// The longest wait for a worker that has no room for a connection, and for the answer to an operation to be sent.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Takes over from the old process. Afterwards this one is live: the streams are its own.
///
/// # Errors
/// The old process has given up, or this one cannot take over, and has to end.
pub(crate) async fn take_over(
    serving: &Serving,
    predecessor: Predecessor,
    workers: &[Worker],
    stop: &mut Stop<'_, impl Future<Output = ()>>,
) -> Result<LateMessages, ServeError> {
    let failed = |why: ControlError| ServeError::TakeOver(why.to_string());
    predecessor.hello(capacity(serving, workers.len())?).map_err(failed)?;
    if !loaded(serving, stop).await {
        return Err(ServeError::TakeOver("this process was stopped".into()));
    }
    predecessor.ready().map_err(failed)?;

    let control = predecessor.control().clone();
    let (hub, clock) = (serving.hub.clone(), serving.clock);
    let reactors: Vec<_> = workers.iter().map(|worker| worker.reactor().clone()).collect();
    let (admission, log) = (serving.admission.clone(), serving.app.access_log());
    let live = on_thread(move |report| {
        let adopter = || Adopter::new(reactors, admission, log, clock.now());
        let taken = predecessor.take(|file| restore(&hub, file, clock), adopter);
        let live = taken.and_then(|taken| {
            hub.end_restore(clock.now());
            predecessor.become_live(taken)
        });
        _ = report.send(live.map_err(|why| why.to_string()));
    });
    let streams = wait(live, &control, None, stop).await?.map_err(ServeError::TakeOver)?;
    tracing::info!(streams, "this process has taken over");
    let workers = workers.iter().map(Worker::late).collect();
    let publish = u64::try_from(serving.config.publish_bytes_max).unwrap_or(u64::MAX);
    let lines_max = publish.saturating_mul(LINES_PER_BYTE).saturating_add(LINES_MORE);
    let (app, hub) = (serving.app.clone(), serving.hub.clone());
    Ok(LateMessages { control, workers, app, hub, window: serving.config.reread_window, lines_max })
}

fn capacity(serving: &Serving, workers: usize) -> Result<Capacity, ServeError> {
    let (descriptors, _) = rlimit::Resource::NOFILE.get().map_err(ServeError::Start)?;
    let streams_max = serving.admission.max(Limit::Streams, Entrance::Public);
    Ok(Capacity { workers, descriptors, streams_max })
}

/// Waits until the log is loaded, if there is one. The old process limits the wait. Returns `false` if this one is stopped
/// before.
async fn loaded(serving: &Serving, stop: &mut Stop<'_, impl Future<Output = ()>>) -> bool {
    while serving.backplane().is_some_and(|log| !log.state().is_loaded) {
        if poll_fn(|cx| Poll::Ready(stop.poll(cx).is_ready())).await {
            return false;
        }
        #[expect(clippy::disallowed_methods, reason = "before there is a stream")]
        tokio::time::sleep(LOG_CHECK).await;
    }
    true
}

/// Reads what the hub of the old process remembers. With a log, waits for a moment until what has reached a stream there
/// has been applied here: these streams would have to re-read everything otherwise.
fn restore(hub: &Hub, file: File, clock: Clock) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("the histories cannot be read: {why}");
    let mut records = RecordReader::<_, Record>::new(BufReader::with_capacity(BUFFER_BYTES, file));
    let mut log = None;
    while let Some(record) = records.next().map_err(|why| failed(&why))? {
        if let Record::Log(state) = &record {
            log = Some(*state);
        }
        hub.restore(record, Duration::ZERO, clock.now()).map_err(|why| failed(&why))?;
    }
    let until = Instant::now() + APPLIED_MAX;
    while log.is_some_and(|log| !hub.has_applied(log)) && Instant::now() < until {
        thread::sleep(LOG_CHECK);
    }
    Ok(())
}

/// The address of a peer, if it has one.
fn peer_of(text: &str) -> Result<Option<IpAddr>, AddrParseError> {
    match text {
        "" => Ok(None),
        text => text.parse::<SocketAddr>().map(|peer| Some(peer.ip())),
    }
}

fn report_main(is_main: Option<oneshot::Sender<()>>) {
    if let Some(is_main) = is_main {
        systemd::ready();
        _ = is_main.send(());
    }
}

// ===== impl LateMessages =====

impl LateMessages {
    /// Receives what comes late on a thread of its own, until the old process has ended. Once this one is the main process
    /// of its service, it is reported as ready, and what is returned resolves.
    ///
    /// # Errors
    /// The thread could not be created.
    pub(crate) fn start(self) -> io::Result<oneshot::Receiver<()>> {
        let (is_main, main) = oneshot::channel();
        let receive = move || self.receive(is_main);
        thread::Builder::new().name("nudged-upgrade".into()).spawn(receive)?;
        Ok(main)
    }

    fn receive(&self, is_main: oneshot::Sender<()>) {
        let mut is_main = Some(is_main);
        let mut next = 0;
        loop {
            match self.control.receive(Instant::now() + RECEIVE_MAX) {
                Ok((Message::IsMain, _)) => report_main(is_main.take()),
                Ok((Message::Connection { peer, internal, secure, first, named }, sockets)) => {
                    let Ok(peer) = peer_of(&peer) else { continue };
                    let source = match named {
                        None => PeerSource::Socket,
                        Some(true) => PeerSource::Header,
                        Some(false) => PeerSource::Proxy,
                    };
                    let connection = PassedConnection { peer, internal, secure, first, source };
                    for socket in sockets.into_iter().take(1) {
                        let late = Late::new(socket, connection.clone());
                        next += 1;
                        if !self.workers[next % self.workers.len()]
                            .send(late, Instant::now() + WAIT_MAX)
                        {
                            tracing::warn!(
                                "a connection that was passed on was closed: no worker has room for it"
                            );
                        }
                    }
                }
                Ok((Message::Operation { number, all }, files)) => {
                    let done = self.perform(number, all, files);
                    let sent =
                        done.map(|done| self.control.send(&done, &[], Instant::now() + WAIT_MAX));
                    if let Some(Err(why)) = sent {
                        tracing::warn!(%why, "the old process does not know that an operation is done");
                    }
                }
                Ok((message, _)) => {
                    tracing::warn!("the old process sent what is not due: {message:?}")
                }
                Err(ControlError::TimedOut) => {}
                Err(why) => {
                    tracing::debug!(%why, "the old process passes nothing on any more");
                    break;
                }
            }
        }
        // It has ended before it could report to the service manager, or be it that it has and could not say so.
        report_main(is_main);
    }

    /// Performs an operation, and returns the answer; `None` if it is not known whether it was performed, as the old process
    /// notices without one.
    fn perform(&self, number: u64, all: bool, files: Vec<OwnedFd>) -> Option<Message> {
        let operation = match all {
            true => Ok(Operation::RereadAll),
            false => read_lines(files, self.lines_max).map(|lines| Operation::Lines(lines.into())),
        };
        let done = operation
            .map_err(NotPassedOn::Refused)
            .and_then(|operation| self.app.perform_passed_on(&operation, &self.hub, self.window));
        Some(match done {
            Ok(Done { id, streams }) => Message::Done {
                number,
                performed: true,
                epoch_seq: id.map(|id| (id.epoch.0, id.seq.0)),
                streams: u64::try_from(streams).unwrap_or(u64::MAX),
            },
            Err(why) => {
                tracing::warn!(%why, "what the old process passed on cannot be performed");
                if why == NotPassedOn::Unanswered {
                    return None;
                }
                Message::Done { number, performed: false, epoch_seq: None, streams: 0 }
            }
        })
    }
}

/// # Errors
/// There are none, or more bytes than that.
fn read_lines(files: Vec<OwnedFd>, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = files.into_iter().next().ok_or("it comes without a file")?;
    let mut lines = Vec::new();
    let file = memory_file::received(file).map_err(|why| why.to_string())?;
    let length = file.take(bytes_max.saturating_add(1)).read_to_end(&mut lines);
    match length.map_err(|why| why.to_string())? as u64 {
        length if length > bytes_max => Err(format!("it has more than {bytes_max} bytes")),
        _ => Ok(lines),
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_lines_of_an_operation_are_bounded() {
        let read = |bytes: &[u8]| {
            let mut file = memory_file::create().expect("memory");
            file.write_all(bytes).expect("memory");
            read_lines(vec![file.into()], 8)
        };
        assert_eq!(read(b"8 bytes\n"), Ok(b"8 bytes\n".to_vec()));
        assert_eq!(read(b"9 bytes.\n"), Err("it has more than 8 bytes".into()));
        assert_eq!(read_lines(Vec::new(), 8), Err("it comes without a file".into()));
    }
}
