//! What a Sentinel knows: which server is the primary.

use std::time::Duration;

use redis::{Value, cmd};

use super::connection::{CONNECT_MAX, Connection, Failed, Greeting, cleartext};
use crate::backplane::wait::within;
use crate::config::BackplaneConfig;

/// A Sentinel has an answer by then, or another one is asked: there may be some of them without one, and then a primary to
/// connect to.
const BOUND: Duration = Duration::from_secs(2);

/// Asks a Sentinel for the host and the port of the primary of this service.
///
/// # Errors
/// Why it names none, in words.
pub(super) async fn primary_of(
    host: &str,
    port: u16,
    service: &str,
    config: &BackplaneConfig,
) -> Result<(String, u16), String> {
    let asking = async {
        let login = config.url.login.as_ref();
        match ask(host, port, service, config, Greeting::NONE).await {
            Err(Failed::Refused(why)) if why.starts_with("NOAUTH") && login.is_some() => {
                let greeting = Greeting { login, database: 0 };
                let answer = ask(host, port, service, config, greeting).await;
                answer.map_err(|why| {
                    let why = why.about("SENTINEL");
                    format!(
                        "this Sentinel asks for a login, which has to be that of the servers: {why}"
                    )
                })
            }
            answer => answer.map_err(|why| why.about("SENTINEL")),
        }
    };
    let answer = within(BOUND, Box::pin(asking)).await.unwrap_or_else(|| Err(late(config)));
    match answer? {
        Value::Nil => Err(format!("this Sentinel knows no {service}")),
        answer => address(&answer).ok_or_else(|| "this Sentinel gives an unreadable answer".into()),
    }
}

async fn ask(
    host: &str,
    port: u16,
    service: &str,
    config: &BackplaneConfig,
    greeting: Greeting<'_>,
) -> Result<Value, Failed> {
    let sentinel = Connection::open(host, port, config, greeting).await.map_err(Failed::Lost)?;
    let mut command = cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    match sentinel.request(&command, CONNECT_MAX).await {
        Err(Failed::Refused(why)) if why.contains("unknown command") => {
            Err(Failed::Lost("it is no Sentinel".into()))
        }
        answer => answer,
    }
}

fn late(config: &BackplaneConfig) -> String {
    if config.url.tls {
        format!("no answer in {BOUND:?}; without TLS the URL is {}", cleartext(config))
    } else {
        format!("no answer in {BOUND:?}")
    }
}

fn address(answer: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else { return None };
    let host = str::from_utf8(host).ok()?;
    Some((host.to_owned(), str::from_utf8(port).ok()?.parse().ok()?))
}
