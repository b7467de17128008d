//! Browsers that come, stay and go.

use super::browser::Browser;
use super::node::Node;
use super::world::{KEYS, ORGS, Profile, World, chance, one_of};
use crate::hub::View;

// ===== impl World =====

impl World {
    /// A node that a balancer would choose.
    pub(super) fn ready(&self) -> Option<usize> {
        let is_ready = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.is_loaded);
        let ready = (0..self.nodes.len()).filter(|number| is_ready(&self.nodes[*number]));
        one_of(ready)
    }

    /// A browser begins, or one comes back.
    pub(super) fn open(&mut self) {
        let Some(node) = self.ready() else { return };
        if self.browsers.len() < 12 || chance(5) {
            let view = if chance(40) { View::Public } else { View::Member };
            let only = chance(25).then(|| fastrand::usize(..KEYS));
            let browser = Browser::new(usize::from(chance(30)), view, only);
            if self.browsers.len() < 12 {
                self.browsers.push(browser);
            } else {
                let number = fastrand::usize(..self.browsers.len());
                self.browsers[number] = browser;
            }
        }
        let away = (0..self.browsers.len()).filter(|n| self.browsers[*n].stream.is_none());
        if let Some(browser) = one_of(away) {
            self.connect(browser, node);
        }
    }

    pub(super) fn connect(&mut self, browser: usize, number: usize) {
        let node = self.nodes[number].as_ref().expect("it is ready");
        let browser = &mut self.browsers[browser];
        // What the server has read, unless it is from before the first record.
        let head = node.hub.applied().map_or(0, |mark| mark.position);
        let known = browser.id.filter(|id| (1..=head).contains(&id.seq.0));
        let resumes = browser.open(&node.hub, number, self.now);
        if self.profile == Profile::Benign && known.is_some() {
            assert!(resumes, "{known:?} does not resume at {:?}", node.hub.applied());
        }
    }

    fn some_browser(&self) -> Option<usize> {
        one_of(0..self.browsers.len())
    }

    pub(super) fn receive(&mut self) {
        let (database, events) = (self.database, fastrand::usize(0..5));
        if let Some(browser) = self.some_browser() {
            self.browsers[browser].receive(&database, events);
            self.check_id(browser);
        }
    }

    pub(super) fn keepalive(&mut self) {
        if let Some(browser) = self.some_browser() {
            self.browsers[browser].keepalive();
            self.check_id(browser);
        }
    }

    /// All browsers of a server receive everything, and a keepalive.
    pub(super) fn hurry(&mut self, node: usize) {
        for number in 0..self.browsers.len() {
            let browser = &mut self.browsers[number];
            if browser.stream.as_ref().is_some_and(|stream| stream.node == node) {
                browser.receive(&self.database, usize::MAX);
                browser.keepalive();
                self.check_id(number);
            }
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(browser) = self.some_browser() {
            self.browsers[browser].stream = None;
        }
    }

    /// A backend reads the position, and then the data of a page with which a browser begins.
    pub(super) fn page(&mut self) {
        let Some(number) = self.ready() else { return };
        let org = fastrand::usize(..2);
        let node = self.nodes[number].as_ref().expect("it is ready");
        let positions = node.hub.position(&ORGS[org].parse().expect("a name"), self.now);
        let (view, position) = match positions.public.filter(|_| chance(50)) {
            Some(public) => (View::Public, public),
            None => (View::Member, positions.member),
        };
        let (id, copies) = (Some(position.id), self.database[org]);
        if self.browsers.len() >= 12 {
            self.browsers.swap_remove(fastrand::usize(..12));
        }
        self.browsers.push(Browser { id, copies, ..Browser::new(org, view, None) });
    }
}
