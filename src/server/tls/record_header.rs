//! The header of a TLS record (RFC 8446, 5.1): where the next one begins.

/// Bytes of a header: the type, two of a version, two of a length.
pub(super) const HEADER_BYTES: usize = 5;

/// The longest fragment of a record, in bytes. One of TLS 1.2 may be expanded by 2,048 bytes (RFC 5246, 6.2.3); rustls
/// decides whether it may here.
const FRAGMENT_BYTES_MAX: usize = (1 << 14) + 2_048;

/// The types of records (RFC 8446, B.1; RFC 6520): change_cipher_spec, alert, handshake, application_data, heartbeat.
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;

/// Bytes of the record that begins so, its header included; `None` if none does, which rustls finds from the header.
pub(super) fn record_bytes(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let [kind, major, _, high, low] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_record = TYPES.contains(&kind) && major == 3 && length < FRAGMENT_BYTES_MAX;
    is_record.then_some(HEADER_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_ends_where_its_header_says() {
        assert_eq!(record_bytes(&[22, 3, 1, 0, 1]), Some(6));
        assert_eq!(record_bytes(&[23, 3, 3, 0, 0]), Some(5));
        assert_eq!(record_bytes(&[24, 3, 3, 0x47, 0xff]), Some(5 + 18_431));
        for no_record in [[19, 3, 3, 0, 1], [25, 3, 3, 0, 1], [22, 2, 0, 0, 1], [23, 3, 3, 0x48, 0]]
        {
            assert_eq!(record_bytes(&no_record), None, "{no_record:?}");
        }
    }
}
