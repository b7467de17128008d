//! Publishes on its own thread, so that a slow response does not keep the subscribers from reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};

use super::error::Error;
use super::latency::Schedule;
use super::marker::Marker;
use super::{Publish, now};
use crate::client::exchange::{Connection, within};
use crate::client::tls::{HTTP_1, Tls};
use crate::client::url::HttpUrl;
use crate::client::{self, Verify};

/// The thread that publishes. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Publisher {
    jobs: Sender<Series>,
    results: Receiver<Published>,
}

/// The result of a series of publishes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Published {
    /// Sequence numbers used.
    pub(crate) sent: u32,
    /// Publishes with a status other than 2xx, or without a response.
    pub(crate) refused: u32,
    /// Why the first of them was refused.
    pub(crate) why: Option<String>,
}

/// A series of publishes, limited by number and by time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) schedule: Schedule,
    pub(crate) count: u32,
    pub(crate) until: Option<Instant>,
}

#[derive(Debug)]
struct Work {
    url: HttpUrl,
    publish: Publish,
    headers: Vec<(String, String)>,
    marker: Marker,
    runtime: Runtime,
    connection: Connection,
    /// When the runtime last polled the connection.
    polled: Instant,
    stop: Arc<AtomicBool>,
}

/// The longest wait before `stop` is noticed.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// How long a connection may be idle without the runtime before it is reopened. Later, the server
/// may have closed it unnoticed, which would look like a refusal.
const IDLE_MAX: Duration = Duration::from_millis(500);

/// The time limit for a publish.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of a refusal's body is shown.
const EXCERPT_BYTES: usize = 200;

// ===== impl Publisher =====

impl Publisher {
    pub(crate) fn start(
        publish: &Publish,
        headers: &[(String, String)],
        verify: &Verify,
        marker: Marker,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        if !publish.body.contains("{n}") {
            return Err(Error::Settings(format!(
                "the body of the publish has no {{n}}, which becomes the number of the event: {}",
                publish.body
            )));
        }
        let system = Error::system("starting the publisher");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(&system)?;
        let url: HttpUrl = publish.url.parse().map_err(|why| Error::url(&publish.url, why))?;
        url.resolve().map_err(|why| Error::url(&publish.url, why))?;
        let tls = Tls::of(&url, verify, HTTP_1).map_err(Error::server)?;
        let mut work = Work {
            connection: Connection::new(url.clone(), tls),
            url,
            publish: publish.clone(),
            headers: [headers, &publish.headers].concat(),
            marker,
            runtime,
            polled: now(),
            stop,
        };
        let (jobs, todo) = mpsc::channel();
        let (done, results) = mpsc::channel();
        let body = move || {
            while let Ok(series) = todo.recv() {
                if done.send(work.run(series)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("publisher".into()).spawn(body).map_err(system)?;
        Ok(Self { jobs, results })
    }

    /// Starts a series, whose result [`Self::finished`] returns.
    pub(crate) fn start_series(&self, series: Series) {
        self.jobs.send(series).expect("the thread lives as long as the publisher");
    }

    /// The result of the series, once it has finished.
    pub(crate) fn finished(&self) -> Option<Published> {
        match self.results.try_recv() {
            Ok(published) => Some(published),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the publisher has panicked"),
        }
    }
}

// ===== impl Work =====

impl Work {
    fn run(&mut self, series: Series) -> Published {
        let Series { schedule, count, until } = series;
        let mut published = Published::default();
        if self.polled.elapsed() > IDLE_MAX {
            self.connection.close();
        }
        for sequence in schedule.first..schedule.first.saturating_add(count) {
            let due = schedule.due(sequence);
            if until.is_some_and(|until| due >= until) {
                break;
            }
            self.wait_until(due);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            published.sent += 1;
            if let Err(why) = self.post(sequence) {
                published.refused += 1;
                published.why.get_or_insert(why);
            }
        }
        self.polled = now();
        published
    }

    /// Waits within the runtime, so that the end of the connection is noticed before its next use.
    fn wait_until(&self, moment: Instant) {
        while !self.stop.load(Ordering::Relaxed) {
            let left = moment.saturating_duration_since(now());
            if left.is_zero() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "one timer, for the next publish")]
            self.runtime.block_on(async { tokio::time::sleep(left.min(STOP_INTERVAL)).await });
        }
    }

    fn post(&mut self, sequence: u32) -> Result<(), String> {
        let body = self.publish.body.replace("{n}", &self.marker.of(sequence).to_string());
        let mut request = Request::post(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::CONTENT_TYPE, &self.publish.content_type);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body)).map_err(|why| why.to_string())?;
        let Self { runtime, url, connection, .. } = self;
        let exchange = async {
            let response = connection.send(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(client::Error::broken)?;
            Ok((status, body.to_bytes()))
        };
        let limited = within(RESPONSE_TIMEOUT, &url.address, exchange);
        let (status, body) = match runtime.block_on(limited) {
            Ok(Ok(response)) => response,
            Ok(Err(why)) | Err(why) => return Err(why.to_string()),
        };
        if status.is_success() { Ok(()) } else { Err(refusal(status, &body)) }
    }
}

fn refusal(status: StatusCode, body: &Bytes) -> String {
    let excerpt = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]);
    format!("{status}: {excerpt}")
}
