//! The dashboard and the alerts, with a real Prometheus that scrapes the program.

mod alerts;
mod dashboard;
mod expression;
mod live;
mod process;

use serde_json::Value;

/// Where they are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.packaging");

/// A file among them.
fn file(name: &str) -> String {
    let path = format!("{FOLDER}/{name}");
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn grafana() -> Value {
    serde_json::from_str(&file("grafana.json")).expect("JSON")
}

/// The panels that show something, which are all but the rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// The queries of a panel.
fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().expect("targets")
}

/// A member that has to be a text, which is not empty.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    let text = value[name].as_str().unwrap_or_default();
    assert!(!text.is_empty(), "no {name}: {value}");
    text
}
