//! The PROXY protocol, version 2 (HAProxy's doc/proxy-protocol.txt): the header with which a proxy begins a connection,
//! and which names its client. Bytes in, result out.

mod receive;
pub(in crate::server) mod task;
#[cfg(all(test, not(nudged_loom)))]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crc::{CRC_32_ISCSI, Crc};

use crate::config::PROXY_HEADER_BYTES_MAX;
use crate::metrics::HeaderRefusal;

pub(crate) use self::receive::{HeaderState, Received};

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of its bytes. What follows is not part of it.
    pub(crate) length: usize,
    /// The address of the client; `None` where the connection is the proxy's own (LOCAL), or where the header has no address
    /// of IPv4 or IPv6: then it is the peer's that counts (section 2.2).
    pub(crate) client: Option<IpAddr>,
}

/// How a header begins. Neither a request nor a TLS record does.
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// How a header of version 1 begins.
const VERSION_1: &[u8] = b"PROXY";

/// The signature, version and command, family and protocol, and the number of the bytes that follow.
const FIXED: usize = 16;

/// The protocol in the lower half of the fourteenth byte. Without a stream, or a family of IP above it, there is no
/// address that could be used.
const STREAM: u8 = 1;
const FAMILIES: u8 = 3;
const PROTOCOLS: u8 = 2;

/// The type of the checksum.
const CHECKSUM: u8 = 3;

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The header at the start of these bytes, which are all that have arrived; `None` if the rest is yet to come.
///
/// # Errors
/// [`HeaderRefusal`]: they are not, and will not become, a header that is accepted.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderRefusal> {
    let Some(fixed) = fixed(bytes)? else { return Ok(None) };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0F);
    if version != 2 || command > 1 {
        return Err(HeaderRefusal::Malformed);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(HeaderRefusal::Oversized);
    }
    // The family of a connection of the proxy's own is ignored.
    let is_local = command == 0;
    let (family, protocol) = (fixed[13] >> 4, fixed[13] & 0x0F);
    if !is_local && (family > FAMILIES || protocol > PROTOCOLS) {
        return Err(HeaderRefusal::Malformed);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let client = match (family, protocol) {
        _ if is_local => None,
        (1, STREAM) => Some(address::<4, 12>(header).map(|octets| Ipv4Addr::from(octets).into())?),
        (2, STREAM) => Some(address::<16, 36>(header).map(|octets| Ipv6Addr::from(octets).into())?),
        _ => None,
    };
    Ok(Some(Header { length, client: client.as_ref().map(IpAddr::to_canonical) }))
}

/// The part that every header has.
fn fixed(bytes: &[u8]) -> Result<Option<&[u8; FIXED]>, HeaderRefusal> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(byte, due)| byte == due);
    if begins(&SIGNATURE) {
        return Ok(bytes.first_chunk());
    }
    match begins(VERSION_1) {
        true if bytes.len() < VERSION_1.len() => Ok(None),
        true => Err(HeaderRefusal::Version1),
        false => Err(HeaderRefusal::Missing),
    }
}

/// The first address of a header, whose addresses and ports have `BLOCK` bytes, and whose vectors are well-formed.
fn address<const OCTETS: usize, const BLOCK: usize>(
    header: &[u8],
) -> Result<[u8; OCTETS], HeaderRefusal> {
    let vectors = header[FIXED..].get(BLOCK..).ok_or(HeaderRefusal::Malformed)?;
    let checksum = checksum_at(vectors)?.map(|at| FIXED + BLOCK + at);
    if let Some(at) = checksum
        && checksum_of(header, at).to_be_bytes() != header[at..at + 4]
    {
        return Err(HeaderRefusal::Malformed);
    }
    Ok(*header[FIXED..].first_chunk().expect("the block is longer"))
}

/// The checksum of a header, in which its value, at this place, counts as zeros.
fn checksum_of(header: &[u8], at: usize) -> u32 {
    let mut checksum = CRC32C.digest();
    for part in [&header[..at], &[0; 4], &header[at + 4..]] {
        checksum.update(part);
    }
    checksum.finalize()
}

/// Where the value of the checksum is in these vectors (type, length, value), if there is one. The others are skipped.
fn checksum_at(vectors: &[u8]) -> Result<Option<usize>, HeaderRefusal> {
    let (mut at, mut checksum) = (0, None);
    while let Some(rest) = vectors.get(at..).filter(|rest| !rest.is_empty()) {
        let [kind, high, low] = *rest.first_chunk().ok_or(HeaderRefusal::Malformed)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        at += 3;
        if kind == CHECKSUM && (length != 4 || checksum.replace(at).is_some()) {
            return Err(HeaderRefusal::Malformed);
        }
        at += length;
    }
    if at == vectors.len() { Ok(checksum) } else { Err(HeaderRefusal::Malformed) }
}
