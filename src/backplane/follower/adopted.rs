//! The runs of the broker that the servers of a log go by.

/// What the newest barrier, or else the oldest beat that was read, names. Servers that are configured otherwise may go
/// by another kind of identity, which is its first word (`server …`, `stream …`): one of each counts.
#[derive(Debug, Default)]
pub(super) struct Adopted(Vec<String>);

// ===== impl Adopted =====

impl Adopted {
    /// More kinds than there are, but for what others write.
    const KINDS_MAX: usize = 4;

    pub(super) fn is(&self, identity: &str) -> bool {
        self.of_kind(identity).is_some_and(|adopted| adopted == identity)
    }

    /// Whether there is one of its kind.
    pub(super) fn has_kind(&self, identity: &str) -> bool {
        self.of_kind(identity).is_some()
    }

    /// A barrier names it.
    pub(super) fn adopt(&mut self, identity: String) {
        self.0.retain(|adopted| kind(adopted) != kind(&identity));
        if self.0.len() == Self::KINDS_MAX {
            self.0.remove(0);
        }
        self.0.push(identity);
    }

    /// A beat names it.
    pub(super) fn adopt_first(&mut self, identity: String) {
        if !self.has_kind(&identity) {
            self.adopt(identity);
        }
    }

    fn of_kind(&self, identity: &str) -> Option<&String> {
        self.0.iter().find(|adopted| kind(adopted) == kind(identity))
    }
}

fn kind(identity: &str) -> &str {
    identity.split_once(' ').map_or("", |(kind, _)| kind)
}
