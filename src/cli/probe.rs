//! `nudged probe`: a health check of the server that runs beside it, in an image that has nothing else.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nudged::client::{self, InvalidUrl, ProbeTarget};
use nudged::config;

use super::Exit;
use super::listen_address::ListenAddress;
use super::values::{Hidden, HumanDuration, duration};

#[derive(Args, Clone, Debug)]
pub(crate) struct Probe {
    /// What to ask: http://HOST:PORT, https://HOST:PORT, whose certificate is not verified, or unix:PATH
    /// [default: the first address of --internal-listen, or else of --listen]
    #[arg(value_name = "URL")]
    url: Option<Hidden>,

    /// The server's --internal-listen; of all addresses, loopback is asked
    #[arg(
        long,
        env = "NUDGED_INTERNAL_LISTEN",
        value_name = "ADDRESS:PORT",
        value_delimiter = ','
    )]
    internal_listen: Vec<ListenAddress>,

    /// The server's --listen
    #[arg(long, env = "NUDGED_LISTEN", value_name = "ADDRESS:PORT", value_delimiter = ',')]
    listen: Vec<ListenAddress>,

    /// The server's --tls-cert, with which its --listen speaks TLS; the file is not read
    #[arg(long, env = "NUDGED_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<OsString>,

    /// How long to wait for the response
    #[arg(long, value_name = "TIME", default_value_t = HumanDuration(TIMEOUT), value_parser = duration(1..=3_600_000))]
    timeout: HumanDuration,
}

const TIMEOUT: Duration = Duration::from_secs(2);

/// How a Unix socket is written.
const UNIX: &str = "unix:";

// ===== impl Probe =====

impl Probe {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let timeout = self.timeout.0;
        let target = self.into_target().map_err(Exit::usage)?;
        let ready = crate::block_on(client::probe(&target, timeout)).map_err(Exit::failure)?;
        ready.map_err(|why| Exit::failure(format!("not ready: {why}")))?;
        Ok(ExitCode::SUCCESS)
    }

    fn into_target(self) -> Result<ProbeTarget, String> {
        let Self { url, internal_listen, listen, tls_cert, .. } = self;
        if let Some(url) = url {
            return match url.0.strip_prefix(UNIX) {
                Some(path) => Ok(ProbeTarget::Unix(path.into())),
                None => {
                    let target = url.0.parse().map(ProbeTarget::Url);
                    target.map_err(|why| format!("{}: {why}, or unix:PATH", url.as_url()))
                }
            };
        }
        // The internal address has no TLS, and serves a probe whatever the public ones are busy with.
        if let Some(internal) = internal_listen.first() {
            return target_of(internal, "http");
        }
        let public = listen.first().unwrap_or(&ListenAddress::One(config::LISTEN));
        target_of(public, if tls_cert.is_some() { "https" } else { "http" })
    }
}

/// Where a client of this machine reaches it.
fn target_of(own: &ListenAddress, scheme: &str) -> Result<ProbeTarget, String> {
    let address: SocketAddr = match own {
        ListenAddress::Unix(path) => return Ok(ProbeTarget::Unix(path.clone())),
        ListenAddress::Localhost(port) | ListenAddress::All(port) => {
            (Ipv4Addr::LOCALHOST, *port).into()
        }
        ListenAddress::One(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            (ip, address.port()).into()
        }
    };
    if address.port() == 0 {
        return Err("the port 0 is one that the system chose: name the URL of the server".into());
    }
    let url = format!("{scheme}://{address}").parse();
    url.map(ProbeTarget::Url).map_err(|why: InvalidUrl| format!("{address}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    /// What is asked with these flags.
    fn target(args: &str) -> Result<String, String> {
        let args = format!("nudged probe {args}");
        let cli = Cli::from_args(args.split_whitespace()).map_err(|why| why.to_string())?;
        let Some(Command::Probe(probe)) = cli.command else { panic!("another command") };
        probe.into_target().map(|target| match target {
            ProbeTarget::Url(url) => url.to_string(),
            ProbeTarget::Unix(path) => format!("unix:{}", path.display()),
        })
    }

    #[test]
    fn the_address_of_a_server_is_asked_where_this_machine_reaches_it() {
        for (args, expected) in [
            ("", "http://127.0.0.1:6834"),
            ("--listen 0.0.0.0:81", "http://127.0.0.1:81"),
            ("--listen [::]:81", "http://[::1]:81"),
            ("--listen :81", "http://127.0.0.1:81"),
            ("--listen localhost:81", "http://127.0.0.1:81"),
            ("--listen 10.1.2.3:81,127.0.0.1:82", "http://10.1.2.3:81"),
            ("--listen :81 --tls-cert none.pem", "https://127.0.0.1:81"),
            ("--listen :81 --tls-cert a.pem --internal-listen :82", "http://127.0.0.1:82"),
            ("--listen unix:/run/a.sock", "unix:/run/a.sock"),
            ("--internal-listen unix:/run/a.sock --listen :1", "unix:/run/a.sock"),
            ("unix:/run/a.sock --listen :1", "unix:/run/a.sock"),
            ("https://example.org/prefix --internal-listen :1", "https://example.org/prefix"),
        ] {
            assert_eq!(target(args).as_deref(), Ok(expected), "{args}");
        }
        for (args, why) in [
            ("--listen :0", "the port 0"),
            ("--listen nowhere:1", "write it like"),
            ("localhost:6834", "expected http://host:port"),
            ("--timeout 0s", "allowed is 1ms to 1h"),
        ] {
            let refused = target(args).expect_err(args);
            assert!(refused.contains(why), "{args}: {refused}");
        }
    }
}
