//! The checksum of a header (RFC 4960, appendix B).

/// Its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc32c(u32);

/// What each byte comes to.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut remainder, mut bit) = (byte as u32, 0);
        while bit < 8 {
            // The polynomial, its bits in reverse.
            remainder = (remainder >> 1) ^ ((remainder & 1) * 0x82F6_3B78);
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
}

// ===== impl Crc32c =====

impl Crc32c {
    /// Of these parts, one after the other.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let bytes = parts.iter().copied().flatten();
        let remainder = bytes.fold(!0_u32, |remainder, byte| {
            (remainder >> 8) ^ TABLE[usize::from(remainder as u8 ^ byte)]
        });
        Self(!remainder)
    }

    /// As a header has it.
    pub(super) fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, and the check value that catalogues of checksums have.
    #[test]
    fn the_checksums_are_those_of_the_rfc() {
        let counting: Vec<u8> = (0..32).collect();
        let backwards: Vec<u8> = (0..32).rev().collect();
        for (bytes, sum) in [
            (&[][..], 0),
            (b"123456789", 0xE306_9283),
            (&[0; 32], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&counting, 0x46DD_794E),
            (&backwards, 0x113F_DB5C),
        ] {
            assert_eq!(Crc32c::of(&[bytes]), Crc32c(sum), "{bytes:?}");
            let (one, other) = bytes.split_at(bytes.len() / 3);
            assert_eq!(Crc32c::of(&[one, other]), Crc32c(sum), "{bytes:?}");
        }
    }
}
