//! Pieces of HTTP field syntax that several headers share (RFC 9110 §5.6).

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Which bytes a token may hold.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        token[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    token
};

/// Optional whitespace.
pub(crate) const OWS: [char; 2] = [' ', '\t'];

/// What stands before the first `separator` outside of quoted strings, and what stands after it.
pub(crate) fn cut(text: &str, separator: char) -> (&str, Option<&str>) {
    let mut quoted = false;
    let mut escaped = false;
    let at = text.find(|character| {
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
    });
    match at {
        Some(at) => (&text[..at], Some(&text[at + separator.len_utf8()..])),
        None => (text, None),
    }
}

/// Splits at each `separator` outside of quoted strings, and trims the pieces. Empty pieces are left out, as lists may
/// have them (RFC 9110 §5.6.1.2).
pub(crate) fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    let plain = !text.contains('"');
    std::iter::from_fn(move || {
        let (piece, after) = match rest?.split_once(separator) {
            Some((piece, after)) if plain => (piece, Some(after)),
            None if plain => (rest?, None),
            _ => cut(rest?, separator),
        };
        rest = after;
        Some(piece.trim_matches(OWS))
    })
    .filter(|piece| !piece.is_empty())
}

/// A parameter's value: a quoted string without its quotes, or the text as it is. `None` if the quotes do not enclose
/// exactly all of it.
pub(crate) fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next()?),
            character => text.push(character),
        }
    }
}
