//! One transaction: rows are taken out, published, and gone with its COMMIT.

use tokio_postgres::types::{ToSql, Type};

use super::{Drainer, Looked};
use crate::backplane::{AppendError, Backplane};
use crate::config::OutboxConfig;
use crate::http::{BatchResult, CheckedLine};
use crate::hub::record::Lines;
use crate::metrics;
use crate::outbox::connection::{Down, Session, in_words};
use crate::outbox::rows::{self, OutboxRow, Unusable};
use crate::outbox::warnings::Warnings;
use crate::outbox::{lock, sql};

pub(super) struct Batch<'a> {
    pub(super) drainer: &'a Drainer,
    pub(super) session: &'a Session,
    /// The most that are taken out. One is taken out alone: it may be no text.
    pub(super) rows: i64,
    /// The table need not be asked whether it has rows.
    pub(super) has_rows: bool,
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
        warnings: &mut Warnings,
    ) -> Result<Looked, Down> {
        let session = self.session;
        let is_shared = self.drainer.backplane.is_some();
        let may_look = if is_shared { lock::SHARES } else { "true" };
        let has_rows = if self.has_rows { "true" } else { sql::HAS_ROWS };
        let [may_look, has_rows] = session.begin_with([may_look, has_rows]).await?;
        if !may_look {
            return Err(lock::is_alone(session).await);
        }
        if !has_rows {
            session.run("COMMIT").await?;
            return Ok(Looked::Empty);
        }
        let taken = match self.rows {
            1 => Some(self.take_one(snapshot).await?),
            _ => self.take(snapshot).await?,
        };
        let Some(taken) = taken else {
            session.run("ROLLBACK").await?;
            return Ok(Looked::NoText);
        };
        if taken.is_empty() {
            session.run("COMMIT").await?;
            return Ok(self.rest(snapshot));
        }
        let mut outcome = Outcome { drainer: self.drainer, result: BatchResult::Lost };
        if !is_shared && !lock::is_held(session).await? {
            return Err(lock::lost());
        }
        let Some(counts) = self.publish(&taken, warnings).await else {
            outcome.result = BatchResult::Unavailable;
            session.run("ROLLBACK").await?;
            return Ok(Looked::Refused);
        };
        session.run("COMMIT").await?;
        outcome.result = BatchResult::Ok;
        let counters = &self.drainer.shared.counters;
        metrics::add(&counters.published, counts.valid);
        metrics::add(&counters.invalid, counts.invalid);
        Ok(if self.is_full(&taken) { Looked::Full } else { self.rest(snapshot) })
    }

    /// What is left, if it does not fill a batch.
    fn rest(&self, snapshot: Option<&str>) -> Looked {
        if snapshot.is_some() { Looked::TooEarly } else { Looked::Empty }
    }

    /// `None` if one of them cannot be read.
    async fn take(&self, snapshot: Option<&str>) -> Result<Option<Vec<OutboxRow>>, Down> {
        let row_bytes = self.row_bytes();
        let bytes = OutboxConfig::BATCH_BYTES;
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&self.rows, Type::INT8), (&bytes, Type::INT8), (&row_bytes, Type::INT8)];
        if let Some(snapshot) = &snapshot {
            parameters.push((snapshot, Type::TEXT));
        }
        let taken = self.session.query_text(&sql::take(self.filter(snapshot)), &parameters).await?;
        Ok(taken.map(|taken| rows::read(&taken)))
    }

    /// Takes one out, if there is one. It is deleted if it cannot be read.
    async fn take_one(&self, snapshot: Option<&str>) -> Result<Vec<OutboxRow>, Down> {
        let session = self.session;
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
        if let Some(snapshot) = &snapshot {
            parameters.push((snapshot, Type::TEXT));
        }
        let picked = session.query(&sql::pick(self.filter(snapshot)), &parameters).await?;
        let Some(picked) = picked.first() else { return Ok(Vec::new()) };
        let id: i64 = picked.try_get(0).map_err(|why| in_words(&why))?;
        session.run("SAVEPOINT unread").await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&id, Type::INT8), (&self.row_bytes(), Type::INT8)];
        if let Some(taken) = session.query_text(&sql::take_one(), &parameters).await? {
            return Ok(rows::read(&taken));
        }
        session.run("ROLLBACK TO SAVEPOINT unread").await?;
        session.query(sql::DELETE_ONE, &parameters[..1]).await?;
        Ok(vec![OutboxRow { id, line: Err(Unusable::NoText) }])
    }

    fn filter(&self, snapshot: Option<&str>) -> sql::Filter {
        let (is_delayed, is_shared) = (snapshot.is_some(), self.drainer.backplane.is_some());
        sql::Filter { is_delayed, is_shared }
    }

    fn row_bytes(&self) -> i64 {
        i64::try_from(self.drainer.row_bytes).unwrap_or(i64::MAX)
    }

    /// Whether there may be more. One that is full by its bytes has at least a sixteenth of them, or rows that are too
    /// large to be here.
    fn is_full(&self, taken: &[OutboxRow]) -> bool {
        let bytes = |row: &OutboxRow| match &row.line {
            Ok(line) => line.len() as i64,
            Err(Unusable::TooLarge) => OutboxConfig::BATCH_BYTES,
            Err(Unusable::NoText) => 0,
        };
        taken.len() as i64 >= self.rows
            || taken.iter().map(bytes).sum::<i64>() >= OutboxConfig::BATCH_BYTES / 16
    }

    /// Publishes what is valid. `None` if the log did not take it, or not all of it.
    async fn publish(&self, taken: &[OutboxRow], warnings: &mut Warnings) -> Option<Counts> {
        let Drainer { hub, shared, row_bytes, backplane, .. } = self.drainer;
        let now = shared.clock.elapsed();
        let valid = taken.iter().filter_map(|row| match &row.line {
            Err(why) => {
                warnings.unusable(row.id, *why, now);
                None
            }
            Ok(line) => CheckedLine::new(line, hub.config(), *row_bytes)
                .inspect_err(|why| warnings.rejected(row.id, why, now))
                .ok()
                .map(|line| (row.id, line)),
        });
        let valid: Vec<_> = valid.collect();
        let published = match backplane {
            Some(backplane) => {
                let published = self.append(backplane, &valid, warnings).await?;
                // Once among all servers, at the one that published it.
                metrics::add(&hub.shard_counters().published, published);
                published
            }
            None => {
                valid.iter().for_each(|(_, line)| line.run(hub, shared.clock.now()));
                valid.len() as u64
            }
        };
        Some(Counts { valid: published, invalid: taken.len() as u64 - published })
    }

    /// Appends these in as many records as it takes, one after the other, which keeps the order of a topic's events: of
    /// two that are on their way the first may be lost, and be appended again. Returns how many there are in the log.
    async fn append(
        &self,
        backplane: &Backplane,
        mut valid: &[(i64, CheckedLine<'_>)],
        warnings: &mut Warnings,
    ) -> Option<u64> {
        let (mut max, mut published) = (self.drainer.row_bytes, 0);
        while !valid.is_empty() {
            let (record, rest) = valid.split_at(fitting(valid, max));
            let mut lines = Lines::new();
            record.iter().for_each(|(_, line)| line.add_to(&mut lines));
            match (backplane.append_at_once(lines).await, record) {
                (Ok(_), _) => {
                    published += record.len() as u64;
                    valid = rest;
                }
                // The broker's records may be smaller than a publish. The line break counts.
                (Err(AppendError::TooLarge { max: smaller }), [(id, line)])
                    if line.len() >= smaller =>
                {
                    warnings.not_in_a_record(*id, smaller, self.drainer.shared.clock.elapsed());
                    valid = rest;
                }
                (Err(AppendError::TooLarge { max: smaller }), _) if smaller < max => max = smaller,
                (Err(_), _) => return None,
            }
        }
        Some(published)
    }
}

/// How many of these are a record, with at most `max` bytes of them; at least one.
fn fitting(valid: &[(i64, CheckedLine<'_>)], max: usize) -> usize {
    let mut bytes = 0;
    let fits = |(_, line): &&(i64, CheckedLine<'_>)| {
        // The line break counts.
        bytes += line.len() + 1;
        bytes <= max
    };
    valid.iter().take_while(fits).count().max(1)
}

// ===== impl Outcome =====

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.drainer.shared.counters.count_batch(self.result);
    }
}
