use serde_json::{Value, json};

use super::Operator;
use crate::harness::{Chrome, Site};
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

/// The texts that are too faint on what is behind them, by WCAG 2.2, 1.4.3.
const FAINT: &str = "
    const parse = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = node => {
        const color = parse(getComputedStyle(node).backgroundColor);
        return color.length === 4 && color[3] === 0 ? behind(node.parentElement) : color;
    };
    const faint = [];
    let count = 0;
    for (const node of document.body.querySelectorAll('*')) {
        const has = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
        if (!has && !node.matches('input, textarea, select') || !node.checkVisibility()) continue;
        const [one, two] = [parse(getComputedStyle(node).color), behind(node)].map(light);
        const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        count += 1;
        if (ratio < 4.5) faint.push(`${node.tagName} ${node.textContent.slice(0, 20)} ${ratio}`);
    }
    return [count > 60, faint];
";

/// Fields without a label, and what else a program that reads the page aloud needs.
const UNNAMED: &str = "
    const unnamed = [...document.querySelectorAll('input, textarea, select')]
        .filter(field => !field.labels.length && !field.ariaLabel).map(field => field.id);
    const empty = [...document.querySelectorAll('button')].filter(button => !button.textContent.trim());
    const levels = [...document.querySelectorAll('h1, h2')].map(heading => heading.tagName);
    const mouse = [...document.querySelectorAll('[onclick], [tabindex]:not([tabindex=\"0\"])')];
    return [unnamed, empty.length, levels[0], levels.filter(level => level === 'H1').length,
        mouse.length, document.documentElement.lang, document.title !== ''];
";

#[test]
fn the_page_fits_a_phone_and_can_be_read_in_both_schemes_and_used_by_keyboard() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = Server::start(&["--coalesce", "0"]);
    let site = Site::start(server.address());
    site.add(
        "/metrics",
        "nudged_connections 123456789\nnudged_connections_max 123456789\nnudged_open 0\n\
         nudged_streams_open{kind=\"member\"} 123456789\nnudged_streams_open{kind=\"public\"} 123456789\n\
         process_resident_memory_bytes 999999999999\nnudged_backplane_connected 1\n\
         nudged_build_info{version=\"10.20.30\"} 1\nprocess_start_time_seconds 1000\n\
         nudged_streams_closed_total{reason=\"tls_records\"} 123456789\n\
         nudged_streams_closed_total{reason=\"stalled\"} 123456789\n\
         nudged_sweep_seconds_bucket{le=\"0.001\"} 5\nnudged_sweep_seconds_bucket{le=\"0.5\"} 5\n\
         nudged_sweep_seconds_bucket{le=\"10.0\"} 5\nnudged_sweep_seconds_bucket{le=\"+Inf\"} 6\n",
    );
    let (org, topic) = ("o".repeat(64), "t".repeat(128));
    let row = json!({ "org": org, "members": 123_456_789, "public": 123_456_789, "publishes_per_second": 123_456.7 });
    site.add("/ops/orgs", json!({ "total": 1000, "orgs": vec![row; 20] }).to_string());
    let row = json!({ "org": org, "topic": topic, "streams": 1, "publishes_per_second": 9999, "bytes": 999_999_999 });
    site.add("/ops/topics", json!({ "total": 1, "topics": [row] }).to_string());
    let row = json!({ "node": "n".repeat(64), "is_self": true, "last_beat_seconds": 1.5 });
    site.add("/ops/nodes", json!({ "backplane": true, "nodes": [row] }).to_string());
    let chrome = Chrome::start();
    let page = Operator::open_scripted(&chrome, &site);
    page.eventually_has("#topics", &topic);
    page.eventually_has("#nodes", "(this one)");
    page.eventually_has("#warnings", "nearly used up");
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");
    let id = server.publish("acme", &[&"k".repeat(512)]).expect("subscribed");
    page.eventually_has("#tail li", &id);
    page.click("#copyTail");
    assert_eq!(page.run(UNNAMED), json!([[], 0, "H1", 1, 0, "en", true]));

    let mut backgrounds = vec![];
    for scheme in ["light", "dark"] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        page.0.devtools("Emulation.setEmulatedMedia", &media);
        for width in [390, 800, 1600] {
            let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400 });
            page.0.devtools("Emulation.setDeviceMetricsOverride", &size);
            eventually("the page has this size", || page.run("return innerWidth") == width);
            let root = "const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth - clientWidth";
            let wide = "return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 60))";
            assert_eq!(page.run(root), 0, "{scheme} {width}: {}", page.run(wide));
        }
        assert_eq!(page.run(FAINT), json!([true, []]), "{scheme}");
        backgrounds.push(page.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    assert_ne!(backgrounds[0], Value::Null);

    // The focus stays in its row when the rows change.
    page.run("document.querySelector('#topics button').focus()");
    let row = json!({ "org": "acme", "topic": "run-1", "streams": 1, "publishes_per_second": 0, "bytes": 0 });
    site.add("/ops/topics", json!({ "total": 1, "topics": [row] }).to_string());
    page.eventually_has("#topics", "run-1");
    assert_eq!(page.run("return document.activeElement.textContent"), "acme / run-1");
    page.assert_quiet();
}
