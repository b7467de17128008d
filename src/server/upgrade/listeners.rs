//! The listening sockets, as the old process keeps and sends them and as the new one receives them. They stay the same
//! sockets, so no connect is refused, and none waits at a socket on which no worker accepts.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::sockopt::socket_cookie;
use tokio::time::Instant;

use super::control::{Control, ControlError, DESCRIPTORS_MAX};
use super::message::{ListeningState, Message, Versions};
use crate::server::ListeningSocket;

/// A listening socket beside those with which the workers accept.
#[derive(Debug)]
pub(crate) struct KeptListener {
    pub(crate) state: ListeningState,
    pub(crate) socket: ListeningSocket,
}

/// The most packets of listening sockets.
const PACKETS_MAX: usize = 1_024;

// ===== impl KeptListener =====

impl KeptListener {
    /// These sockets without those that are there more than once: the workers share what a service manager has opened.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn distinct(all: Vec<Self>) -> io::Result<Vec<Self>> {
        let mut seen = HashSet::new();
        let mut distinct = Vec::new();
        for listener in all {
            if seen.insert(socket_cookie(&listener.socket)?) {
                distinct.push(listener);
            }
        }
        Ok(distinct)
    }

    /// The messages that carry these sockets, at least one.
    pub(super) fn messages<'a>(
        all: &'a [Self],
        build: &str,
        connections: u64,
    ) -> Vec<(Message, Vec<BorrowedFd<'a>>)> {
        let packets = all.len().div_ceil(DESCRIPTORS_MAX).max(1);
        let packet = |index: usize| {
            let some = all.iter().skip(index * DESCRIPTORS_MAX).take(DESCRIPTORS_MAX);
            let message = Message::Listeners {
                versions: Versions::SPOKEN,
                build: build.into(),
                sockets: some.clone().map(|kept| kept.state.clone()).collect(),
                left: u32::try_from(packets - 1 - index).unwrap_or(u32::MAX),
                connections,
            };
            (message, some.map(|kept| kept.socket.as_fd()).collect())
        };
        (0..packets).map(packet).collect()
    }

    /// The sockets that these messages carry, and the build and the connections of the process that sends them.
    ///
    /// # Errors
    /// They do not come in time, or are not what is expected.
    pub(super) fn receive(
        control: &Control,
        until: Instant,
    ) -> Result<(String, u64, Vec<Self>), ControlError> {
        let mut all = Vec::new();
        for _ in 0..PACKETS_MAX {
            let (message, descriptors) = control.receive(until)?;
            let Message::Listeners { versions, build, sockets, left, connections } = message else {
                return Err(invalid(format!("it is not due: {message:?}")));
            };
            if Versions::SPOKEN.common(versions).is_none() {
                return Err(ControlError::Refused(refusal(versions, &build)));
            }
            if sockets.len() != descriptors.len() {
                let (states, sockets) = (sockets.len(), descriptors.len());
                return Err(invalid(format!("{sockets} sockets come with {states} addresses")));
            }
            for (state, socket) in sockets.into_iter().zip(descriptors) {
                let socket = ListeningSocket::try_from(socket).map_err(ControlError::System)?;
                all.push(Self { state, socket });
            }
            if left == 0 {
                return Ok((build, connections, all));
            }
        }
        Err(invalid("there are too many listening sockets".into()))
    }
}

fn refusal(versions: Versions, build: &str) -> String {
    let (ours, Versions { first, last }) = (Versions::SPOKEN, versions);
    format!(
        "the old process ({build}) speaks the versions {first} to {last} of the protocol, this one {} to {}",
        ours.first, ours.last
    )
}

fn invalid(why: String) -> ControlError {
    ControlError::Invalid(why)
}
