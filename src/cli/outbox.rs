//! The outbox in PostgreSQL: its settings, and the SQL that makes it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nudged::config::{Config, InvalidPostgresUrl, OutboxConfig, PostgresTls, PostgresUrl};

use super::Exit;
use super::output::write;
use super::values::{Hidden, HumanDuration, check_file_name, duration};

#[derive(Args, Clone, Debug)]
pub(super) struct OutboxArgs {
    /// The database with the outbox: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE. What an
    /// application writes there with SELECT nudge('acme', 'posts') is published once its transaction
    /// is committed; the table is made by nudged outbox-sql. With sslmode=verify-full in the URL the
    /// server's certificate is verified, with prefer, the default, and require it is not. Poolers in
    /// transaction mode will do. In a password @ is written %40, / %2F, ? %3F and % %25. With a password
    /// use the variable: others on this machine can read flags
    #[arg(long, env = "NUDGED_OUTBOX", value_name = "URL", hide_env_values = true)]
    outbox: Option<Hidden>,

    /// The same database without a pooler, for --outbox-listen, and for the lock that makes a server
    /// without --backplane the only one that drains the outbox [default: --outbox]
    #[arg(long, env = "NUDGED_OUTBOX_DIRECT", value_name = "URL", hide_env_values = true)]
    outbox_direct: Option<Hidden>,

    /// PEM file with the certificate authorities of the database, with sslmode=verify-full, which it
    /// makes the default [default: those of the system]
    #[arg(long, env = "NUDGED_OUTBOX_CA", value_name = "FILE")]
    outbox_ca: Option<PathBuf>,

    /// How long a publish waits after its transaction was committed, for applications that read from
    /// replicas which lag
    #[arg(long, env = "NUDGED_OUTBOX_DELAY", value_name = "TIME", default_value = "0s", value_parser = duration(0..=3_600_000))]
    outbox_delay: HumanDuration,

    /// How often the outbox is looked at while it is empty [default: 100ms, with --outbox-listen 1s]
    #[arg(long, env = "NUDGED_OUTBOX_INTERVAL", value_name = "TIME", value_parser = duration(10..=60_000))]
    outbox_interval: Option<HumanDuration>,

    /// The outbox is looked at as soon as a transaction that wrote into it is committed, which the
    /// trigger of nudged outbox-sql --notify notifies of. With that trigger such transactions commit one
    /// after the other: several writers at once commit a third to a fifth as many
    #[arg(long, env = "NUDGED_OUTBOX_LISTEN")]
    outbox_listen: bool,
}

#[derive(Args, Debug)]
#[command(after_help = USE)]
pub(crate) struct OutboxSql {
    /// With the trigger that notifies of each transaction, for --outbox-listen. With it these commit one
    /// after the other: several writers at once commit a third to a fifth as many
    #[arg(long)]
    notify: bool,
}

const USE: &str = "\
Once, as a user that may create tables:
  nudged outbox-sql | psql -v ON_ERROR_STOP=1 \"$DATABASE_URL\"
Then, in the transactions of your application:
  SELECT nudge('acme', 'posts');
And a server that publishes what is committed:
  nudged --outbox \"$DATABASE_URL\"
The end of what is printed has the rights that other users than the owner of the table need.";

// ===== impl OutboxArgs =====

impl OutboxArgs {
    pub(super) fn into_config(self) -> Result<Option<OutboxConfig>, String> {
        let Some(url) = self.outbox else { return Ok(None) };
        let url = parse("--outbox", &url)?;
        let direct_url =
            self.outbox_direct.map(|url| parse("--outbox-direct", &url)).transpose()?;
        if let Some(file) = &self.outbox_ca {
            check_file_name("--outbox-ca", file)?;
            let verifies =
                |url: &PostgresUrl| url.tls().is_none_or(|mode| mode == PostgresTls::VerifyFull);
            if !verifies(&url) && !direct_url.as_ref().is_some_and(verifies) {
                return Err("--outbox-ca does nothing without sslmode=verify-full".into());
            }
        }
        let default = match self.outbox_listen {
            true => OutboxConfig::LISTEN_INTERVAL,
            false => OutboxConfig::INTERVAL,
        };
        Ok(Some(OutboxConfig {
            direct_url,
            ca: self.outbox_ca,
            delay: self.outbox_delay.0,
            interval: self.outbox_interval.map_or(default, |interval| interval.0),
            listen: self.outbox_listen,
            ..OutboxConfig::new(url)
        }))
    }
}

/// Fails if the database without a pooler is named, and nothing uses it.
pub(super) fn check_direct(config: &Config) -> Result<(), String> {
    let Some(OutboxConfig { direct_url: Some(_), listen: false, .. }) = config.outbox else {
        return Ok(());
    };
    match config.backplane {
        None => Ok(()),
        Some(_) => {
            Err("--outbox-direct does nothing with --backplane without --outbox-listen".into())
        }
    }
}

fn parse(flag: &str, url: &Hidden) -> Result<PostgresUrl, String> {
    url.0.parse().map_err(|why: InvalidPostgresUrl| format!("{flag}: {why}"))
}

// ===== impl OutboxSql =====

impl OutboxSql {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        write(nudged::outbox::sql(self.notify))?;
        Ok(ExitCode::SUCCESS)
    }
}
