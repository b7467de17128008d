//! What the unfinished request bodies of one connection may take together: HTTP/2 has many at a time.

use std::sync::Arc;

use crate::sync::{AtomicUsize, Ordering};

/// The bytes that a connection has for bodies. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    left: AtomicUsize,
}

/// A body that is being received. It counts until this is dropped.
#[derive(Debug)]
pub(super) struct PartialBody {
    budget: Option<BodyBudget>,
    bytes: Vec<u8>,
}

/// The bodies of a connection would take more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverBudget {
    pub(super) max: usize,
}

// ===== impl BodyBudget =====

impl BodyBudget {
    /// So many bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, left: AtomicUsize::new(max) }))
    }

    fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        let Shared { max, left } = &*self.0;
        let take = |left: usize| left.checked_sub(bytes);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| ()).map_err(|_| OverBudget { max: *max })
    }
}

// ===== impl PartialBody =====

impl PartialBody {
    /// Nothing yet. Without a budget it is the only body of its connection.
    pub(super) fn begin(budget: Option<BodyBudget>) -> Self {
        Self { budget, bytes: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a frame. It is copied, because a frame of one byte would keep the memory of a whole read.
    ///
    /// # Errors
    /// It is more than the budget has left.
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<(), OverBudget> {
        if let Some(budget) = &self.budget {
            budget.take(frame.len())?;
        }
        self.bytes.extend_from_slice(frame);
        Ok(())
    }

    /// The bytes so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PartialBody {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.0.left.fetch_add(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_what_their_connection_has() {
        let budget = BodyBudget::new(10);
        let body = || PartialBody::begin(Some(budget.clone()));
        let (mut first, mut second) = (body(), body());
        assert_eq!(first.push(b"123456"), Ok(()));
        assert_eq!(second.push(b"12345"), Err(OverBudget { max: 10 }));
        assert_eq!(second.push(b"1234"), Ok(()), "what was refused is not counted");
        assert_eq!(first.push(b"7"), Err(OverBudget { max: 10 }));
        assert_eq!((first.bytes(), second.len()), (&b"123456"[..], 4));
        drop(first);
        assert_eq!(second.push(b"567890"), Ok(()), "a body that ended is not counted");
        drop(second);
        assert_eq!(body().push(&[0; 10]), Ok(()));
        assert_eq!(PartialBody::begin(None).push(&[0; 100]), Ok(()));
    }
}
