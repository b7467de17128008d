//! What encoded events cost: their memory is counted from their encoding until the last reference to them is dropped,
//! be it that of a history, of the rest of a cut event, or of a body.

use std::sync::Arc;

use bytes::Bytes;

use crate::sync::{AtomicU64, Ordering};

/// Bytes of memory that are in use.
#[derive(Debug, Default)]
pub(crate) struct MemoryUse(AtomicU64);

/// Bytes that count as long as this exists.
#[derive(Debug)]
pub(crate) struct Counted {
    bytes: usize,
    memory: Arc<MemoryUse>,
}

/// The memory of a frame, which [`Bytes`] share.
struct Owned {
    bytes: Box<[u8]>,
    memory: Option<Arc<MemoryUse>>,
}

/// What [`Bytes`] allocate for their owner: itself, a reference count and a function.
const OWNER: usize = size_of::<Owned>() + 2 * size_of::<usize>();

// ===== impl MemoryUse =====

impl MemoryUse {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Something that cost `before` costs `after` now.
    pub(crate) fn change(&self, before: usize, after: usize) {
        if after >= before {
            self.0.fetch_add((after - before) as u64, Ordering::Relaxed);
        } else {
            self.0.fetch_sub((before - after) as u64, Ordering::Relaxed);
        }
    }
}

// ===== impl Counted =====

impl Counted {
    /// No bytes yet.
    pub(crate) fn new(memory: Arc<MemoryUse>) -> Self {
        Self { bytes: 0, memory }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        self.memory.change(self.bytes, bytes);
        self.bytes = bytes;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where they count.
    pub(crate) fn memory(&self) -> &Arc<MemoryUse> {
        &self.memory
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

// ===== impl Owned =====

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.change(cost(self.bytes.len()), 0);
        }
    }
}

/// Shares these bytes, and counts what they cost. The reference count is allocated here, at the publish, and not at
/// the first delivery.
pub(super) fn share(bytes: Vec<u8>, memory: Option<&Arc<MemoryUse>>) -> Bytes {
    let owned = Owned { bytes: bytes.into(), memory: memory.cloned() };
    if let Some(memory) = memory {
        memory.change(0, cost(owned.bytes.len()));
    }
    Bytes::from_owner(owned)
}

/// What so many bytes cost that are shared.
pub(crate) fn cost(length: usize) -> usize {
    block(length) + block(OWNER)
}

/// What a block of so many bytes costs with the allocator's header and alignment, as in glibc's malloc.
pub(crate) fn block(length: usize) -> usize {
    if length == 0 { 0 } else { (length + 8).next_multiple_of(16).max(32) }
}
