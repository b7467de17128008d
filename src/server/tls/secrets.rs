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
    Closed,
    Open(Option<Box<TrafficSecrets>>),
}

/// Closes the slot when it is dropped, also if what runs meanwhile panics.
struct Opened;

/// The bytes of the longest secret: a SHA-384.
pub(super) const SECRET_BYTES_MAX: usize = 48;

// The names of both in a key log.
const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

thread_local! {
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Closed) };
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
        match SLOT.replace(Slot::Closed) {
            Slot::Open(caught) => caught,
            Slot::Closed => None,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        SLOT.set(Slot::Closed);
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn log(label: &str, secret: &[u8]) {
        SecretLog.log(label, b"random", secret);
    }

    /// What is caught, if these are logged.
    fn caught(secrets: &[(&str, &[u8])]) -> Option<Vec<Vec<u8>>> {
        let (_, caught) =
            catching(|| secrets.iter().for_each(|(label, secret)| log(label, secret)));
        caught.map(|secrets| {
            [&secrets.client, &secrets.server].map(|secret| secret.as_bytes().to_vec()).to_vec()
        })
    }

    #[test]
    fn both_first_traffic_secrets_are_caught_and_no_other() {
        let wanted = Some(vec![vec![1; 32], vec![2; 32]]);
        assert_eq!(caught(&[(CLIENT, &[1; 32]), (SERVER, &[2; 32])]), wanted);
        assert_eq!(caught(&[(SERVER, &[2; 32]), (CLIENT, &[1; 32])]), wanted);
        let others = [("EXPORTER_SECRET", &[3; 32][..]), ("CLIENT_RANDOM", &[4; 48])];
        let secrets = [&[(CLIENT, &[1; 32][..])], &others[..], &[(SERVER, &[2; 32])]].concat();
        assert_eq!(caught(&secrets), wanted);
        assert_eq!(caught(&others), None);
        assert!(SecretLog.will_log(CLIENT) && SecretLog.will_log(SERVER));
        assert!(others.iter().all(|(label, _)| !SecretLog.will_log(label)));
    }

    #[test]
    fn one_of_both_and_one_that_is_too_long_are_nothing() {
        assert_eq!(caught(&[]), None);
        assert_eq!(caught(&[(CLIENT, &[1; 48])]), None);
        assert_eq!(caught(&[(SERVER, &[1; 48])]), None);
        assert_eq!(caught(&[(CLIENT, &[1; 49]), (SERVER, &[2; 48])]), None);
    }

    #[test]
    fn nothing_is_stored_outside_and_nothing_is_left() {
        log(CLIENT, &[1; 32]);
        log(SERVER, &[2; 32]);
        assert_eq!(caught(&[]), None);

        let panics = || {
            catching(|| {
                log(CLIENT, &[1; 32]);
                log(SERVER, &[2; 32]);
                panic!("rustls");
            })
        };
        catch_unwind(AssertUnwindSafe(panics)).expect_err("it panics");
        SLOT.with_borrow(|slot| assert!(matches!(slot, Slot::Closed)));
        // Another session begins with nothing.
        assert_eq!(caught(&[(SERVER, &[2; 32])]), None);
    }

    #[test]
    fn another_thread_stores_nothing_here() {
        let (_, caught) = catching(|| {
            let other = std::thread::spawn(|| {
                log(CLIENT, &[1; 32]);
                log(SERVER, &[2; 32]);
            });
            other.join().expect("no panic");
        });
        assert!(caught.is_none());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let (_, caught) = catching(|| [CLIENT, SERVER].map(|label| log(label, &[0xab; 32])));
        let shown = "TrafficSecrets { client: Secret(32 bytes), server: Secret(32 bytes) }";
        assert_eq!(format!("{:?}", caught.expect("both")), shown);
    }
}
