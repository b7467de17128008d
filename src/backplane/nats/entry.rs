//! Records as messages. The header `Nudged: 1 lines 0123456789abcdef` has the version of the format, the kind and the
//! tag; a message without it is a record by another program.

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;

use super::stream::POSITION_MAX;
use crate::backplane::broker::{Entry, Kind, Record, VERSION};

/// The name of the header.
pub(super) const HEADER: &str = "Nudged";

/// Where a message was in its stream, and in what a consumer delivered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) position: u64,
    /// The number of the delivery, from 1.
    pub(super) number: u64,
    /// When it was stored, in ns, by the broker's clock.
    pub(super) stored_ns: u64,
}

pub(super) fn header_of(record: &Record) -> String {
    format!("{VERSION} {} {:016x}", record.kind.name(), record.tag)
}

/// The record of a message. `stored_ns` is when it was stored.
pub(super) fn entry(
    headers: Option<&HeaderMap>,
    payload: &[u8],
    position: u64,
    stored_ns: u64,
) -> Entry {
    // A static name is not copied, as text would be for each record.
    let name = HeaderName::from_static(HEADER);
    let (version, kind, tag) = match headers.and_then(|headers| headers.get(name)) {
        Some(value) => parse(value.as_str()),
        None => (VERSION, Some(Kind::Lines), None),
    };
    Entry {
        position,
        tag: tag.unwrap_or(stored_ns),
        version,
        kind,
        // What was read is a slice of a buffer with headers, and would keep all of that.
        payload: Bytes::copy_from_slice(payload),
    }
}

/// Version, kind and tag. A header that is none of ours has version 0, which nothing has.
fn parse(header: &str) -> (u32, Option<Kind>, Option<u64>) {
    let mut fields = header.split_ascii_whitespace();
    let version = fields.next().and_then(|version| version.parse().ok()).unwrap_or(0);
    let kind = fields.next().and_then(Kind::of);
    let tag =
        fields.next().filter(|tag| tag.len() == 16 && tag.bytes().all(|b| b.is_ascii_hexdigit()));
    let tag = tag.and_then(|tag| u64::from_str_radix(tag, 16).ok()).filter(|tag| *tag != 0);
    (version, kind, tag)
}

// ===== impl Delivery =====

impl Delivery {
    /// Reads the subject for acknowledgements, which is documented:
    /// `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERED.POSITION.NUMBER.TIME.PENDING[.TOKEN]`.
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let fields = reply.strip_prefix("$JS.ACK.")?;
        let skipped = if fields.bytes().filter(|b| *b == b'.').count() > 6 { 5 } else { 3 };
        let mut fields = fields.split('.').skip(skipped).map(str::parse);
        let mut next = || fields.next()?.ok();
        let position = next().filter(|position| (1..=POSITION_MAX).contains(position))?;
        Some(Self { position, number: next()?, stored_ns: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_in_the_subject_of_its_acknowledgement() {
        let delivery = Some(Delivery { position: 42, number: 7, stored_ns: 1_795_890_087_151_202 });
        let tail = "1.42.7.1795890087151202.0";
        for reply in [
            format!("$JS.ACK.log.c.{tail}"),
            format!("$JS.ACK.domain.account.log.c.{tail}"),
            format!("$JS.ACK.domain.account.log.c.{tail}.token"),
        ] {
            assert_eq!(Delivery::parse(&reply), delivery, "{reply}");
        }
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.log.c.1.x.7.1.0",
            "$JS.ACK.log.c.1.0.7.1.0",
            "$JS.ACK.log",
            "$JS.FC.log.c.x",
        ] {
            assert_eq!(Delivery::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn a_header_has_version_kind_and_tag() {
        let record = Record { tag: 0xab, kind: Kind::Beat, payload: "".into() };
        assert_eq!(parse(&header_of(&record)), (1, Some(Kind::Beat), Some(0xab)));
        assert_eq!(parse("2 lines 00000000000000ff more"), (2, Some(Kind::Lines), Some(0xff)));
        assert_eq!(parse("1 other 00000000000000ff"), (1, None, Some(0xff)));
        for bad in ["", "x", "-1 lines", "99999999999 lines"] {
            assert_eq!(parse(bad).0, 0, "{bad}");
        }
        for tag in ["", "1", "0000000000000000", "+000000000000001", "000000000000000g"] {
            assert_eq!(parse(&format!("1 lines {tag}")).2, None, "{tag}");
        }
    }
}
