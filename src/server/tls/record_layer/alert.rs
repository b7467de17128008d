//! Alerts (RFC 8446, 6).

use std::fmt;

use super::Received;

/// An alert that this side sends (RFC 8446, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    IllegalParameter = 47,
    DecodeError = 50,
}

/// Any alert ends the connection: close_notify and user_canceled by their meaning, the others are errors (RFC 8446, 6).
pub(super) fn receive(content: &[u8]) -> Result<Received, Alert> {
    match content.len() {
        // RFC 8446, 5.4.
        0 => Err(Alert::UnexpectedMessage),
        // RFC 8446, 5.1: neither in pieces nor several.
        2 => Ok(Received::Closed),
        _ => Err(Alert::DecodeError),
    }
}

// ===== impl Alert =====

impl Alert {
    /// Its level, warning for an end and fatal for an error, and its description (RFC 8446, 6).
    pub(super) fn to_bytes(self) -> [u8; 2] {
        let level = if self == Self::CloseNotify { 1 } else { 2 };
        [level, self as u8]
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloseNotify => "close_notify",
            Self::UnexpectedMessage => "unexpected_message",
            Self::BadRecordMac => "bad_record_mac",
            Self::RecordOverflow => "record_overflow",
            Self::IllegalParameter => "illegal_parameter",
            Self::DecodeError => "decode_error",
        })
    }
}
