//! `nudged publish`: stale keys, or an event for a topic.

use std::io::{Read, stderr, stdin, stdout};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use nudged::client::{self, TopicEvent};
use nudged::ids::{OrgName, Topic, TopicName};
use nudged::wire::{EVENT_LEN_MAX, Payload};
use serde_json::value::RawValue;

use super::Exit;
use super::client::{ServerArgs, TopicRetryArgs, failure};

#[derive(Args, Clone, Debug)]
#[command(override_usage = USAGE)]
pub(crate) struct Publish {
    /// Name of the org
    org: OrgName,
    /// Keys that are stale
    #[arg(required_unless_present = "topic", conflicts_with = "topic", value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    event: EventArgs,
    #[command(flatten)]
    retry: TopicRetryArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// An event for a topic.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("payload").args(["data", "text"])))]
struct EventArgs {
    /// Topic that gets an event, in place of keys
    #[arg(long, value_name = "TOPIC", requires_all = ["event", "payload"])]
    topic: Option<TopicName>,
    /// Name of the event
    #[arg(long, value_name = "NAME", requires = "topic", value_parser = event_name)]
    event: Option<String>,
    /// What the event carries, as JSON; - reads it from standard input
    #[arg(long, value_name = "JSON", requires = "topic", allow_hyphen_values = true)]
    data: Option<String>,
    /// What the event carries, as text; - reads it from standard input, as it is
    #[arg(long, value_name = "TEXT", requires = "topic", allow_hyphen_values = true)]
    text: Option<String>,
    /// The topic may drop the event without notice, once it keeps too many such ones
    #[arg(long, requires = "topic")]
    bulk: bool,
}

const USAGE: &str = "nudged publish [OPTIONS] <ORG> <KEY>...
       nudged publish [OPTIONS] <ORG> --topic <TOPIC> --event <NAME> <--data <JSON>|--text <TEXT>>";

/// The value that stands for standard input.
const STDIN: &str = "-";

// ===== impl Publish =====

impl Publish {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let Self { org, keys, event, retry, server } = self;
        let (server, retry_for) = (server.into_endpoint()?, retry.retry_for.0);
        let (mut id, mut notes) = (stdout(), stderr());
        let published = match event.into_event()? {
            None => {
                let request = client::Publish { server, org, keys, retry_for };
                crate::block_on(client::publish(&request, &mut id, &mut notes))
            }
            Some((name, event)) => {
                let topic = Topic { org, name };
                let request = client::PublishEvent { server, topic, event, retry_for };
                crate::block_on(client::publish_event(&request, &mut id, &mut notes))
            }
        };
        published.map_err(Exit::failure)?.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    }
}

// ===== impl EventArgs =====

impl EventArgs {
    /// Reads standard input, if it is to be read.
    fn into_event(self) -> Result<Option<(TopicName, TopicEvent)>, Exit> {
        let Self { topic, event, data, text, bulk } = self;
        let Some((topic, name)) = topic.zip(event) else { return Ok(None) };
        let event = match (data, text) {
            (Some(data), _) => {
                let json: Box<RawValue> = serde_json::from_str(&value("--data", data)?)
                    .map_err(|why| Exit::usage(format!("--data: {why}; {NO_JSON}")))?;
                TopicEvent::new(&name, Payload::Json(&json), bulk)
            }
            (None, text) => {
                let text = value("--text", text.unwrap_or_default())?;
                TopicEvent::new(&name, Payload::Text(&text), bulk)
            }
        };
        event.map(|event| Some((topic, event))).map_err(Exit::usage)
    }
}

const NO_JSON: &str = r#"allowed is one JSON value, like '{"done":true}'; text goes to --text"#;

fn event_name(text: &str) -> Result<String, String> {
    let event = TopicEvent::new(text, Payload::Text(""), false);
    event.map(|_| text.to_owned()).map_err(|why| why.to_string())
}

/// The value of a flag, or what standard input has in place of it.
fn value(flag: &str, value: String) -> Result<String, Exit> {
    if value != STDIN {
        return Ok(value);
    }
    let mut bytes = Vec::new();
    // One more than any server allows.
    let read = stdin().lock().take(EVENT_LEN_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|why| Exit::failure(format!("{flag}: standard input cannot be read: {why}")))?;
    if bytes.len() > EVENT_LEN_MAX {
        let why = format!("{flag}: standard input has more than {EVENT_LEN_MAX} bytes");
        return Err(Exit::usage(why));
    }
    String::from_utf8(bytes)
        .map_err(|why| Exit::usage(format!("{flag}: standard input is no text in UTF-8: {why}")))
}
