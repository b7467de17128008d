//! Percent-encoding (RFC 3986, 2.1), as a URL may have it.

/// Whether each `%` stands before two hexadecimal digits. Where one does not, it is not certain what was meant.
pub(super) fn is_encoded(text: &str) -> bool {
    let is_digit = |digit: &u8| digit.is_ascii_hexdigit();
    let mut parts = text.split('%').skip(1);
    parts.all(|part| part.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(is_digit)))
}
