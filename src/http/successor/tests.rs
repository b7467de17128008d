//! What is published and commanded by way of a successor has the responses and the effects that it has directly; and
//! what a client learns of a successor that does not answer.

mod failures;
mod twin;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};

use http::Response;
use http_body_util::{BodyExt, Full};

use super::*;
use crate::config::HubConfig;
use crate::http::auth::Grant;
use crate::http::command::Command;
use crate::http::publish::{Publisher, publish_batch, publish_message, publish_one};
use crate::http::topics;
use crate::ids::{OrgName, Topic};

/// Over which commands are spread.
const WINDOW: Duration = Duration::from_secs(1);

/// What a client requests.
#[derive(Debug)]
enum Request {
    Org(OrgName, String),
    Topic(Topic, String),
    Lines(String),
    Close(Topic, String),
    Command(Command),
}

/// A successor in this process, which performs at once.
#[derive(Debug)]
struct Loopback {
    hub: Hub,
    now: Arc<AtomicU64>,
    operations: Arc<OnceLock<Weak<Operations>>>,
}

impl OperationSender for Loopback {
    fn send(&self, number: u64, operation: &Operation) -> Result<(), String> {
        let now = Time(self.now.load(Ordering::Relaxed));
        let done = operation.perform(&self.hub, now, WINDOW);
        let operations = self.operations.get().and_then(Weak::upgrade).expect("it is there");
        operations.answer(number, done.ok());
        Ok(())
    }
}

/// Operations that this hub performs at this time.
fn loopback(hub: &Hub, now: &Arc<AtomicU64>) -> Arc<Operations> {
    let ours = Arc::new(OnceLock::new());
    let sender = Loopback { hub: hub.clone(), now: now.clone(), operations: ours.clone() };
    let operations = Arc::new(Operations::new(sender, Clock::start()));
    ours.set(Arc::downgrade(&operations)).expect("once");
    operations
}

/// A publisher to a hub whose process has this successor.
fn publisher<'a>(hub: &'a Hub, successor: &'a OnceLock<Arc<Operations>>) -> Publisher<'a> {
    Publisher { successor, ..Publisher::unlimited(hub) }
}

async fn respond(publisher: Publisher<'_>, request: &Request, now: Time) -> Response<Full<Bytes>> {
    let response = match request {
        Request::Org(org, body) => {
            finish(publish_one(publisher, org, body.as_bytes(), now), publisher).await
        }
        Request::Topic(topic, body) => {
            finish(publish_message(publisher, topic, body.as_bytes(), now), publisher).await
        }
        Request::Lines(body) => {
            finish(publish_batch(publisher, body.as_bytes(), &Grant::everyone(), now), publisher)
                .await
        }
        Request::Close(topic, body) => topics::close(publisher, topic, body.as_bytes(), now).await,
        Request::Command(command) => command.run(publisher, now, WINDOW).await,
    };
    response.unwrap_or_else(Reject::into_response)
}

async fn finish(
    published: Result<crate::http::publish::Published, Reject>,
    publisher: Publisher<'_>,
) -> Result<Response<Full<Bytes>>, Reject> {
    published?.respond(publisher).await
}

/// The body of a response.
async fn text(response: Response<Full<Bytes>>) -> String {
    let body = response.into_body().collect().await.expect("memory").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

fn org(name: &str) -> OrgName {
    name.parse().expect("a name")
}

fn topic(of: &str, name: &str) -> Topic {
    Topic { org: org(of), name: name.parse().expect("a name") }
}
