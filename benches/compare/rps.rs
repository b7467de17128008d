//! `rps_cpus` of a network interface: the processors that handle what it has received (receive packet steering;
//! `Documentation/networking/scaling.rst` of Linux).

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The settings of all receive queues of an interface, each with its value before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Queues(Vec<(PathBuf, String)>);

/// The queues of loopback.
pub(crate) const LOOPBACK: &str = "/sys/class/net/lo/queues";

/// What [`hold`] prints when the setting is made.
pub(crate) const HELD: &str = "held";

const FILE: &str = "rps_cpus";
const UNUSED: &str = "0";
/// Processors of each group of digits.
const GROUP: usize = 32;

/// Sets the processors of all queues in `folder`, prints [`HELD`] or why that is impossible, and waits for the end of
/// `until`. Then every queue has its value from before.
pub(crate) fn hold(
    folder: &Path,
    mask: &str,
    mut out: impl Write,
    mut until: impl Read,
) -> io::Result<()> {
    let queues = match Queues::find(folder).and_then(|queues| queues.set(mask).map(|()| queues)) {
        Ok(queues) => queues,
        Err(why) => return writeln!(out, "{why}"),
    };
    let waited = writeln!(out, "{HELD}")
        .and_then(|()| out.flush())
        .and_then(|()| until.read_to_end(&mut Vec::new()));
    queues.restore()?;
    waited.map(drop)
}

/// Sets all queues in `folder` back to 0, which they had before whatever [`hold`] has set.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    files(folder)?.iter().try_for_each(|file| write(file, UNUSED))
}

/// The value for these processors: hexadecimal digits, in groups that commas separate.
pub(crate) fn mask(processors: impl IntoIterator<Item = usize>) -> String {
    let mut groups = vec![0_u32];
    for processor in processors {
        let group = processor / GROUP;
        groups.resize(groups.len().max(group + 1), 0);
        groups[group] |= 1 << (processor % GROUP);
    }
    let rest = groups.iter().rev().skip(1).map(|group| format!(",{group:08x}"));
    let last = groups.last().map_or(String::new(), |group| format!("{group:x}"));
    last + &rest.collect::<String>()
}

// ===== impl Queues =====

impl Queues {
    /// Fails unless there is one, and the setting of each is unused: with what another program set, every figure
    /// would be one of steered packets, and that program may restore it in between.
    fn find(folder: &Path) -> io::Result<Self> {
        let mut queues = Vec::new();
        for file in files(folder)? {
            let value = fs::read_to_string(&file).map_err(|why| named(&file, &why))?;
            let value = value.trim().to_owned();
            if value.contains(|digit| !matches!(digit, '0' | ',')) {
                let why = format!("{} is {value} already, not {UNUSED}", file.display());
                return Err(io::Error::other(why));
            }
            queues.push((file, value));
        }
        match queues.is_empty() {
            true => Err(io::Error::other(format!("no queue in {} has {FILE}", folder.display()))),
            false => Ok(Self(queues)),
        }
    }

    /// Restores all of them if one cannot be set.
    fn set(&self, mask: &str) -> io::Result<()> {
        let set = |(file, _): &(PathBuf, String)| write(file, mask);
        self.0.iter().try_for_each(set).inspect_err(|_| _ = self.restore())
    }

    /// Tries every queue, and returns the last error.
    fn restore(&self) -> io::Result<()> {
        let mut restored = Ok(());
        for (file, value) in &self.0 {
            if let Err(why) = write(file, value) {
                restored = Err(why);
            }
        }
        restored
    }
}

/// The settings of an interface, in their order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let queues = fs::read_dir(folder).map_err(|why| named(folder, &why))?;
    let files = queues.map(|queue| Ok(queue?.path().join(FILE)));
    let mut files: Vec<_> = files.collect::<io::Result<_>>()?;
    files.retain(|file| file.exists());
    files.sort();
    Ok(files)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Not `fs::write`, which would create it; and in one piece, because each write(2) is a setting of its own.
    let opened = fs::OpenOptions::new().write(true).truncate(true).open(file);
    let line = format!("{value}\n");
    opened.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|why| named(file, &why))
}

fn named(file: &Path, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{}: {why}", file.display()))
}
