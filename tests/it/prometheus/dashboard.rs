//! The dashboard, as far as it can be judged without Grafana.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{grafana, panels, targets, text};

/// The cells of the grid that a panel takes.
fn cells(panel: &Value) -> impl Iterator<Item = (u64, u64)> {
    let [x, y, width, height] = ["x", "y", "w", "h"].map(|name| {
        panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {panel}"))
    });
    assert!(width > 0 && height > 0 && x + width <= 24, "not in the grid: {panel}");
    (x..x + width).flat_map(move |x| (y..y + height).map(move |y| (x, y)))
}

#[test]
fn grafana_10_and_11_can_import_the_dashboard() {
    let dashboard = grafana();
    // That of Grafana 10.4 and 11; 10.0 has 38, and takes later ones.
    assert_eq!(dashboard["schemaVersion"], 39);
    assert!(dashboard["id"].is_null(), "the number in a database");
    assert!(text(&dashboard, "uid").len() <= 40);
    text(&dashboard, "title");
    let all = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in all {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "an id twice: {panel}");
        for cell in cells(panel) {
            assert!(taken.insert(cell), "over another panel at {cell:?}: {panel}");
        }
    }
    for panel in panels(&dashboard) {
        assert!(["stat", "timeseries"].contains(&text(panel, "type")), "{panel}");
        assert!(titles.insert(text(panel, "title")), "a title twice: {panel}");
        text(panel, "description");
        text(&panel["fieldConfig"]["defaults"], "unit");
        let ids: BTreeSet<_> = targets(panel).iter().map(|target| text(target, "refId")).collect();
        assert!(!ids.is_empty() && ids.len() == targets(panel).len(), "{panel}");
    }
    assert!(titles.len() > 8, "{titles:?}");
}

/// The Prometheus, the job and the servers are chosen where it is imported.
#[test]
fn all_of_the_dashboard_goes_by_its_variables() {
    let dashboard = grafana();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    assert_eq!(variables[0]["query"], "prometheus");
    for which in variables[1..].iter().chain(panels(&dashboard)) {
        assert_eq!(which["datasource"]["uid"], "${datasource}", "{which}");
    }
    for target in panels(&dashboard).into_iter().flat_map(targets) {
        assert!(target.get("datasource").is_none(), "that of its panel: {target}");
        let expression = text(target, "expr");
        let chosen = expression.matches(r#"{job=~"$job", instance=~"$instance""#).count();
        assert_eq!(chosen, expression.matches('{').count(), "{expression}");
        let known = ["$job", "$instance", "$__rate_interval"].map(|name| expression.matches(name));
        let known: usize = known.into_iter().map(Iterator::count).sum();
        assert_eq!(known, expression.matches('$').count(), "{expression}");
        assert!(!expression.contains("rate(") || expression.contains("[$__rate_interval]"));
    }
}
