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
        .is_some_and(|rel| rel.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let rows: &[(&[&str], Option<&str>)] = &[
            (&["</v2/a/tags/list?n=2&last=b>; rel=\"next\""], Some("/v2/a/tags/list?n=2&last=b")),
            (&["<https://r.example/v2/?a=1,2;3>;rel=next"], Some("https://r.example/v2/?a=1,2;3")),
            (&["< /x >; title=\"a, b; rel=prev\"; REL=\"Next\""], Some("/x")),
            (&["</p>; rel=prev, </n>; rel=next"], Some("/n")),
            (&["</p>; rel=prev", "</n>; rel=next"], Some("/n")),
            (&["</p>, </n>; rel=\"last next\""], Some("/n")),
            (&["</1>; rel=next, </2>; rel=next"], Some("/1")),
            (&["<?last=x>; rel=\"next\""], Some("?last=x")),
            (&["</a>; rel=prev; rel=next"], None),
            (&["</a>; rel=nextish"], None),
            (&["</a>; rel=\"next"], None),
            (&["</a>"], None),
            (&["</a; rel=next"], None),
            (&["/a; rel=next"], None),
            (&["<>; rel=next"], None),
            (&["</a b>; rel=next"], None),
            (&["</a\r\nX: y>; rel=next"], None),
            (&["</caf\u{e9}>; rel=next"], None),
            (&["</\"a\">; rel=next"], None),
            (&[""], None),
            (&[], None),
        ];
        for (lines, expected) in rows {
            assert_eq!(next(lines.iter().copied()).as_deref(), *expected, "{lines:?}");
        }
    }

    #[test]
    fn hostile_lines_are_bounded() {
        let many = "</a>; rel=prev,".repeat(MAX_LINE / 15);
        assert_eq!(next([many.as_str(), "</b>; rel=next"]).as_deref(), Some("/b"));
        let long = format!("</{}>; rel=next", "a".repeat(MAX_LINE));
        assert_eq!(next([long.as_str()]), None);
        for line in
            ["<".repeat(MAX_LINE), "<>".repeat(MAX_LINE / 2), ";".repeat(MAX_LINE), "\"".repeat(MAX_LINE)]
        {
            assert_eq!(next([line.as_str()]), None);
        }
    }

    #[test]
    fn our_own_links_cannot_be_broken_out_of() {
        assert_eq!(
            Next("/v2/a/tags/list?n=1&last=b").to_string(),
            "</v2/a/tags/list?n=1&last=b>; rel=\"next\""
        );
        assert_eq!(Next("/a>; rel=x\r\n\u{e9}").to_string(), "</a%3E;%20rel=x%0D%0A%C3%A9>; rel=\"next\"");
    }
}
