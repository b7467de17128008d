//! Replays the corpora, and checks that no target lacks one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

fn files(folder: &str) -> BTreeSet<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let files = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    files.map(|file| file.expect("a readable folder").path()).collect()
}

fn names(folder: &str) -> Vec<String> {
    let name = |path: &PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    files(folder).iter().filter_map(name).collect()
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seeds = files(&format!("corpus/{name}"));
    assert!(!seeds.is_empty(), "{name} has no corpus");
    for seed in seeds {
        println!("{}", seed.display());
        target(&fs::read(seed).expect("a readable file"));
    }
}

#[test]
fn heartbeat() {
    replay("heartbeat");
}

#[cfg(all(feature = "server", feature = "tls"))]
#[test]
fn http_bytes() {
    replay("http_bytes");
}

#[test]
fn hub_ops() {
    replay("hub_ops");
}

#[cfg(feature = "server")]
#[test]
fn last_event_id() {
    replay("last_event_id");
}

#[cfg(feature = "server")]
#[test]
fn proxy_protocol() {
    replay("proxy_protocol");
}

#[cfg(feature = "server")]
#[test]
fn publish_json() {
    replay("publish_json");
}

#[cfg(feature = "server")]
#[test]
fn publish_ndjson() {
    replay("publish_ndjson");
}

#[cfg(feature = "server")]
#[test]
fn record() {
    replay("record");
}

#[cfg(feature = "server")]
#[test]
fn route() {
    replay("route");
}

#[test]
fn sse_parse() {
    replay("sse_parse");
}

#[test]
fn sse_roundtrip() {
    replay("sse_roundtrip");
}

#[cfg(feature = "server")]
#[test]
fn state() {
    replay("state");
}

#[cfg(all(feature = "server", feature = "tls"))]
#[test]
fn tls_opener() {
    replay("tls_opener");
}

#[test]
fn topic_json() {
    replay("topic_json");
}

#[test]
fn wheel_ops() {
    replay("wheel_ops");
}

#[cfg(all(feature = "server", feature = "tls"))]
#[test]
fn every_target_has_a_file_and_a_corpus() {
    let expected: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), expected);
    assert_eq!(names("corpus"), expected);
}
