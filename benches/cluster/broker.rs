//! The broker alone: what an append costs, and what many readers of one log cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::direct::{Direct, runtime};
use super::figures::{Samples, Section};
use super::servers::{Broker, BrokerKind, about};
use super::{Outcome, Plan};
use crate::shared::process::now;

/// Bytes of a record.
const SIZES: [usize; 3] = [1 << 10, 32 << 10, 256 << 10];
/// Servers that append at once.
const APPENDERS: [usize; 3] = [1, 10, 100];
const LINGERS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(5)];
/// Readers, and how many records each has to read.
const READERS: [(usize, usize); 4] = [(1, 100_000), (10, 60_000), (30, 40_000), (100, 15_000)];
/// Bytes of a record, of two or three lines.
const RECORD: usize = 200;
/// How long all readers of a run may take.
const LIMIT: Duration = Duration::from_secs(40);
/// Brokers and clients in this process share the machine.
const WORKERS: usize = 2;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let duration = Duration::from_millis(if plan.short { 500 } else { 2_000 });
    let mut section = Section::new(
        "broker",
        format!(
            "{}; used through async-nats and redis as nudged uses them. Appends wait for their acknowledgement, one \
             after the other. Readers follow the log as nudged does, each on a connection of its own, of records of \
             {RECORD} bytes, which are appended as fast as acknowledgements for 256 of them allow; all of them run in \
             the benchmark's process, on the same cores.",
            about(&plan.brokers)?
        ),
    );
    for kind in &plan.brokers {
        measure(&mut section, *kind, plan, duration)?;
    }
    Ok(section)
}

fn measure(
    section: &mut Section,
    kind: BrokerKind,
    plan: &Plan,
    duration: Duration,
) -> Outcome<()> {
    let broker = kind.start()?;
    for size in SIZES {
        appends(section, &broker, size, duration)?;
    }
    for linger in LINGERS {
        for appenders in APPENDERS {
            several(section, &broker, appenders, linger, duration)?;
        }
    }
    drop(broker);
    for (readers, records) in READERS {
        let records = if plan.short { records / 10 } else { records };
        fan_out(section, &kind.start()?, readers, records)?;
    }
    Ok(())
}

/// One append after the other, of one size.
fn appends(section: &mut Section, broker: &Broker, size: usize, duration: Duration) -> Outcome<()> {
    let payload = Bytes::from(vec![b'x'; size]);
    let (mut times, before, start) = (Samples::default(), broker.cpu()?, now());
    runtime()?.block_on(async {
        let direct = Direct::open(broker, "appends").await?;
        while start.elapsed() < duration {
            let sent = now();
            direct.append(payload.clone()).await?;
            times.add(sent.elapsed().as_secs_f64() * 1e3);
        }
        Outcome::Ok(())
    })?;
    let name = format!("{}, an append of {} KiB", broker.name(), size >> 10);
    let used = (broker.cpu()? - before).as_secs_f64() * 1e6 / times.len() as f64;
    section.add(format!("{name}, p50"), times.quantile(0.5), "ms");
    section.add(format!("{name}, p99"), times.quantile(0.99), "ms");
    section.add(
        format!("{name}, one in flight"),
        times.len() as f64 / duration.as_secs_f64(),
        "/s",
    );
    section.add(format!("{name}, the broker's CPU"), used, "µs");
    Ok(())
}

/// Appenders that each collect for `linger`, append, and wait for the acknowledgement.
fn several(
    section: &mut Section,
    broker: &Broker,
    appenders: usize,
    linger: Duration,
    duration: Duration,
) -> Outcome<()> {
    let runtime = multi_thread()?;
    let before = broker.cpu()?;
    let count = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..appenders {
            let direct = Direct::open(broker, "appenders").await?;
            let stop = Arc::clone(&stop);
            tasks.spawn(async move {
                let (payload, mut count) = (Bytes::from(vec![b'x'; RECORD]), 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    if linger > Duration::ZERO {
                        pause(linger).await;
                    }
                    direct.append(payload.clone()).await.map_err(|why| why.to_string())?;
                    count += 1;
                }
                Ok::<_, String>(count)
            });
        }
        pause(duration).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = 0;
        while let Some(one) = tasks.join_next().await {
            all += one??;
        }
        Outcome::Ok(all)
    })?;
    let (name, linger) = (broker.name(), linger.as_millis());
    let name = format!("{name}, {appenders} servers, linger {linger} ms");
    let used = (broker.cpu()? - before).as_secs_f64() * 1e6 / count as f64;
    section.add(format!("{name}: appends"), count as f64 / duration.as_secs_f64(), "/s");
    section.add(format!("{name}: the broker's CPU"), used, "µs an append");
    Ok(())
}

/// Appends records, which all readers read.
fn fan_out(section: &mut Section, broker: &Broker, readers: usize, records: usize) -> Outcome<()> {
    let runtime = multi_thread()?;
    let (before, mut start) = (broker.cpu()?, now());
    let got = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..readers {
            let mut reader = Direct::open(broker, "readers").await?.read().await?;
            tasks.spawn(async move {
                let mut count = 0;
                let all = async {
                    while count < records && reader.next().await.is_ok() {
                        count += 1;
                    }
                };
                _ = limit(LIMIT, all).await;
                count
            });
        }
        start = now();
        let direct = Direct::open(broker, "readers").await?;
        let payload = Bytes::from(vec![b'x'; RECORD]);
        direct.append_all(std::iter::repeat_n(payload, records), LIMIT).await?;
        let appended = start.elapsed();
        let mut all = 0;
        while let Some(one) = tasks.join_next().await {
            all += one?;
        }
        Outcome::Ok((all, appended))
    })?;
    let (seconds, (deliveries, appended)) = (start.elapsed().as_secs_f64(), got);
    let name = format!("{}, {readers} readers", broker.name());
    let used = (broker.cpu()? - before).as_secs_f64();
    section.add(format!("{name}: appends"), records as f64 / appended.as_secs_f64(), "/s");
    section.add(format!("{name}: deliveries"), deliveries as f64 / seconds, "/s");
    section.add(
        format!("{name}: the broker's CPU"),
        used * 1e6 / deliveries as f64,
        "µs a delivery",
    );
    section.add(format!("{name}: the broker's CPU"), used / seconds * 100.0, "% of a core");
    section
        .expect_none(&format!("{name}: records not read"), (readers * records - deliveries) as u64);
    Ok(())
}

fn multi_thread() -> Outcome<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(WORKERS).enable_all().build()?)
}

#[expect(clippy::disallowed_methods, reason = "no stream of nudged is here")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[expect(clippy::disallowed_methods, reason = "no stream of nudged is here")]
async fn limit<T>(duration: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(duration, work).await.ok()
}
