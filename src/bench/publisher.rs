//! Publishes on its own thread, so that a slow answer does not keep the subscribers from reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::latency::Schedule;
use super::marker::Marker;
use super::target::{Error, Target};
use super::{Publish, now};
use crate::client::Trust;
use crate::client::connect::speak;
use crate::client::tls::{HTTP_1, Tls};

/// The thread that publishes. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Publisher {
    jobs: Sender<Job>,
    results: Receiver<Published>,
}

/// What became of a series of publishes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Published {
    /// Sequence numbers used up.
    pub(crate) sent: u32,
    /// Those that were answered with a status other than 2xx, or not at all.
    pub(crate) refused: u32,
    /// The first reason for a refusal.
    pub(crate) why: Option<String>,
}

#[derive(Debug)]
struct Job {
    schedule: Schedule,
    count: u32,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Work {
    target: Target,
    tls: Option<Tls>,
    publish: Publish,
    headers: Vec<(String, String)>,
    marker: Marker,
    runtime: Runtime,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// When the connection was last attended to.
    attended: Instant,
    stop: Arc<AtomicBool>,
}

/// How long a wait may keep the end of the run from being noticed.
const SLICE: Duration = Duration::from_millis(50);

/// How long an idle connection may wait for the next series. Longer, and the server may have closed
/// it unnoticed, which would look like a refusal.
const UNATTENDED: Duration = Duration::from_millis(500);

/// How long an answer to a publish may take.
const ANSWER: Duration = Duration::from_secs(60);

// ===== impl Publisher =====

impl Publisher {
    pub(crate) fn start(
        publish: &Publish,
        headers: &[(String, String)],
        trust: &Trust,
        marker: Marker,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        if !publish.body.contains("{n}") {
            return Err(Error::Settings(format!(
                "the body of the publish has no {{n}}, where the number of the event goes: {}",
                publish.body
            )));
        }
        let system = Error::system("starting the publisher");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(&system)?;
        let target = Target::parse(&publish.url)?;
        let mut work = Work {
            tls: target.tls(trust, HTTP_1)?,
            target,
            publish: publish.clone(),
            headers: headers.to_vec(),
            marker,
            runtime,
            connection: None,
            attended: now(),
            stop,
        };
        let (jobs, todo) = mpsc::channel();
        let (done, results) = mpsc::channel();
        let body = move || {
            while let Ok(job) = todo.recv() {
                if done.send(work.run(&job)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("publisher".into()).spawn(body).map_err(system)?;
        Ok(Self { jobs, results })
    }

    /// Starts a series; its result comes from `finished`.
    pub(crate) fn begin(&self, schedule: Schedule, count: u32, until: Option<Instant>) {
        let job = Job { schedule, count, until };
        self.jobs.send(job).expect("the publisher lives as long as we do");
    }

    /// The result of the series that was begun, once it is there.
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
    fn run(&mut self, job: &Job) -> Published {
        let mut published = Published::default();
        if self.attended.elapsed() > UNATTENDED {
            self.connection = None;
        }
        for sequence in job.schedule.first..job.schedule.first.saturating_add(job.count) {
            let intended = job.schedule.intended(sequence);
            if job.until.is_some_and(|until| intended >= until) {
                break;
            }
            self.wait_until(intended);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            published.sent += 1;
            if let Err(why) = self.post(sequence) {
                published.refused += 1;
                published.why.get_or_insert(why);
            }
        }
        self.attended = now();
        published
    }

    /// The connection is attended to meanwhile, so that its end is noticed before it is used again.
    fn wait_until(&self, moment: Instant) {
        while !self.stop.load(Ordering::Relaxed) {
            let left = moment.saturating_duration_since(now());
            if left.is_zero() {
                return;
            }
            self.runtime.block_on(sleep(left.min(SLICE)));
        }
    }

    fn post(&mut self, sequence: u32) -> Result<(), String> {
        let body = self.publish.body.replace("{n}", &self.marker.of(sequence).to_string());
        let mut request = Request::post(&self.target.path)
            .header(header::HOST, &self.target.authority)
            .header(header::CONTENT_TYPE, &self.publish.content_type);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(body)).map_err(|why| why.to_string())?;
        let Self { runtime, target, tls, connection, .. } = self;
        runtime.block_on(within_limit(async {
            let mut sender = match usable(connection.take()).await {
                Some(sender) => sender,
                None => connect(target, tls.as_ref()).await?,
            };
            let response = sender.send_request(request).await.map_err(|why| why.to_string())?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|why| why.to_string())?;
            *connection = Some(sender);
            match status.is_success() {
                true => Ok(()),
                false => Err(format!("{status}: {}", excerpt(&body.to_bytes()))),
            }
        }))
    }
}

/// The connection, unless the server has closed it meanwhile.
async fn usable(idle: Option<SendRequest<Full<Bytes>>>) -> Option<SendRequest<Full<Bytes>>> {
    let mut sender = idle?;
    sender.ready().await.is_ok().then_some(sender)
}

async fn connect(target: &Target, tls: Option<&Tls>) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(target.address).await.map_err(|why| why.to_string())?;
    stream.set_nodelay(true).map_err(|why| why.to_string())?;
    speak(stream, tls).await.map_err(|why| why.to_string())
}

async fn sleep(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a client tool that waits for its turn")]
    tokio::time::sleep(time).await;
}

async fn within_limit(post: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "a client tool that waits for an answer")]
    let answered = tokio::time::timeout(ANSWER, post).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())))
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}
