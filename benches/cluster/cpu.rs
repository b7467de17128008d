//! The processor time of a server with processes of its own, some of which end meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use crate::Outcome;

/// `/proc/PID/stat` counts in hundredths of a second (`USER_HZ`) on every common architecture.
const TICK: Duration = Duration::from_millis(10);

/// Looks at a family until none of it has ended meanwhile.
const LOOKS: usize = 20;

/// What a process and all its descendants have used. It does not decrease when one of them ends.
pub(crate) fn cpu_of_family(process: u32) -> Outcome<Duration> {
    let mut last = look(process)?;
    for _ in 0..LOOKS {
        let next = look(process)?;
        // Else what one has used that ended may be missing, or be counted twice.
        if next.0 == last.0 {
            return Ok(next.1);
        }
        last = next;
    }
    Ok(last.1)
}

/// The processes, and what they have used.
fn look(process: u32) -> Outcome<(BTreeSet<u32>, Duration)> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended.
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may have spaces: state, parent, …
        let Some((_, rest)) = text.rsplit_once(") ") else { continue };
        let fields: Vec<_> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok());
        // Of itself, and of its children that have ended; in user mode and in the kernel each.
        let ticks: u32 = (11..15).filter_map(number).sum();
        all.insert(id, (number(1).unwrap_or_default(), ticks));
    }
    let is_of_family = |mut id: u32| {
        while let Some((parent, _)) = all.get(&id).filter(|_| id != process) {
            id = *parent;
        }
        id == process
    };
    let family: BTreeSet<_> = all.keys().copied().filter(|id| is_of_family(*id)).collect();
    let ticks: u32 = family.iter().map(|id| all[id].1).sum();
    Ok((family, TICK * ticks))
}
