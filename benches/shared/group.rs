//! The processes of a group: a server and those that have replaced it.

use std::{fs, io};

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

struct Stat {
    name: String,
    is_running: bool,
    group: i32,
}

pub(crate) fn members(group: i32) -> Vec<Member> {
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = stat(pid).ok().filter(|stat| stat.is_running && stat.group == group)?;
        Some(Member { pid, name: stat.name })
    });
    all.collect()
}

/// One that has ended does not run, even if its parent has not waited for it.
pub(crate) fn is_running(pid: u32) -> bool {
    stat(pid).is_ok_and(|stat| stat.is_running)
}

/// `proc_pid_stat(5)`.
fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (name, rest) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let fields: Vec<_> = rest.split(' ').collect();
    let [state, _, group, ..] = fields[..] else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(Stat {
        name: name.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default(),
        is_running: !["Z", "X"].contains(&state),
        group: group.parse().map_err(io::Error::other)?,
    })
}
