//! Headers of the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::PROXY_HEADER_BYTES_MAX;
use crate::metrics::HeaderRefusal;
use crate::server::proxy_protocol::{Header, SIGNATURE, parse};

type Parsed = Result<Option<Header>, HeaderRefusal>;

/// What connections begin with, after a byte of [`Mode`]: our parser agrees with a naive one on every beginning of it, and
/// what follows a header changes nothing.
pub fn proxy_protocol(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let bytes = Mode::of(*mode).begin(rest);
    let mut decided: Option<Parsed> = None;
    for length in 0..=bytes.len().min(PROXY_HEADER_BYTES_MAX + 100) {
        let begun = &bytes[..length];
        let ours = parse(begun);
        assert_eq!(ours, naive(begun), "{begun:?}");
        if let Some(decided) = decided {
            assert_eq!(ours, decided, "more bytes change nothing: {begun:?}");
        }
        decided = decided.or_else(|| (ours != Ok(None)).then_some(ours));
        if let Ok(Some(Header { length: header, .. })) = ours {
            assert!(header <= length && header <= PROXY_HEADER_BYTES_MAX);
        }
    }
}

/// What is done to the input, so that a fuzzer finds headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Raw,
    /// The signature is put before it.
    Signed,
    /// And its checksums are right.
    Summed,
}

impl Mode {
    fn of(byte: u8) -> Self {
        match byte % 3 {
            0 => Self::Raw,
            1 => Self::Signed,
            _ => Self::Summed,
        }
    }

    fn begin(self, rest: &[u8]) -> Vec<u8> {
        if self == Self::Raw {
            return rest.to_vec();
        }
        let mut bytes = [&SIGNATURE[..], rest].concat();
        if self == Self::Summed {
            let length = bytes.get(14..16).map(|length| 16 + usize::from(length[0]) * 256);
            let length = length.map_or(0, |length| length + usize::from(bytes[15]));
            let block = if bytes.get(13) == Some(&0x21) { 36 } else { 12 };
            if let Some(header) = bytes.get_mut(..length)
                && let Some(at) = checksums(header, 16 + block).first()
                && at + 4 <= length
            {
                header[*at..at + 4].fill(0);
                let sum = checksum(header).to_be_bytes();
                header[*at..at + 4].copy_from_slice(&sum);
            }
        }
        bytes
    }
}

/// The specification, read as simply as possible.
fn naive(bytes: &[u8]) -> Parsed {
    let is_begin_of = |text: &[u8]| bytes.len() < text.len() && text.starts_with(bytes);
    if is_begin_of(&SIGNATURE) || is_begin_of(b"PROXY") {
        return Ok(None);
    }
    if bytes.starts_with(b"PROXY") {
        return Err(HeaderRefusal::Version1);
    }
    if !bytes.starts_with(&SIGNATURE) {
        return Err(HeaderRefusal::Missing);
    }
    if bytes.len() < 16 {
        return Ok(None);
    }
    let malformed = Err(HeaderRefusal::Malformed);
    let length = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    let block = match (bytes[12], bytes[13]) {
        (0x20, _) => None,
        (0x21, 0x11) => Some(12),
        (0x21, 0x21) => Some(36),
        (0x21, family) if family / 16 <= 3 && family % 16 <= 2 => None,
        // Before its length is looked at.
        (0x21, _) if length > PROXY_HEADER_BYTES_MAX => return Err(HeaderRefusal::Oversized),
        _ => return malformed,
    };
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(HeaderRefusal::Oversized);
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let (header, addresses) = (&bytes[..length], &bytes[16..length]);
    let Some(block) = block else { return Ok(Some(Header { length, client: None })) };
    if addresses.len() < block || !is_vectors(&addresses[block..]) {
        return malformed;
    }
    match checksums(header, 16 + block)[..] {
        [] => {}
        [at] if header[at - 2..at] == [0, 4] => {
            let mut zeroed = header.to_vec();
            zeroed[at..at + 4].fill(0);
            if checksum(&zeroed).to_be_bytes() != header[at..at + 4] {
                return malformed;
            }
        }
        _ => return malformed,
    }
    let client = match block {
        12 => IpAddr::from(Ipv4Addr::new(addresses[0], addresses[1], addresses[2], addresses[3])),
        _ => {
            let octets: [u8; 16] = addresses[..16].try_into().expect("16 bytes");
            match Ipv6Addr::from(octets).to_ipv4_mapped() {
                Some(v4) => v4.into(),
                None => Ipv6Addr::from(octets).into(),
            }
        }
    };
    Ok(Some(Header { length, client: Some(client) }))
}

fn is_vectors(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [_, high, low, rest @ ..] => {
            let length = usize::from(*high) * 256 + usize::from(*low);
            rest.len() >= length && is_vectors(&rest[length..])
        }
        _ => false,
    }
}

/// Where the values of the checksums begin in a header whose vectors begin there.
fn checksums(header: &[u8], mut at: usize) -> Vec<usize> {
    let mut found = Vec::new();
    while at + 3 <= header.len() {
        if header[at] == 3 {
            found.push(at + 3);
        }
        at += 3 + usize::from(header[at + 1]) * 256 + usize::from(header[at + 2]);
    }
    found
}

/// The CRC32c, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A vector, often that of a checksum.
    fn vector() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![Just(3_u8), any::<u8>()];
        let value = prop_oneof![Just(vec![0; 4]), vec(any::<u8>(), 0..20)];
        (kind, value, -1_i16..2, 0_u8..10).prop_map(|(kind, value, off, is_wrong)| {
            let length = value.len() as i16 + if is_wrong == 0 { off } else { 0 };
            [&[kind][..], &length.max(0).to_be_bytes(), &value].concat()
        })
    }

    /// Almost a header, and a request.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        let command = prop_oneof![8 => Just(0x21_u8), 2 => Just(0x20), 1 => any::<u8>()];
        let family = prop_oneof![Just(0x11_u8), Just(0x21), 0..0x33_u8, any::<u8>()];
        let addresses =
            prop_oneof![vec(any::<u8>(), 12), vec(any::<u8>(), 36), vec(any::<u8>(), 0..50)];
        let off = prop_oneof![8 => Just(0_i32), 1 => -20..20_i32, 1 => 3_900..70_000_i32];
        (command, family, addresses, vec(vector(), 0..4), off).prop_map(
            |(command, family, addresses, vectors, off)| {
                let rest = [addresses, vectors.concat()].concat();
                let length = (rest.len() as i32 + off).clamp(0, i32::from(u16::MAX)) as u16;
                let fixed = [&[command, family][..], &length.to_be_bytes()].concat();
                [fixed, rest, b"GET / HTTP/1.1\r\n".to_vec()].concat()
            },
        )
    }

    proptest! {
        #[test]
        fn the_parser_agrees_with_a_naive_one(mode in 1_u8..3, header in header()) {
            proxy_protocol(&[&[mode][..], &header].concat());
        }
    }
}
