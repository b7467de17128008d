//! The bytes of the specification (doc/proxy-protocol.txt of HAProxy, 2026-08-21), section by section.

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n";

/// A header with this command and family, and so many bytes after the sixteenth as `rest` has.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

/// 192.0.2.1:4711 to 198.51.100.2:443.
const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 0x01, 0xBB];

/// [2001:db8::1]:4711 to [2001:db8::2]:443.
fn v6() -> Vec<u8> {
    let [one, other] = ["2001:db8::1", "2001:db8::2"]
        .map(|text| text.parse::<Ipv6Addr>().expect("an address").octets());
    [&one[..], &other, &V4[8..]].concat()
}

fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a length").to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// What a connection that begins with this header, and goes on with a request, comes to. It is the same however much of
/// the request has arrived, and open until the whole header has.
fn parsed(header: &[u8]) -> Result<Option<IpAddr>, HeaderRefusal> {
    let all = [header, REQUEST].concat();
    let parsed = parse(&all).map(|parsed| parsed.expect("all of it is there"));
    let needed = parsed.map_or(FIXED, |parsed| parsed.length);
    for length in 0..all.len() {
        match parse(&all[..length]) {
            Ok(None) => assert!(length < header.len(), "{length} of {header:?}"),
            Ok(Some(early)) => assert_eq!((Ok(early), true), (parsed, length >= needed)),
            Err(why) => assert_eq!(Err(why), parsed, "{length} of {header:?}"),
        }
    }
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.length, header.len(), "what follows is not read");
    }
    parsed.map(|parsed| parsed.client)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_stream_of_ip_has_the_address_of_its_client() {
    // 2.2: \x11, TCP over IPv4, and \x21, TCP over IPv6.
    let bytes = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
        \xC0\x00\x02\x01\xC6\x33\x64\x02\x12\x67\x01\xBB";
    assert_eq!(header(0x21, 0x11, V4), bytes);
    assert_eq!(parsed(bytes), Ok(Some(address("192.0.2.1"))));
    let bytes = header(0x21, 0x21, &v6());
    assert_eq!(bytes.len(), 52);
    assert_eq!(parsed(&bytes), Ok(Some(address("2001:db8::1"))));
}

#[test]
fn an_ipv4_address_within_ipv6_is_the_ipv4_address() {
    let mut addresses = v6();
    addresses[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]);
    assert_eq!(parsed(&header(0x21, 0x21, &addresses)), Ok(Some(address("192.0.2.1"))));
}

/// "The receiver must accept this connection as valid and must use the real connection endpoints and discard the protocol
/// block including the family which is ignored."
#[test]
fn a_connection_of_the_proxys_own_keeps_its_peer() {
    for (family, rest) in [(0, &b""[..]), (0x11, V4), (0xFF, V4), (0x11, b"\x01\xFF"), (0, REQUEST)]
    {
        assert_eq!(parsed(&header(0x20, family, rest)), Ok(None), "{family} {rest:?}");
    }
}

/// "Only the UNSPEC protocol byte (\x00) is mandatory to implement … provided that it automatically falls back to the
/// UNSPEC mode for the valid combinations above that it does not support."
#[test]
fn what_is_no_stream_of_ip_keeps_its_peer() {
    let unix = [0; 216];
    for (family, rest) in [
        (0x00, &b""[..]),
        (0x00, V4),
        (0x12, V4),
        (0x22, &v6()),
        (0x31, &unix),
        (0x32, &unix),
        (0x01, b""),
        (0x10, V4),
        (0x20, b"short"),
    ] {
        assert_eq!(parsed(&header(0x21, family, rest)), Ok(None), "{family:x}");
    }
}

#[test]
fn other_versions_commands_families_and_protocols_are_refused() {
    let malformed = Err(HeaderRefusal::Malformed);
    for version in (0..=0xF_u8).filter(|version| *version != 2) {
        assert_eq!(parsed(&header(version << 4 | 1, 0x11, V4)), malformed, "{version}");
    }
    for command in 2..=0xF {
        assert_eq!(parsed(&header(0x20 | command, 0x11, V4)), malformed, "{command}");
    }
    for family in 4..=0xF_u8 {
        assert_eq!(parsed(&header(0x21, family << 4 | 1, V4)), malformed, "{family}");
    }
    for protocol in 3..=0xF {
        assert_eq!(parsed(&header(0x21, 0x10 | protocol, V4)), malformed, "{protocol}");
    }
}

#[test]
fn addresses_that_do_not_fit_are_refused() {
    let v6 = v6();
    for (family, addresses) in [(0x11, V4), (0x21, &v6)] {
        for length in 0..addresses.len() {
            let short = header(0x21, family, &addresses[..length]);
            assert_eq!(parsed(&short), Err(HeaderRefusal::Malformed), "{length}");
        }
    }
}

/// Those of section 2.2.1 to 2.2.8, which are skipped.
#[test]
fn vectors_are_skipped() {
    let tls = [&[1, 0, 0, 0, 0][..], &vector(0x21, b"TLSv1.3"), &vector(0x22, b"example")].concat();
    let vectors = [
        vector(1, b"h2"),
        vector(2, b"example.com"),
        vector(4, b""),
        vector(5, &[7; 128]),
        vector(0x20, &tls),
        vector(0x30, b"blue"),
        vector(0xEA, b"\x01vpce-08d2bf15fac5001c9"),
    ];
    for count in 0..=vectors.len() {
        let rest = [V4, &vectors[..count].concat()].concat();
        assert_eq!(parsed(&header(0x21, 0x11, &rest)), Ok(Some(address("192.0.2.1"))), "{count}");
    }
}

#[test]
fn vectors_that_do_not_fit_are_refused() {
    for vectors in
        [&b"\x01"[..], b"\x01\x00", b"\x01\x00\x01", b"\x04\x00\x00\xFF", b"\x01\xFF\xFF"]
    {
        let bytes = header(0x21, 0x11, &[V4, vectors].concat());
        assert_eq!(parsed(&bytes), Err(HeaderRefusal::Malformed), "{vectors:?}");
    }
}

/// 2.2.3; `tests/it` has one of HAProxy.
#[test]
fn a_checksum_has_to_be_right_and_single() {
    let rest = |sum: [u8; 4]| [V4, &vector(5, b"id"), &vector(3, &sum), &vector(4, b"x")].concat();
    let right = 0x1998_D3B9_u32.to_be_bytes();
    assert_eq!(parsed(&header(0x21, 0x11, &rest(right))), Ok(Some(address("192.0.2.1"))));
    for bit in 0..32 {
        let wrong = (u32::from_be_bytes(right) ^ (1 << bit)).to_be_bytes();
        assert_eq!(parsed(&header(0x21, 0x11, &rest(wrong))), Err(HeaderRefusal::Malformed));
    }
    let mut other = header(0x21, 0x11, &rest(right));
    other[16] ^= 1;
    assert_eq!(parsed(&other), Err(HeaderRefusal::Malformed), "of other bytes");
    for sums in [[vector(3, b"abc"), vector(3, b"")].concat(), vector(3, &[0; 4]).repeat(2)] {
        let bytes = header(0x21, 0x11, &[V4, &sums].concat());
        assert_eq!(parsed(&bytes), Err(HeaderRefusal::Malformed), "{sums:?}");
    }
}

#[test]
fn a_header_has_a_length_that_is_limited() {
    let fill = PROXY_HEADER_BYTES_MAX - FIXED - V4.len() - 3;
    let most = header(0x21, 0x11, &[V4, &vector(4, &vec![0; fill])].concat());
    assert_eq!(most.len(), PROXY_HEADER_BYTES_MAX);
    assert_eq!(parsed(&most), Ok(Some(address("192.0.2.1"))));
    for length in [PROXY_HEADER_BYTES_MAX - FIXED + 1, 0xFFFF] {
        for command in [0x20, 0x21] {
            let length = u16::try_from(length).expect("a length").to_be_bytes();
            let bytes = [&SIGNATURE[..], &[command, 0x11], &length].concat();
            assert_eq!(parse(&bytes), Err(HeaderRefusal::Oversized), "before it arrives");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_at_its_first_other_byte() {
    for at in 0..SIGNATURE.len() {
        let mut bytes = SIGNATURE;
        bytes[at] ^= 1;
        assert_eq!(parse(&bytes[..at]), Ok(None));
        assert_eq!(parse(&bytes[..=at]), Err(HeaderRefusal::Missing), "{at}");
    }
    for bytes in [REQUEST, b"\x16\x03\x01\x02\x00", b"POST /", b"PRI * HTTP/2.0", b"\r\nGET"] {
        assert_eq!(parse(bytes), Err(HeaderRefusal::Missing), "{bytes:?}");
    }
}

#[test]
fn version_1_is_recognised() {
    let bytes = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n";
    for length in 0..bytes.len() {
        let due = if length < 5 { Ok(None) } else { Err(HeaderRefusal::Version1) };
        assert_eq!(parse(&bytes[..length]), due);
    }
}
