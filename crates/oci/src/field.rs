//! Pieces of HTTP field syntax that several headers share (RFC 9110 §5.6).

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Optional whitespace.
pub(crate) const OWS: [char; 2] = [' ', '\t'];

/// Splits at each `separator` outside of quoted strings, and trims the pieces. Empty pieces are left out, as lists may
/// have them (RFC 9110 §5.6.1.2).
pub(crate) fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |character| {
        if escaped {
            escaped = false;
            return false;
        }
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => escaped = true,
            _ => return character == separator && !quoted,
        }
        false
    })
    .map(|piece| piece.trim_matches(OWS))
    .filter(|piece| !piece.is_empty())
}

/// A parameter's value: a quoted string is unwrapped, anything else stays as it is.
pub(crate) fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text
}
