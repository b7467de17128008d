//! The socket between the two processes of an upgrade. Its packets are messages with descriptors beside them. Every wait
//! has a deadline; each thread that uses it may block.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    recvmsg, sendmsg, shutdown, socketpair, sockopt,
};
use tokio::time::Instant;

use super::message::{Message, PACKET_MAX};

/// One end of the socket. Threads may share it: a packet is sent and received whole.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
}

/// Why a message was not sent or received.
#[derive(Debug)]
pub(crate) enum ControlError {
    /// The other process has closed its end, or this one was shut down.
    Ended,
    /// Nothing happened until the deadline.
    TimedOut,
    /// Not all of the descriptors of a message could be received.
    DescriptorsLost,
    /// The packet is not one of this protocol, or is longer than it may be.
    Invalid(String),
    /// The other process says that the upgrade will not be.
    Refused(String),
    /// The system's error.
    System(io::Error),
}

/// Descriptors of one packet: the kernel's `SCM_MAX_FD`.
pub(crate) const DESCRIPTORS_MAX: usize = 253;

/// Bytes in which the kernel passes them.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));

/// Delay after which a packet is sent again that was refused because too many descriptors are on their way.
const RETRY: Duration = Duration::from_millis(1);

// ===== impl Control =====

impl Control {
    /// Both ends. Neither is inherited by a program that is started later.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { socket: ours }, other))
    }

    /// The end that another process has passed.
    ///
    /// # Errors
    /// It is no socket of the kind that [`Self::pair`] makes.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let is_ours = sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
            && sockopt::socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX);
        match is_ours {
            true => Ok(Self { socket }),
            false => Err(io::Error::other("it is not the socket of an upgrade")),
        }
    }

    /// Sends a message with at most [`DESCRIPTORS_MAX`] descriptors, of which the other process gets copies.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was sent then.
    pub(crate) fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), ControlError> {
        let packet = message.encode().map_err(ControlError::Invalid)?;
        loop {
            match self.send_packet(&packet, descriptors) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                // The kernel counts those of all processes of this user that have not been received yet.
                Err(Errno::TOOMANYREFS) if Instant::now() < until => thread::sleep(RETRY),
                Err(Errno::TOOMANYREFS) => return Err(ControlError::TimedOut),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(ControlError::Ended);
                }
                Err(why) => return Err(ControlError::System(why.into())),
            }
        }
    }

    fn send_packet(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits =
            descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        if !fits || descriptors.len() > DESCRIPTORS_MAX {
            return Err(Errno::INVAL);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(packet)], &mut ancillary, flags)
    }

    /// The next message that this version knows, with its descriptors.
    ///
    /// # Errors
    /// [`ControlError`]; of a message [`Message::Refused`] too.
    pub(crate) fn receive(&self, until: Instant) -> Result<(Message, Vec<OwnedFd>), ControlError> {
        loop {
            match self.receive_packet()? {
                Some((Some(message), descriptors)) => return Ok((message, descriptors)),
                // A kind that a later version has added, and that may be skipped.
                Some((None, _)) => {}
                None => self.wait(PollFlags::IN, until)?,
            }
        }
    }

    /// Sends nothing more, and receives only what was sent before: from here on the other process cannot send.
    pub(crate) fn shutdown(&self) {
        // It fails only if the other end is gone.
        _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// What was sent before [`Self::shutdown`], without the descriptors, and without what is no message: what matters may
    /// come after it.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Message> {
        let packets = std::iter::from_fn(|| match self.receive_packet() {
            Ok(packet) => packet.map(|(message, _)| message),
            Err(ControlError::Ended | ControlError::TimedOut | ControlError::System(_)) => None,
            // The packet has been taken out.
            Err(
                ControlError::DescriptorsLost | ControlError::Invalid(_) | ControlError::Refused(_),
            ) => Some(None),
        });
        packets.flatten()
    }

    /// The next packet, if there is one; its message unless that may be skipped.
    #[expect(clippy::type_complexity, reason = "a private function")]
    fn receive_packet(&self) -> Result<Option<(Option<Message>, Vec<OwnedFd>)>, ControlError> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut packet = vec![0; PACKET_MAX];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut packet)];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET | Errno::NOTCONN) => return Err(ControlError::Ended),
                Err(why) => return Err(ControlError::System(why.into())),
                Ok(received) => break received,
            }
        };
        let mut descriptors = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ControlError::DescriptorsLost);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            let why = format!("a packet has more than {PACKET_MAX} bytes");
            return Err(ControlError::Invalid(why));
        }
        if received.bytes == 0 {
            return Err(ControlError::Ended);
        }
        let message = Message::decode(&packet[..received.bytes]).map_err(ControlError::Invalid)?;
        match message {
            Some(Message::Refused { why }) => Err(ControlError::Refused(why)),
            message => Ok(Some((message, descriptors))),
        }
    }

    fn wait(&self, events: PollFlags, until: Instant) -> Result<(), ControlError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::TimedOut);
            }
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&self.socket, events)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(why) => return Err(ControlError::System(why.into())),
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// ===== impl ControlError =====

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the other process has ended, or has given the upgrade up"),
            Self::TimedOut => f.write_str("the other process did not answer in time"),
            Self::DescriptorsLost => f.write_str(
                "the limit of open files (RLIMIT_NOFILE) leaves no room for the sockets of the other process",
            ),
            Self::Invalid(why) => write!(f, "what the other process sent is no message: {why}"),
            Self::Refused(why) => f.write_str(why),
            Self::System(why) => write!(f, "the socket between the processes failed: {why}"),
        }
    }
}

impl std::error::Error for ControlError {}
#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::super::memory_file;
    use super::*;

    /// Longer than anything takes here.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn pair() -> (Control, Control) {
        let (one, other) = Control::pair().expect("a pair");
        (one, Control::new(other).expect("the other end"))
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = pair();
        let mut file = memory_file::create().expect("a file");
        file.write_all(b"a long record").expect("memory");
        one.send(&Message::Hub { lanes: 1 }, &[file.as_fd()], soon()).expect("room");
        one.send(&Message::Commit, &[], soon()).expect("room");
        let (message, descriptors) = other.receive(soon()).expect("a message");
        assert_eq!((message, descriptors.len()), (Message::Hub { lanes: 1 }, 1));
        let received = descriptors.into_iter().next().expect("one");
        let flags = rustix::io::fcntl_getfd(&received).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no program inherits it");
        let mut text = String::new();
        let mut file = memory_file::received(received).expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "a long record");
        assert_eq!(other.receive(soon()).expect("a message").0, Message::Commit);
    }

    #[test]
    fn so_many_descriptors_and_no_more_are_in_a_packet() {
        let (one, other) = pair();
        let file = File::open("/dev/null").expect("it exists");
        let many = [file.as_fd(); DESCRIPTORS_MAX + 1];
        let sockets = Message::Sockets { lane: 0 };
        one.send(&sockets, &many[1..], soon()).expect("room");
        assert_eq!(other.receive(soon()).expect("a message").1.len(), DESCRIPTORS_MAX);
        assert!(matches!(one.send(&sockets, &many, soon()), Err(ControlError::System(_))));
    }

    #[test]
    fn every_wait_ends() {
        let (one, other) = pair();
        let now = Instant::now() + Duration::from_millis(20);
        assert!(matches!(one.receive(now), Err(ControlError::TimedOut)));
        let first = vec![0; PACKET_MAX / 2];
        let peer = String::new();
        let (internal, secure, named) = (false, false, None);
        let message = Message::Connection { peer, internal, secure, first, named };
        let mut sent = 0;
        let full = loop {
            match one.send(&message, &[], Instant::now() + Duration::from_millis(20)) {
                Ok(()) if sent < 1_000 => sent += 1,
                end => break end,
            }
        };
        assert!(matches!(full, Err(ControlError::TimedOut)), "after {sent}: {full:?}");
        // What was sent is whole, and there is room again.
        (0..sent).for_each(|_| assert_eq!(other.receive(soon()).expect("sent").0, message));
        one.send(&Message::Commit, &[], soon()).expect("room");
    }

    #[test]
    fn the_end_is_noticed_after_what_was_sent_before() {
        let (one, other) = pair();
        one.send(&Message::Live, &[], soon()).expect("room");
        drop(one);
        assert_eq!(other.receive(soon()).expect("sent").0, Message::Live);
        assert!(matches!(other.receive(soon()), Err(ControlError::Ended)));
        assert!(matches!(other.send(&Message::Live, &[], soon()), Err(ControlError::Ended)));
    }

    #[test]
    fn a_thread_that_waits_notices_a_shutdown() {
        let (one, _other) = pair();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| one.receive(soon()));
            one.shutdown();
            let received = waiting.join().expect("no panic");
            assert!(matches!(received, Err(ControlError::Ended)), "{received:?}");
        });
    }

    /// The failure rule rests on it: what was sent before the shutdown is read, and nothing can be sent after it.
    #[test]
    fn after_a_shutdown_what_was_sent_before_is_read_and_nothing_is_sent() {
        let (old, new) = pair();
        new.send(&Message::Took { count: 1 }, &[], soon()).expect("room");
        new.send(&Message::Live, &[], soon()).expect("room");
        old.shutdown();
        assert!(matches!(new.send(&Message::Live, &[], soon()), Err(ControlError::Ended)));
        let drained: Vec<_> = old.drain().collect();
        assert_eq!(drained, [Message::Took { count: 1 }, Message::Live]);
    }

    /// SCENARIO: a new process sends what is no message, or what comes with descriptors for which this one has no room, and
    /// then becomes live.
    /// BUG: the old process read no further, did not find `Live`, and went on: there were two writers.
    /// FIX: it reads everything that was sent.
    #[test]
    fn what_is_no_message_hides_none_that_was_sent_after_it() {
        let (old, new) = pair();
        rustix::net::send(&new.socket, b"\x82\x18\x7f\x80", SendFlags::empty()).expect("room");
        new.send(&Message::refused("no"), &[], soon()).expect("room");
        new.send(&Message::Live, &[], soon()).expect("room");
        old.shutdown();
        let drained: Vec<_> = old.drain().collect();
        assert_eq!(drained, [Message::Live]);
    }

    #[test]
    fn a_refusal_is_an_error_with_its_reason() {
        let (one, other) = pair();
        one.send(&Message::refused("no room"), &[], soon()).expect("room");
        let refused = other.receive(soon());
        assert!(matches!(&refused, Err(ControlError::Refused(why)) if why == "no room"));
    }

    #[test]
    fn another_packet_is_refused_and_a_kind_that_may_be_skipped_is() {
        let (one, other) = pair();
        one.send_packet(&[0x82, 0x18, 0x80, 0x80], &[]).expect("room");
        one.send(&Message::Ready, &[], soon()).expect("room");
        assert_eq!(other.receive(soon()).expect("a message").0, Message::Ready);
        one.send_packet(b"GET / HTTP/1.1", &[]).expect("room");
        assert!(matches!(other.receive(soon()), Err(ControlError::Invalid(_))));
        one.send_packet(&[0; PACKET_MAX + 1], &[]).expect("room");
        let too_long = other.receive(soon());
        assert!(matches!(&too_long, Err(ControlError::Invalid(why)) if why.contains("65536")));
    }

    #[test]
    fn only_a_socket_of_an_upgrade_is_taken() {
        let file = File::open("/dev/null").expect("it exists");
        assert!(Control::new(file.into()).is_err());
        let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(Control::new(stream.into()).is_err());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(Control::new(listener.into()).is_err());
    }
}
