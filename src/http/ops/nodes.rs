//! The servers that share a log, as JSON.

use std::time::Duration;

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
    text(backplane.map(Backplane::nodes))
}

fn text(nodes: Option<Vec<(Node, Duration)>>) -> Bytes {
    let backplane = nodes.is_some();
    let mut nodes = nodes.unwrap_or_default();
    nodes.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let rows = nodes.iter().map(|(Node { name, is_self, .. }, age)| Row {
        node: name,
        is_self: *is_self,
        last_beat_seconds: age.as_secs_f64(),
    });
    let nodes = Nodes { backplane, nodes: rows.collect() };
    serde_json::to_vec(&nodes).expect("text and numbers").into()
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::time::Time;

    /// What is in the log may be by anyone.
    #[test]
    fn a_name_is_text_whatever_it_has() {
        let names = [
            "\"}],\"nodes\":[{",
            "</script><script>alert(1)</script>",
            "\u{2028}\u{2029}\0\n\\",
            "\u{202e}\u{feff}é",
        ];
        let nodes = names.map(|name| {
            let node = Node { name: name.into(), is_self: name.len() > 30, at: Time(0) };
            (node, Duration::from_millis(1_250))
        });
        let text = text(Some(nodes.to_vec()));
        assert!(!text.contains(&b'\n') && !text.contains(&0), "no line and no control character");
        let parsed: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(parsed.as_object().expect("an object").len(), 2);
        let mut sorted = names;
        sorted.sort_unstable();
        for (row, name) in parsed["nodes"].as_array().expect("rows").iter().zip(sorted) {
            let expected = serde_json::json!({
                "node": name, "is_self": name.len() > 30, "last_beat_seconds": 1.25,
            });
            assert_eq!(*row, expected);
        }
    }
}
