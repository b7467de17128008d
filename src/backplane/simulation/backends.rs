//! Backends that change data, and publish.

use std::time::Duration;

use super::world::{KEYS, ORGS, Profile, World, chance, key_name};
use crate::backplane::broker::Kind;
use crate::backplane::payload::{Barrier, Cause};
use crate::time::Time;

pub(super) struct Publish {
    /// The keys that it is for, and the version that they had.
    pub(super) keys: Vec<(usize, usize, u64)>,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) node: Option<usize>,
    pub(super) until: Time,
    pub(super) is_over: bool,
}

// ===== impl World =====

impl World {
    /// A backend changes keys, and publishes.
    pub(super) fn publish(&mut self) {
        let org = usize::from(chance(30));
        let mut changed: Vec<_> = (0..KEYS).filter(|_| chance(25)).collect();
        changed.truncate(4);
        if changed.is_empty() {
            return;
        }
        let names: Vec<_> = changed.iter().map(|key| key_name(*key)).collect();
        let text = format!("{}\n", serde_json::json!({"org": ORGS[org], "keys": names}));
        let keys = changed.into_iter().map(|key| (org, key)).collect();
        self.publish_keys(keys, Kind::Lines, text);
    }

    /// Everything has changed, of an org or in all.
    pub(super) fn command(&mut self) {
        if self.profile == Profile::Benign {
            return;
        }
        let all = |orgs: &[usize]| {
            orgs.iter().flat_map(|org| (0..KEYS).map(|key| (*org, key))).collect::<Vec<_>>()
        };
        if chance(20) {
            let barrier = Barrier {
                // Its server has it.
                identity: String::new(),
                reason: "a command".into(),
                cause: Some(Cause::Command),
                after: 0,
            };
            let text = String::from_utf8(barrier.to_bytes().into()).expect("JSON");
            return self.publish_keys(all(&[0, 1]), Kind::Barrier, text);
        }
        let org = fastrand::usize(..2);
        let text = format!("{}\n", serde_json::json!({"org": ORGS[org], "reread": true}));
        self.publish_keys(all(&[org]), Kind::Lines, text);
    }

    pub(super) fn publish_keys(&mut self, keys: Vec<(usize, usize)>, kind: Kind, text: String) {
        let version = self.publishes.len() as u64 + 2;
        keys.iter().for_each(|(org, key)| self.database[*org][*key] = version);
        let keys = keys.into_iter().map(|(org, key)| (org, key, version)).collect();
        let (node, until) = (None, self.now);
        self.publishes.push(Publish { keys, kind, text, node, until, is_over: false });
    }

    /// A publish that failed is repeated, unless its backend gives up.
    pub(super) fn look_after_publishes(&mut self) {
        let from = self.publishes.len().saturating_sub(200);
        for number in from..self.publishes.len() {
            let ready = self.ready();
            let publish = &mut self.publishes[number];
            if publish.is_over || publish.until > self.now {
                continue;
            }
            if let Some(node) = publish.node.take().and_then(|node| self.nodes[node].as_mut()) {
                node.waiting.retain(|(other, ..)| *other != number);
            }
            let is_refused = publish.until < self.now && chance(2);
            if is_refused {
                publish.is_over = true;
            } else if let Some(node) = ready {
                publish.node = Some(node);
                publish.until = self.now.after(Duration::from_secs(5));
                let node = self.nodes[node].as_mut().expect("it is ready");
                node.waiting.push_back((number, publish.kind, publish.text.clone()));
            }
        }
    }
}
