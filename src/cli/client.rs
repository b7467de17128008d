//! What the commands that talk to a server share, and the shortest of them: `nudged reread` and `nudged close`.

use std::io::{stderr, stdout};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::Args;
use nudged::client::{self, Endpoint, InvalidToken, Verify};
use nudged::config;
use nudged::ids::{OrgName, Topic, TopicName};

use super::Exit;
use super::values::{Hidden, HumanDuration, duration};

/// The server that a command talks to.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// URL of the server, with a proxy's path prefix if there is one
    #[arg(long, env = "NUDGED_URL", value_name = "URL", default_value = URL.as_str(), hide_env_values = true)]
    url: Hidden,

    /// Token or publish key, sent as authorization: Bearer
    #[arg(long, env = "NUDGED_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<Hidden>,

    #[command(flatten)]
    tls: TlsArgs,
}

/// Which certificates are accepted, if the URL begins with https.
#[derive(Args, Clone, Debug)]
pub(super) struct TlsArgs {
    /// PEM file with the certificates to trust, of authorities or of the server itself [default: the
    /// system's root certificates]
    #[arg(long, value_name = "FILE", value_parser = authorities)]
    ca: Option<Verify>,

    /// Accept any certificate; for tests only, because the server is not authenticated
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Reread {
    /// Name of the org [default: every org, which needs a publish key or a token for all orgs]
    org: Option<OrgName>,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Close {
    /// Name of the org
    org: OrgName,
    /// Name of the topic
    #[arg(long, value_name = "NAME")]
    topic: TopicName,
    /// Reason that its subscribers receive, up to 256 bytes [default: closed]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: Option<String>,
    #[command(flatten)]
    retry: TopicRetryArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Clone, Debug)]
struct RetryArgs {
    /// How long to try again while the server cannot be reached, or answers 429, 502, 503 or 504; 0s for
    /// one attempt
    #[arg(long, value_name = "TIME", default_value_t = HumanDuration(client::RETRY_FOR), value_parser = duration(0..=86_400_000))]
    retry_for: HumanDuration,
}

/// As [`RetryArgs`], for what must not be done twice.
#[derive(Args, Clone, Debug)]
pub(super) struct TopicRetryArgs {
    /// How long to try again while the server cannot be reached, or answers 429, 502, 503 or 504; 0s for
    /// one attempt. What concerns a topic is tried again only where it is certain that nothing was done:
    /// without a connection, after 429, and after 503 of the server itself
    #[arg(long, value_name = "TIME", default_value_t = HumanDuration(client::RETRY_FOR), value_parser = duration(0..=86_400_000))]
    pub(super) retry_for: HumanDuration,
}

static URL: LazyLock<String> = LazyLock::new(|| format!("http://{}", config::LISTEN));

// ===== impl ServerArgs =====

impl ServerArgs {
    /// The same, of the server with this URL, if there is one.
    pub(super) fn at(self, url: Option<Hidden>) -> Self {
        Self { url: url.unwrap_or(self.url), ..self }
    }

    pub(super) fn into_endpoint(self) -> Result<Endpoint, Exit> {
        let Self { url, token, tls } = self;
        let wrong = |why| Exit::usage(format!("--url {}: {why}", url.as_url()));
        let refused = |why: InvalidToken| Exit::usage(format!("--token: {why}"));
        let token = token.map(|Hidden(token)| token.parse().map_err(refused)).transpose()?;
        Ok(Endpoint { url: url.0.parse().map_err(wrong)?, token, verify: tls.into_verify() })
    }
}

// ===== impl TlsArgs =====

impl TlsArgs {
    pub(super) fn into_verify(self) -> Verify {
        if self.insecure { Verify::None } else { self.ca.unwrap_or_default() }
    }
}

fn authorities(file: &str) -> Result<Verify, String> {
    Verify::authorities(file.as_ref())
}

pub(super) fn failure(why: client::Error) -> Exit {
    match why {
        client::Error::Output(why) => Exit::output(&why),
        why => Exit::failure(why),
    }
}

// ===== impl Reread, Close =====

impl Reread {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let Self { org, retry, server } = self;
        let (server, retry_for) = (server.into_endpoint()?, retry.retry_for.0);
        let request = client::Reread { server, org, retry_for };
        let (mut count, mut notes) = (stdout(), stderr());
        let reread = client::reread(&request, &mut count, &mut notes);
        crate::block_on(reread).map_err(Exit::failure)?.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Close {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let Self { org, topic, reason, retry, server } = self;
        let (server, retry_for) = (server.into_endpoint()?, retry.retry_for.0);
        let topic = Topic { org, name: topic };
        let request = client::CloseTopic { server, topic, reason, retry_for };
        let (mut count, mut notes) = (stdout(), stderr());
        let close = client::close_topic(&request, &mut count, &mut notes);
        crate::block_on(close).map_err(Exit::failure)?.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    }
}
