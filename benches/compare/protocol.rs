//! How the clients of each server subscribe, publish, and come back after a disconnect.

use std::time::Duration;

use nudged::bench::Publish;
use nudged::wire::Event;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::response::Head;

/// The paths, bodies and credentials of a server.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    /// Those of nudged, which nchan, the servers of Hono and those of this program have too.
    Nudged,
    Pushpin {
        publish_url: String,
    },
    /// A token of a publisher.
    Mercure {
        token: String,
    },
    /// A key of its HTTP API.
    Centrifugo {
        key: String,
    },
    DurableStreams,
}

/// A request that opens a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// The id of the last event, in the header field that a browser sends.
    pub(crate) last_event_id: Option<String>,
}

/// Which client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// A browser's `EventSource`: the URL of before, and `Last-Event-ID`.
    EventSource,
    /// One that was written for this server, and sends the position that the server has named in its data.
    Own,
}

/// What a client remembers of a stream, to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// As the response has it, whatever the protocol is.
    pub(crate) last_event_id: String,
    /// What only a client of its own reads: offset and epoch (Centrifugo), offset (Durable Streams).
    pub(crate) offset: Option<String>,
    pub(crate) epoch: Option<String>,
}

/// What a server states at the beginning of a stream that was resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nothing was missed, or what was missed follows.
    Complete,
    /// Everything has to be read again, as something may have been missed. Some servers always state this.
    Reread,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

const CENTRIFUGO: &str = "/connection/uni_sse?cf_connect=";

// ===== impl Protocol =====

impl Protocol {
    /// The stream of an organisation for a client that has no position.
    pub(crate) fn stream(&self, org: &str) -> String {
        match self {
            Self::Nudged | Self::Pushpin { .. } => path(org),
            Self::Mercure { .. } => format!("/.well-known/mercure?match={org}"),
            Self::Centrifugo { .. } => {
                format!("{CENTRIFUGO}{}", encode(&format!(r#"{{"subs":{{"{org}":{{}}}}}}"#)))
            }
            Self::DurableStreams => format!("{}?offset=now&live=sse", path(org)),
        }
    }

    /// The request of a client that comes back.
    pub(crate) fn resume(&self, org: &str, client: Client, position: &Position) -> Request {
        let last_event_id =
            Some(position.last_event_id.clone()).filter(|last_event_id| !last_event_id.is_empty());
        let own = (client == Client::Own).then(|| self.own_path(org, position)).flatten();
        Request { path: own.unwrap_or_else(|| self.stream(org)), last_event_id }
    }

    /// Where and what to publish; `url` is that of the server.
    pub(crate) fn publish(&self, url: &str, org: &str) -> Publish {
        let nudged = (format!("{url}{}", path(org)), r#"{"keys":["{n}"]}"#.to_owned());
        let mut headers = Vec::new();
        let mut content_type = JSON;
        let (url, body) = match self {
            Self::Nudged | Self::DurableStreams => nudged,
            Self::Pushpin { publish_url } => {
                let event = r#"event: invalidate\ndata: {\"keys\":[\"{n}\"]}\n\n"#;
                let formats = format!(r#"{{"http-stream":{{"content":"{event}"}}}}"#);
                let item = format!(r#"{{"channel":"{org}","formats":{formats}}}"#);
                (publish_url.clone(), format!(r#"{{"items":[{item}]}}"#))
            }
            Self::Mercure { token } => {
                content_type = FORM;
                headers.push(("authorization".to_owned(), format!("Bearer {token}")));
                // {"keys":["{n}"]}, in which {n} is replaced.
                let body = format!("topic={org}&data=%7B%22keys%22%3A%5B%22{{n}}%22%5D%7D");
                (format!("{url}/.well-known/mercure"), body)
            }
            Self::Centrifugo { key } => {
                headers.push(("x-api-key".to_owned(), key.clone()));
                let body = format!(r#"{{"channel":"{org}","data":{{"keys":["{{n}}"]}}}}"#);
                (format!("{url}/api/publish"), body)
            }
        };
        Publish { url, body, content_type: content_type.to_owned(), headers, every: Duration::ZERO }
    }

    /// The path of a stream that has to be created before it is published to.
    pub(crate) fn creates(&self, org: &str) -> Option<String> {
        matches!(self, Self::DurableStreams).then(|| path(org))
    }

    /// Whether it has clients that do more than an `EventSource` to come back, or that read the head of the response.
    pub(crate) fn has_own_client(&self) -> bool {
        matches!(self, Self::Mercure { .. } | Self::Centrifugo { .. } | Self::DurableStreams)
    }

    /// Whether a head may arrive before its stream is subscribed, which an event states then.
    pub(crate) fn subscribes_after_head(&self) -> bool {
        matches!(self, Self::Centrifugo { .. })
    }

    /// What the head of a response states to a client that came back from this position. Only a client of its own reads
    /// it: an `EventSource` has no access to it.
    pub(crate) fn read_head(&self, head: &Head, position: &Position) -> Option<Notice> {
        match self {
            // "Detecting data loss" (docs/concepts/reconnection-and-history.md): the id that the server resumes after.
            Self::Mercure { .. } if !position.last_event_id.is_empty() => {
                let resumed = head.field("mercure-last-event-id");
                Some(match resumed == Some(&position.last_event_id) {
                    true => Notice::Complete,
                    false => Notice::Reread,
                })
            }
            // Section 5.6 of PROTOCOL.md: everything from the offset on follows, or it is no longer kept.
            Self::DurableStreams => match (head.status, &position.offset) {
                (200, Some(_)) => Some(Notice::Complete),
                (410, _) => Some(Notice::Reread),
                _ => None,
            },
            _ => None,
        }
    }

    /// Notes the position that an event names, and returns what it states.
    pub(crate) fn read(&self, event: &Event, position: &mut Position) -> Option<Notice> {
        match self {
            // `connected` comes from Pushpin's origin, for each of its streams.
            Self::Nudged | Self::Pushpin { .. } => match event.name.as_str() {
                "connected" => Some(Notice::Reread),
                "resumed" => Some(Notice::Complete),
                _ => None,
            },
            Self::Centrifugo { .. } => {
                serde_json::from_str(&event.data).ok().and_then(|data| centrifugo(&data, position))
            }
            Self::DurableStreams => {
                if event.name == "control" {
                    let data: Value = serde_json::from_str(&event.data).ok()?;
                    position.offset =
                        text(&data["streamNextOffset"]).or_else(|| position.offset.take());
                }
                None
            }
            Self::Mercure { .. } => None,
        }
    }

    fn own_path(&self, org: &str, position: &Position) -> Option<String> {
        let offset = position.offset.as_ref()?;
        match self {
            Self::Centrifugo { .. } => {
                let epoch = position.epoch.as_deref().unwrap_or_default();
                let sub = format!(r#"{{"recover":true,"offset":{offset},"epoch":"{epoch}"}}"#);
                let connect = format!(r#"{{"subs":{{"{org}":{sub}}}}}"#);
                Some(format!("{CENTRIFUGO}{}", encode(&connect)))
            }
            Self::DurableStreams => Some(format!("{}?offset={offset}&live=sse", path(org))),
            _ => None,
        }
    }
}

fn path(org: &str) -> String {
    format!("/api/{org}/events")
}

/// Reads a connect reply or a publication.
fn centrifugo(data: &Value, position: &mut Position) -> Option<Notice> {
    let publication = &data["pub"];
    if publication.is_object() {
        position.offset = number(&publication["offset"]).or_else(|| position.offset.take());
        position.epoch = text(&publication["epoch"]).or_else(|| position.epoch.take());
        return None;
    }
    let sub = data["connect"]["subs"].as_object()?.values().next()?;
    let newest = sub["publications"].as_array().and_then(|all| number(&all.last()?["offset"]));
    position.offset = newest.or_else(|| number(&sub["offset"])).or_else(|| Some("0".into()));
    position.epoch = text(&sub["epoch"]);
    match (sub["was_recovering"] == true, sub["recovered"] == true) {
        (true, true) => Some(Notice::Complete),
        (true, false) => Some(Notice::Reread),
        (false, _) => None,
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number(value: &Value) -> Option<String> {
    value.as_u64().map(|number| number.to_string())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
