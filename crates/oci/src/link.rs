//! `Link` headers, which lead from one page of a list to the next (RFC 8288; distribution-spec, "Listing Tags").

use std::fmt;

use crate::field;

/// Bytes of one header line at most; a longer one is ignored.
pub const MAX_LINE: usize = 16 * 1024;

/// Our own `Link` to the next page: displays as `<target>; rel="next"`. Bytes that may not stand in a URI reference are
/// percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next<'a>(pub &'a str);

/// The target of the first link whose relation is `next`: a URI reference, absolute or not, of visible ASCII.
pub fn next<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<String> {
    values
        .into_iter()
        .filter(|line| line.len() <= MAX_LINE)
        .flat_map(links)
        .find(|(_, params)| is_next(params))
        .map(|(target, _)| target.trim_matches(field::OWS).to_owned())
        .filter(|target| !target.is_empty() && target.bytes().all(is_uri_byte))
}

/// The links of a line: target and parameters. Targets may hold commas and semicolons, so the brackets come first.
fn links(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let (target, after) = rest?.split_once('<')?.1.split_once('>')?;
        let (params, after) = field::cut(after, ',');
        rest = after;
        Some((target, params))
    })
}

/// Only the first `rel` of a link counts (RFC 8288 §3.3); it may name several relations.
fn is_next(params: &str) -> bool {
    field::split(params, ';')
        .filter_map(|param| param.split_once('='))
        .find(|(name, _)| name.trim_matches(field::OWS).eq_ignore_ascii_case("rel"))
        .and_then(|(_, value)| field::unquote(value.trim_matches(field::OWS)))
        .is_some_and(|rel| {
            rel.split_ascii_whitespace()
                .any(|rel| rel.eq_ignore_ascii_case("next"))
        })
}

/// What RFC 3986 allows, and the percent sign of its escapes.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"<>\"\\^`{|}".contains(&byte)
}

impl fmt::Display for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<")?;
        for byte in self.0.bytes() {
            if is_uri_byte(byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        f.write_str(">; rel=\"next\"")
    }
}
