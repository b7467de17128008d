//! The servers of the log: those that are configured otherwise, and those whose beats were read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;

/// The last servers of which was noted that they are configured otherwise.
#[derive(Debug, Default)]
pub(super) struct Peers(VecDeque<String>);

/// The servers whose beats were read lately.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// One of them was read since they were taken last.
    is_news: bool,
}

/// A server whose beat was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it calls itself: any text.
    pub(crate) name: Arc<str>,
    /// It is this one.
    pub(crate) is_self: bool,
    /// When its last beat was read.
    pub(crate) at: Time,
}

// ===== impl Peers =====

impl Peers {
    const MAX: usize = 256;

    /// Whether nothing was noted about a server yet. It is now.
    pub(super) fn is_news(&mut self, node: &str) -> bool {
        if self.0.iter().any(|known| known == node) {
            return false;
        }
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back(node.into());
        true
    }
}

// ===== impl Nodes =====

impl Nodes {
    pub(super) const MAX: usize = 256;

    /// A server is forgotten after this time without a beat, of which each appends one in half a minute. One that starts
    /// again has another name.
    pub(super) const FORGOTTEN: Duration = Duration::from_secs(600);

    /// A beat of this server was read. If there are too many, the one whose beat is the oldest is forgotten.
    pub(super) fn saw(&mut self, name: &str, is_self: bool, now: Time) {
        self.is_news = true;
        self.nodes.retain(|node| now < node.at.after(Self::FORGOTTEN) && &*node.name != name);
        if self.nodes.len() == Self::MAX {
            // They are in the order of their beats.
            self.nodes.remove(0);
        }
        self.nodes.push(Node { name: name.into(), is_self, at: now });
    }

    /// All of them, if a beat was read since this was last called.
    pub(super) fn take_news(&mut self) -> Option<Vec<Node>> {
        std::mem::take(&mut self.is_news).then(|| self.nodes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_forgotten_once_they_are_silent_or_too_many() {
        let mut nodes = Nodes::default();
        assert_eq!(nodes.take_news(), None);
        nodes.saw("first", true, Time(0));
        nodes.saw("second", false, Time(1));
        nodes.saw("first", true, Time(2));
        let names = |nodes: &mut Nodes| {
            let news = nodes.take_news().expect("a beat was read").into_iter();
            news.map(|node| (node.name.to_string(), node.is_self, node.at.0)).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut nodes), [("second".into(), false, 1), ("first".into(), true, 2)]);
        assert_eq!(nodes.take_news(), None);
        let late = Time(1).after(Nodes::FORGOTTEN);
        nodes.saw("third", false, late);
        assert_eq!(names(&mut nodes), [("first".into(), true, 2), ("third".into(), false, late.0)]);
        for n in 0..10_000 {
            nodes.saw(&n.to_string(), false, Time(late.0 + n));
            assert!(nodes.nodes.len() <= Nodes::MAX);
        }
        let left = names(&mut nodes);
        assert_eq!(left.len(), Nodes::MAX);
        assert_eq!((&*left[0].0, &*left[255].0), ("9744", "9999"), "the newest are kept");
    }
}
