//! One transaction: rows are taken out, published, and gone with its COMMIT.

use tokio::task::JoinSet;
use tokio_postgres::types::{ToSql, Type};

use super::{Drainer, Looked};
use crate::backplane::{AppendError, Backplane};
use crate::config::OutboxConfig;
use crate::http::{BatchResult, CheckedLine};
use crate::hub::record::Lines;
use crate::metrics;
use crate::outbox::complaints::Complaints;
use crate::outbox::connection::{Down, Session};
use crate::outbox::rows::{self, OutboxRow, Unusable};
use crate::outbox::{lock, sql};

pub(super) struct Batch<'a> {
    pub(super) drainer: &'a Drainer,
    pub(super) session: &'a Session,
    /// The most that are taken out.
    pub(super) rows: i64,
}

/// How many rows can be published, and how many cannot.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    valid: u64,
    invalid: u64,
}

/// Counts a transaction as lost, unless it is known what became of it: also if it is dropped.
struct Outcome<'a> {
    drainer: &'a Drainer,
    result: BatchResult,
}

// ===== impl Batch =====

impl Batch<'_> {
    /// With a snapshot, only rows that it sees.
    pub(super) async fn run(
        &self,
        snapshot: Option<&str>,
        complaints: &mut Complaints,
    ) -> Result<Looked, Down> {
        let session = self.session;
        session.run("BEGIN").await?;
        let taken = self.take(snapshot).await?;
        if taken.is_empty() {
            session.run("COMMIT").await?;
            return Ok(Looked::Empty);
        }
        let mut outcome = Outcome { drainer: self.drainer, result: BatchResult::Lost };
        if self.drainer.backplane.is_none() && !lock::is_held(session).await? {
            return Err(lock::lost());
        }
        let Some(counts) = self.publish(&taken, complaints).await else {
            outcome.result = BatchResult::Unavailable;
            session.run("ROLLBACK").await?;
            return Ok(Looked::Refused);
        };
        session.run("COMMIT").await?;
        outcome.result = BatchResult::Ok;
        let counters = &self.drainer.shared.counters;
        metrics::add(&counters.published, counts.valid);
        metrics::add(&counters.invalid, counts.invalid);
        // One that is full by its bytes has at least a sixteenth of them.
        let is_full =
            taken.len() as i64 >= self.rows || self.bytes(&taken) >= OutboxConfig::BATCH_BYTES / 16;
        Ok(if is_full { Looked::Full } else { Looked::Empty })
    }

    async fn take(&self, snapshot: Option<&str>) -> Result<Vec<OutboxRow>, Down> {
        let row_bytes = i64::try_from(self.drainer.row_bytes).unwrap_or(i64::MAX);
        let bytes = OutboxConfig::BATCH_BYTES;
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&self.rows, Type::INT8), (&bytes, Type::INT8), (&row_bytes, Type::INT8)];
        if let Some(snapshot) = &snapshot {
            parameters.push((snapshot, Type::TEXT));
        }
        let taken = self.session.query(&sql::take(snapshot.is_some()), &parameters).await?;
        Ok(rows::read(&taken))
    }

    fn bytes(&self, taken: &[OutboxRow]) -> i64 {
        let lines = taken.iter().filter_map(|row| row.line.as_ref().ok());
        lines.map(|line| line.len() as i64).sum()
    }

    /// Publishes what is valid. `None` if the log did not take it, or not all of it.
    async fn publish(&self, taken: &[OutboxRow], complaints: &mut Complaints) -> Option<Counts> {
        let Drainer { hub, shared, row_bytes, backplane, .. } = self.drainer;
        let now = shared.clock.elapsed();
        let valid = taken.iter().filter_map(|row| match &row.line {
            Err(why) => {
                complaints.unusable(row.id, *why, now);
                None
            }
            Ok(line) => CheckedLine::new(line, hub.config(), *row_bytes)
                .inspect_err(|why| complaints.rejected(row.id, why, now))
                .ok()
                .map(|line| (row.id, line)),
        });
        let mut valid: Vec<_> = valid.collect();
        if let Some(backplane) = backplane {
            let mut max = *row_bytes;
            // The broker's records may be smaller than a publish.
            while let Err(why) = append(backplane, records(&valid, max)).await {
                let AppendError::TooLarge { max: smaller } = why else { return None };
                if smaller >= max {
                    return None;
                }
                max = smaller;
                // The line break counts.
                for (id, _) in valid.extract_if(.., |(_, line)| line.len() >= max) {
                    complaints.unusable(id, Unusable::TooLarge, now);
                }
            }
            // Once among all servers, at the one that published it.
            metrics::add(&hub.shard_counters().published, valid.len() as u64);
        } else {
            valid.iter().for_each(|(_, line)| line.run(hub, shared.clock.now()));
        }
        let (valid, all) = (valid.len() as u64, taken.len() as u64);
        Some(Counts { valid, invalid: all - valid })
    }
}

/// The lines of the records that these lines fill, each with at most `max` bytes of them, or with one line.
fn records(valid: &[(i64, CheckedLine<'_>)], max: usize) -> Vec<Lines> {
    let mut records: Vec<Lines> = Vec::new();
    for (_, line) in valid {
        match records.last_mut() {
            // The line break counts.
            Some(last) if last.len() + line.len() < max => line.add_to(last),
            _ => {
                let mut lines = Lines::new();
                line.add_to(&mut lines);
                records.push(lines);
            }
        }
    }
    records
}

/// Appends all of them at the same time.
async fn append(backplane: &Backplane, records: Vec<Lines>) -> Result<(), AppendError> {
    let mut appends = JoinSet::new();
    for lines in records {
        let backplane = backplane.clone();
        appends.spawn(async move { backplane.append_at_once(lines).await });
    }
    while let Some(appended) = appends.join_next().await {
        // Those that still wait may be stored: rows may be published twice, and never not at all.
        appended.map_err(|_| AppendError::Stopping)??;
    }
    Ok(())
}

// ===== impl Outcome =====

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.drainer.shared.counters.count_batch(self.result);
    }
}
