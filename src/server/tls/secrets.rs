//! The first traffic secrets of a TLS 1.3 session (RFC 8446, 7.1). rustls gives them to a [`KeyLog`] only, while it
//! processes a hello; from its sessions only the keys can be had, and no key update can be derived from these.

use std::cell::RefCell;
use std::fmt;

use rustls::KeyLog;
use zeroize::Zeroize as _;

/// A traffic secret: as many bytes as a hash of its suite.
pub(crate) struct Secret {
    bytes: [u8; SECRET_BYTES_MAX],
    length: u8,
}

/// `client_application_traffic_secret_0` and `server_application_traffic_secret_0` of one session.
#[derive(Debug, Default)]
pub(crate) struct TrafficSecrets {
    pub(super) client: Secret,
    pub(super) server: Secret,
}

/// Stores the traffic secrets that are derived within [`catching`], and nothing else.
#[derive(Debug)]
pub(crate) struct SecretLog;

/// What [`SecretLog`] may store on this thread.
enum Slot {
    Shut,
    Open(Option<Box<TrafficSecrets>>),
}

/// Shuts the slot, also if what runs meanwhile panics.
struct Opened;

/// The bytes of the longest secret: a SHA-384.
pub(super) const SECRET_BYTES_MAX: usize = 48;

// The names of both in a key log.
const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

thread_local! {
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Shut) };
}

/// Runs `act`, which has one session process packets, and returns the traffic secrets that the session derived in it.
/// It derives both of them at once, and once.
pub(crate) fn catching<T>(act: impl FnOnce() -> T) -> (T, Option<Box<TrafficSecrets>>) {
    let opened = Opened::open();
    let done = act();
    let caught = opened.take().filter(|secrets| secrets.are_both_there());
    (done, caught)
}

// ===== impl SecretLog =====

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // Without access, which only the end of the thread prevents, the session stays with rustls.
        _ = SLOT.try_with(|slot| {
            if let Slot::Open(caught) = &mut *slot.borrow_mut() {
                let caught = caught.get_or_insert_default();
                match label {
                    CLIENT => caught.client.set(secret),
                    SERVER => caught.server.set(secret),
                    _ => {}
                }
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

// ===== impl Opened =====

impl Opened {
    fn open() -> Self {
        SLOT.set(Slot::Open(None));
        Self
    }

    fn take(self) -> Option<Box<TrafficSecrets>> {
        match SLOT.replace(Slot::Shut) {
            Slot::Open(caught) => caught,
            Slot::Shut => None,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        SLOT.set(Slot::Shut);
    }
}

// ===== impl TrafficSecrets =====

impl TrafficSecrets {
    fn are_both_there(&self) -> bool {
        self.client.length > 0 && self.server.length > 0
    }
}

// ===== impl Secret =====

impl Secret {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Stores a secret. One that no suite has is not stored.
    fn set(&mut self, secret: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(..secret.len()) {
            bytes.copy_from_slice(secret);
            self.length = secret.len() as u8;
        }
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self { bytes: [0; SECRET_BYTES_MAX], length: 0 }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.length)
    }
}
