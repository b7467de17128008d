//! The log of traffic secrets that TLS libraries write for analysers of network traffic (`SSLKEYLOGFILE`).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

/// The log of a client. Clones are not needed: it is shared.
#[derive(Debug)]
pub(super) enum KeyLog {
    /// Of a program, which appends to this file.
    File(PathBuf),
    /// Of rustls in this process.
    Memory(Mutex<String>),
}

// ===== impl KeyLog =====

impl KeyLog {
    pub(super) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// The secret with this label of the connection whose ClientHello has this random value.
    pub(super) fn secret(&self, label: &str, client_random: &[u8]) -> Option<Vec<u8>> {
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path).unwrap_or_default(),
            Self::Memory(text) => text.lock().expect("no panic").clone(),
        };
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let begin = format!("{label} {} ", hex(client_random));
        let line = whole.lines().find_map(|line| line.strip_prefix(&begin))?;
        Some(bytes(line.trim()))
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Self::Memory(text) = self {
            let mut text = text.lock().expect("no panic");
            writeln!(text, "{label} {} {}", hex(client_random), hex(secret)).expect("memory");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}
