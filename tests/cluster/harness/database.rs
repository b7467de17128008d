//! The database of the application: a version for every key of every org. It decides what a browser may lack.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys are `k0`, `k1`…, orgs `org0`, `org1`….
pub(crate) struct Database {
    orgs: Vec<Org>,
}

struct Org {
    name: String,
    rows: Mutex<Vec<Row>>,
}

#[derive(Clone, Copy, Default)]
struct Row {
    version: u64,
    /// The newest version whose publish was answered 202.
    acknowledged: u64,
}

// ===== impl Database =====

impl Database {
    pub(crate) fn new(orgs: usize, keys: usize) -> Self {
        let org = |n| Org { name: format!("org{n}"), rows: Mutex::new(vec![Row::default(); keys]) };
        Self { orgs: (0..orgs).map(org).collect() }
    }

    pub(crate) fn orgs(&self) -> usize {
        self.orgs.len()
    }

    pub(crate) fn keys(&self, org: usize) -> usize {
        self.lock(org).len()
    }

    pub(crate) fn name(&self, org: usize) -> &str {
        &self.orgs[org].name
    }

    /// Writes a row, and returns its new version.
    pub(crate) fn update(&self, org: usize, key: usize) -> u64 {
        let row = &mut self.lock(org)[key];
        row.version += 1;
        row.version
    }

    /// The publish of this version was answered 202.
    pub(crate) fn acknowledge(&self, org: usize, key: usize, version: u64) {
        let row = &mut self.lock(org)[key];
        row.acknowledged = row.acknowledged.max(version);
    }

    pub(crate) fn read(&self, org: usize, key: usize) -> u64 {
        self.lock(org)[key].version
    }

    pub(crate) fn read_all(&self, org: usize) -> Vec<u64> {
        self.lock(org).iter().map(|row| row.version).collect()
    }

    /// Keys of which a browser with these versions lacks an acknowledged one.
    pub(crate) fn lacks(&self, org: usize, held: &[u64]) -> Vec<String> {
        let rows = self.lock(org);
        let rows = rows.iter().zip(held).enumerate();
        let stale = rows.filter(|(_, (row, held))| **held < row.acknowledged);
        stale.map(|(n, (row, held))| format!("k{n} at {held} of {}", row.acknowledged)).collect()
    }

    fn lock(&self, org: usize) -> MutexGuard<'_, Vec<Row>> {
        self.orgs[org].rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
