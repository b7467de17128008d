//! `nudged listen`.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Args;
use nudged::client::{self, Since, StreamKind};
use nudged::ids::{OrgName, TopicName};

use super::Exit;
use super::client::{ServerArgs, failure};

#[derive(Args, Clone, Debug)]
pub(crate) struct Listen {
    /// Name of the org
    org: OrgName,
    /// Open the public stream instead of the members' stream
    #[arg(long)]
    public: bool,
    /// Keys whose events to receive, as a hint: others may come too. feed:* is for every key that begins
    /// with feed: [default: all keys]
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', conflicts_with = "topic")]
    keys: Vec<String>,
    /// Open a stream of this topic instead; ends when the topic is closed
    #[arg(long, value_name = "NAME", conflicts_with = "public")]
    topic: Option<TopicName>,
    /// Where it begins: with all that is kept (all), with what comes (now), after the event with this id,
    /// or at a time in milliseconds since 1970 [default: all]
    #[arg(long, value_name = "SINCE", requires = "topic", conflicts_with = "last_event_id")]
    since: Option<Since>,
    /// End all other streams of the topic, and end when another exclusive one comes
    #[arg(long, requires = "topic")]
    exclusive: bool,
    /// Resume after this event
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// Print keepalives too, where they are events (ping): with a filter, and from a server with a log
    #[arg(long)]
    pings: bool,
    #[command(flatten)]
    server: ServerArgs,
}

// ===== impl Listen =====

impl Listen {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let Self { org, public, keys, topic, since, exclusive, last_event_id, pings, server } =
            self;
        let server = server.into_endpoint()?;
        let stream = match topic {
            Some(name) => StreamKind::Topic { name, since: since.unwrap_or_default(), exclusive },
            None if public => StreamKind::Public,
            None => StreamKind::Members,
        };
        let request = client::Listen { server, org, stream, keys, last_event_id, pings };
        let (mut events, mut notes) = (stdout(), stderr());
        let listen = client::listen(&request, &mut events, &mut notes);
        crate::block_on(listen).map_err(Exit::failure)?.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    }
}
