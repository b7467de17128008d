//! A row as a line of a publish over HTTP, which is checked as such.

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// A row that was taken out of the table.
#[derive(Debug)]
pub(super) struct OutboxRow {
    pub(super) id: i64,
    pub(super) line: Result<Vec<u8>, Unusable>,
}

/// Why a row is no line at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unusable {
    /// It has more bytes than a publish may have.
    TooLarge,
    /// Something in it is no text, as a database without an encoding, or with another one, may have it.
    NoText,
}

#[derive(Serialize)]
struct Line<'a> {
    org: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Option<&'a str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bulk: Option<bool>,
}

/// The rows that were taken out, by their ids.
pub(super) fn read(rows: &[Row]) -> Vec<OutboxRow> {
    let read = |row| OutboxRow { id: column(row, 0).unwrap_or_default(), line: line(row) };
    let mut rows: Vec<_> = rows.iter().map(read).collect();
    rows.sort_unstable_by_key(|row| row.id);
    rows
}

fn line(row: &Row) -> Result<Vec<u8>, Unusable> {
    let org: Option<&str> = column(row, 1)?;
    let data: Option<&str> = column(row, 5)?;
    let line = Line {
        // It is never null, but where the row is too large.
        org: org.ok_or(Unusable::TooLarge)?,
        keys: column(row, 2)?,
        topic: column(row, 3)?,
        event: column(row, 4)?,
        data: data.map(serde_json::from_str).transpose().map_err(|_| Unusable::NoText)?,
        text: column(row, 6)?,
        bulk: column(row, 7)?,
    };
    Ok(serde_json::to_vec(&line).expect("strings, and JSON"))
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Unusable> {
    row.try_get(index).map_err(|_| Unusable::NoText)
}

// ===== impl Unusable =====

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "it has more bytes than a publish may have (--publish-bytes)",
            Self::NoText => "it is no text in UTF-8",
        })
    }
}
