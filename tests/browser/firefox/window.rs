//! Several tabs of a Firefox.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::harness::Page;
use crate::support::firefox::Firefox;
use crate::support::server::{Signal, signal};

/// Tests use it one after the other: its start takes seconds of two processors.
static FIREFOX: Mutex<Option<Firefox>> = Mutex::new(None);
/// Number of tests that wait for it.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A Firefox with one empty tab, which keeps it open. A test that waits gets it when this is dropped; otherwise it ends.
pub(super) struct Window {
    firefox: MutexGuard<'static, Option<Firefox>>,
    empty: String,
    /// The handles of the other tabs.
    tabs: RefCell<Vec<String>>,
}

pub(super) struct Tab<'window> {
    window: &'window Window,
    handle: String,
    /// The process of its first page.
    pub(super) pid: u32,
}

/// The process of a tab while it is stopped; it goes on when this is dropped.
pub(super) struct Stopped {
    pid: u32,
}

// ===== impl Window =====

impl Window {
    pub(super) fn open() -> Self {
        WAITING.fetch_add(1, SeqCst);
        let mut firefox = FIREFOX.lock().unwrap_or_else(PoisonError::into_inner);
        WAITING.fetch_sub(1, SeqCst);
        let empty = firefox.get_or_insert_with(|| Firefox::open("about:blank")).tab();
        Self { firefox, empty, tabs: RefCell::default() }
    }

    /// Opens a page in a new tab, which is in front then: the ones before are hidden.
    pub(super) fn tab(&self, url: &str) -> Tab<'_> {
        let handle = self.firefox().new_tab();
        self.tabs.borrow_mut().push(handle.clone());
        let mut tab = Tab { window: self, handle, pid: 0 };
        tab.look();
        tab.go(url);
        let pid = "return gBrowser.selectedBrowser.browsingContext.currentWindowGlobal.osPid";
        let pid = self.firefox().execute_as_browser(pid).as_u64().expect("a process");
        tab.pid = pid.try_into().expect("a number of Linux");
        tab
    }

    fn firefox(&self) -> &Firefox {
        self.firefox.as_ref().expect("it was opened")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if WAITING.load(SeqCst) == 0 || std::thread::panicking() {
            *self.firefox = None;
            return;
        }
        for tab in self.tabs.take() {
            self.firefox().switch_to(&tab, false);
            self.firefox().close_tab();
        }
        self.firefox().switch_to(&self.empty, true);
    }
}

// ===== impl Tab =====

impl Tab<'_> {
    /// Brings it to the front.
    pub(super) fn look(&self) {
        self.window.firefox().switch_to(&self.handle, true);
    }

    pub(super) fn go(&self, url: &str) {
        self.select();
        self.window.firefox().go(url);
    }

    pub(super) fn reload(&self) {
        self.select();
        self.window.firefox().reload();
    }

    pub(super) fn back(&self) {
        self.select();
        self.window.firefox().back();
    }

    pub(super) fn close(self) {
        self.select();
        self.window.firefox().close_tab();
        self.window.tabs.borrow_mut().retain(|tab| *tab != self.handle);
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.run("return document.hidden") == true
    }

    /// The last id that the client has had.
    pub(super) fn id(&self) -> Value {
        self.run("return stream.id")
    }

    /// Stops the process that runs its page: timers, and what it receives; not the browser.
    pub(super) fn stop(&self) -> Stopped {
        signal(self.pid, Signal::STOP).expect("it runs");
        Stopped { pid: self.pid }
    }

    fn select(&self) {
        self.window.firefox().switch_to(&self.handle, false);
    }
}

impl Page for Tab<'_> {
    fn run(&self, script: &str) -> Value {
        self.select();
        self.window.firefox().execute(script)
    }
}

// ===== impl Stopped =====

impl Drop for Stopped {
    fn drop(&mut self) {
        _ = signal(self.pid, Signal::CONT);
    }
}
