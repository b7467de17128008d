//! The log that several servers share.

use std::path::PathBuf;

use clap::Args;
use nudged::config::{BackplaneConfig, BackplaneUrl, BrokerKind, InvalidBackplaneUrl, LogName};

use super::lacking::lacking;
use super::values::{Hidden, HumanDuration, at_least, check_file_name, duration, replicas};

#[derive(Args, Clone, Debug)]
pub(super) struct BackplaneArgs {
    /// The broker with the log that several servers share: NATS with JetStream,
    /// nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]...], or tls:// for an encrypted
    /// connection; Redis from 7.0 on or Valkey, redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], or
    /// rediss://; with Sentinels redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE,
    /// or rediss+sentinel://. Every publish is in the log before it is accepted, and every server
    /// delivers it. In a password @ is written %40, / %2F, ? %3F, # %23 and % %25. With a password use
    /// the variable: others on this machine can read flags
    #[arg(long, env = "NUDGED_BACKPLANE", value_name = "URL", hide_env_values = true)]
    backplane: Option<Hidden>,

    /// PEM file with the certificate authorities of the broker, with tls:// or rediss:// [default:
    /// those of the system]
    #[arg(long, env = "NUDGED_BACKPLANE_CA", value_name = "FILE")]
    backplane_ca: Option<PathBuf>,

    /// Name of the log: with NATS the stream of this name, with the subject NAME.log; with Redis the
    /// key NAME:log. It is created if there is none
    #[arg(long, env = "NUDGED_BACKPLANE_LOG", value_name = "NAME", default_value_t = LogName::default())]
    backplane_log: LogName,

    /// Copies of the log that a cluster of NATS keeps, 1, 3 or 5, if it has to be created
    #[arg(long, env = "NUDGED_BACKPLANE_REPLICAS", value_name = "N", default_value_t = BackplaneConfig::REPLICAS, value_parser = replicas)]
    backplane_replicas: u8,

    /// How long publishes are collected for one record of the log, from the first of them on; 0 appends
    /// at once what there is
    #[arg(long, env = "NUDGED_BACKPLANE_LINGER", value_name = "TIME", default_value_t = HumanDuration(BackplaneConfig::LINGER), value_parser = duration(0..=1_000))]
    backplane_linger: HumanDuration,

    /// Memory for the last records of the log, from which streams resume; the broker keeps four times
    /// as much. It should hold a minute of publishes
    #[arg(long, env = "NUDGED_BACKPLANE_TAIL_BYTES", value_name = "BYTES", default_value_t = BackplaneConfig::TAIL_BYTES, value_parser = at_least(BackplaneConfig::TAIL_BYTES_MIN))]
    backplane_tail_bytes: usize,

    /// How long a publish waits until it is in the log and has come back from there; then it is
    /// answered 503, and may be stored nevertheless
    #[arg(long, env = "NUDGED_BACKPLANE_TIMEOUT", value_name = "TIME", default_value_t = HumanDuration(BackplaneConfig::TIMEOUT), value_parser = duration(100..=60_000))]
    backplane_timeout: HumanDuration,

    /// Assume that the disk of NATS has every record that was acknowledged, so that clients need not
    /// re-read everything after a restart of the broker. After a power cut that is so only with
    /// sync_interval: always, a setting of NATS since 2.10
    #[arg(long, env = "NUDGED_BACKPLANE_TRUST_DISK")]
    backplane_trust_disk: bool,

    /// /readyz answers 503 while the broker cannot be reached, too, and not only until the log is
    /// loaded: for a load balancer that has other servers to turn to
    #[arg(long, env = "NUDGED_UNREADY_WHEN_CUT_OFF")]
    unready_when_cut_off: bool,
}

// ===== impl BackplaneArgs =====

impl BackplaneArgs {
    pub(super) fn into_config(self) -> Result<Option<BackplaneConfig>, String> {
        let Some(Hidden(url)) = self.backplane else { return Ok(None) };
        let url: BackplaneUrl =
            url.parse().map_err(|why: InvalidBackplaneUrl| format!("--backplane: {why}"))?;
        match url.kind {
            BrokerKind::Nats if !cfg!(feature = "nats") => {
                return Err(lacking("--backplane", "nats"));
            }
            BrokerKind::Redis { .. } if !cfg!(feature = "redis") => {
                return Err(lacking("--backplane", "redis"));
            }
            _ => {}
        }
        if let Some(file) = &self.backplane_ca {
            if !url.tls {
                return Err("--backplane-ca does nothing without --backplane tls:// or \
                            rediss://"
                    .into());
            }
            check_file_name("--backplane-ca", file)?;
        }
        Ok(Some(BackplaneConfig {
            ca: self.backplane_ca,
            log: self.backplane_log,
            replicas: self.backplane_replicas,
            linger: self.backplane_linger.0,
            tail_bytes: self.backplane_tail_bytes,
            timeout: self.backplane_timeout.0,
            trust_disk: self.backplane_trust_disk,
            unready_when_cut_off: self.unready_when_cut_off,
            ..BackplaneConfig::new(url)
        }))
    }
}
