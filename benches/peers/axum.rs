//! axum's `Sse` over tokio's `broadcast`, as their documentation shows them together.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::{self, Sender};

use crate::shared::process::given_port;

/// Enough for the longest flood, so that no receiver lags.
const CAPACITY: usize = 4096;
/// As in the other columns; 15 s by default.
const KEEPALIVE: Duration = Duration::from_secs(30);

type Channels = Arc<RwLock<HashMap<String, Sender<Arc<str>>>>>;

pub(crate) fn serve(workers: usize) -> io::Result<()> {
    let mut runtime = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.worker_threads(workers).enable_all().build()?.block_on(async {
        let events = get(subscribe).post(publish);
        let app = Router::new().route("/api/{org}/events", events).with_state(Channels::default());
        let listener = tokio::net::TcpSocket::new_v4()?;
        listener.set_reuseaddr(true)?;
        listener.bind(([127, 0, 0, 1], given_port()).into())?;
        let listener = listener.listen(4096)?;
        println!("listening on http://{}", listener.local_addr()?);
        axum::serve(listener, app).await
    })
}

fn channel(channels: &Channels, org: String) -> Sender<Arc<str>> {
    let mut channels = channels.write().expect("not poisoned");
    channels.entry(org).or_insert_with(|| broadcast::channel(CAPACITY).0).clone()
}

async fn subscribe(
    State(channels): State<Channels>,
    Path(org): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let receiver = channel(&channels, org).subscribe();
    let events = unfold((receiver, true), async |(mut receiver, first)| {
        if first {
            return Some((Ok(Event::default().event("connected").data("{}")), (receiver, false)));
        }
        let keys = receiver.recv().await.ok()?;
        Some((Ok(Event::default().event("invalidate").data(keys)), (receiver, false)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE))
}

async fn publish(
    State(channels): State<Channels>,
    Path(org): Path<String>,
    body: String,
) -> StatusCode {
    // An error only means that there is no subscriber.
    channel(&channels, org).send(body.into()).ok();
    StatusCode::ACCEPTED
}
