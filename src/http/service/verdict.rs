//! What the reactor has found of the token of a connection's first request, for the service that responds to it.

use std::fmt;
use std::sync::Arc;

use crate::http::auth::{AuthError, Authorization};
use crate::http::route::Route;
use crate::sync::Mutex;

/// Whether a request is authorised. It is never shown.
pub(crate) struct Verdict {
    pub(super) route: Route,
    pub(super) authorized: Result<Authorization, AuthError>,
}

/// The verdict on the first request of a connection, if there is one.
#[derive(Clone, Default)]
pub(super) struct FirstVerdict(Option<Arc<Mutex<Option<Verdict>>>>);

// ===== impl FirstVerdict =====

impl FirstVerdict {
    pub(super) fn new(verdict: Option<Verdict>) -> Self {
        Self(verdict.map(|verdict| Arc::new(Mutex::new(Some(verdict)))))
    }

    /// Takes it, which only the first request does.
    pub(super) fn take(&self) -> Option<Verdict> {
        self.0.as_ref()?.lock().take()
    }
}

impl fmt::Debug for FirstVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstVerdict").finish_non_exhaustive()
    }
}
