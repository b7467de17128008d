//! The alerts, as promtool reads them, and what an operator reads of each.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{FOLDER, file};
use crate::support::programs::{PROMTOOL, requires};

/// What the lines hold that begin so.
fn values<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(start)).collect()
}

fn names(alerts: &str) -> Vec<&str> {
    let names = values(alerts, "- alert: ");
    assert!(names.len() > 20, "{names:?}");
    names
}

/// Runs promtool in a folder, and returns whether all is well, and what it says.
fn promtool(folder: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(args).current_dir(folder).output();
    let output = output.expect("promtool is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_accepts_the_alerts_and_they_fire_when_they_should() {
    requires!(PROMTOOL);
    let folder = Path::new(FOLDER);
    let (is_well, said) = promtool(folder, &["check", "rules", "alerts.yml"]);
    assert!(is_well, "{said}");
    assert!(said.contains(&format!(" {} rules found", names(&file("alerts.yml")).len())), "{said}");
    let (is_well, said) = promtool(folder, &["test", "rules", "alerts_test.yml"]);
    assert!(is_well, "{said}");
}

#[test]
fn each_alert_is_tested_by_what_it_fires_for() {
    let (alerts, tests) = (file("alerts.yml"), file("alerts_test.yml"));
    let tested: BTreeSet<_> = values(&tests, "alertname: ").into_iter().collect();
    assert_eq!(tested, names(&alerts).into_iter().collect());
    for test in tests.split("  - name: ").skip(1) {
        assert!(test.contains("- exp_labels: {"), "nothing fires in {test}");
    }
}

#[test]
fn the_guide_has_a_paragraph_for_each_alert_to_which_the_alert_points() {
    let (alerts, guide) = (file("alerts.yml"), file("../src/guide/operate.md"));
    let (_, section) = guide.split_once("\n## Alerts\n").expect("the section");
    let section = section.split("\n## ").next().expect("a piece");
    let mut headings = Vec::new();
    for paragraph in section.split("\n### ").skip(1) {
        let (heading, text) = paragraph.split_once('\n').expect("a line");
        assert!(text.split_whitespace().count() > 25, "too little about {heading}: {text}");
        headings.push(heading);
    }
    let names = names(&alerts);
    assert_eq!(headings, names);
    let anchors = names.iter().map(|name| format!("src/guide/operate.md#{}", name.to_lowercase()));
    assert!(anchors.eq(values(&alerts, "runbook: ")));
}
