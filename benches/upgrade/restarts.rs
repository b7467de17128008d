//! A restart on the same port, with `--state` and without, of clients that reconnect as browsers do.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Clients, Kind};
use crate::figures::Section;
use crate::server::Server;
use crate::shared::process::now;
use crate::shared::traffic::Publisher;
use crate::{Outcome, Plan};

const SETTINGS: [&str; 6] = ["--workers", "2", "--drain-delay", "0", "--drain-window", "2s"];
const PUBLISHES: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// How long all of them may take to come back.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let mut section = Section::new(
        "restart",
        format!(
            "{} streams of {} organisations that reconnect as `EventSource` does, and publishes until shortly before. \
             SIGTERM, drain (`{}`), the end of the process, a new one on the same port.",
            plan.streams,
            plan.orgs.len(),
            SETTINGS[2..].join(" ")
        ),
    );
    let folder = std::env::temp_dir().join(format!("nudged-upgrade-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("state").display().to_string();
    let done = restart(plan, &mut section, "with `--state`", &["--state", &file])
        .and_then(|()| restart(plan, &mut section, "without", &[]));
    std::fs::remove_dir_all(&folder)?;
    done.map(|()| section)
}

fn restart(plan: &Plan, section: &mut Section, name: &str, more: &[&str]) -> Outcome<()> {
    eprintln!("restart {name}");
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let settings = [&SETTINGS, more].concat();
    let mut server = Server::start(&listen, &settings)?;
    let (mut clients, _) = Clients::start(Kind::Pages, server.address, plan.streams, &plan.orgs)?;
    let publisher = Publisher::start(server.address, 0, plan.orgs.clone(), PUBLISHES);
    thread::sleep(REST);
    let published = publisher.stop();
    let start = now();
    server.stop()?;
    let drained = start.elapsed();
    let server = Server::start(&listen, &settings)?;
    let serves = start.elapsed();
    let count = |seen: &Value, name: &str| seen[name].as_u64().unwrap_or(u64::MAX);
    let seen = loop {
        let seen = clients.tally()?;
        let back = count(&seen, "connected") + count(&seen, "resumed");
        if back >= plan.streams as u64 && count(&seen, "open") == plan.streams as u64
            || start.elapsed() > BOUND
        {
            break seen;
        }
        thread::sleep(PAUSE);
    };
    section.add(
        format!("{name}: from SIGTERM to the end of the process"),
        drained.as_secs_f64(),
        "s",
    );
    section.add(format!("{name}: … until the new one listens"), serves.as_secs_f64(), "s");
    section.add(
        format!("{name}: … until all streams are back"),
        start.elapsed().as_secs_f64(),
        "s",
    );
    section.add(format!("{name}: `resumed`"), count(&seen, "resumed") as f64, "");
    let connected = count(&seen, "connected");
    match more.is_empty() {
        true => section.add(format!("{name}: `connected`"), connected as f64, ""),
        false => section.expect_none(&format!("{name}: `connected`"), connected),
    }
    section.expect_none(
        &format!("{name}: streams that are not back"),
        (plan.streams as u64).abs_diff(count(&seen, "open")),
    );
    section.expect_none(&format!("{name}: publishes failed before it"), published.failed);
    drop(server);
    Ok(())
}
