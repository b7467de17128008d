//! The servers that share a log, as JSON.

use bytes::Bytes;
use serde::Serialize;

use crate::backplane::{Backplane, Node};

#[derive(Serialize)]
struct Nodes<'a> {
    backplane: bool,
    nodes: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    node: &'a str,
    is_self: bool,
    last_beat_seconds: f64,
}

/// The servers whose beats were read lately, by name.
pub(in crate::http) fn nodes(backplane: Option<&Backplane>) -> Bytes {
    let mut nodes = backplane.map(Backplane::nodes).unwrap_or_default();
    nodes.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let rows = nodes.iter().map(|(Node { name, is_self, .. }, age)| Row {
        node: name,
        is_self: *is_self,
        last_beat_seconds: age.as_secs_f64(),
    });
    let nodes = Nodes { backplane: backplane.is_some(), nodes: rows.collect() };
    serde_json::to_vec(&nodes).expect("text and numbers").into()
}
