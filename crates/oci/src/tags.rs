//! Lists of tags and their pages (distribution-spec, "Listing Tags").

use serde::{Deserialize, Serialize};

use crate::name::{Tag, TagError};

/// An answer to `tags/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagList {
    /// The repository, as the client that gets the list spells it.
    pub name: String,
    pub tags: Vec<Tag>,
}

/// Which part of the list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// So many tags at most, never more than [`Page::MAX`]; `None` leaves it to the registry.
    pub n: Option<u64>,
    /// Only tags after this one, in lexical order.
    pub last: Option<String>,
}

/// Bytes of a list at most.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Tags of a list at most.
pub const MAX_TAGS: usize = 100_000;

/// Why bytes are not a list of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagListError {
    #[error("the list of tags has {found} bytes; at most {MAX_BODY} are accepted")]
    TooLarge { found: usize },
    #[error(
        "the list of tags is not of the form {{\"name\": …, \"tags\": […]}} (line {line}, column {column})"
    )]
    Json { line: usize, column: usize },
    #[error("the list has {found} tags; at most {MAX_TAGS} are accepted")]
    TooMany { found: usize },
    #[error("the list holds a wrong tag: {0}")]
    Tag(#[from] TagError),
}

/// Why a query asks for no page: `PAGINATION_NUMBER_INVALID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("n is not a number of tags: write digits only")]
    Number,
    #[error("last is not a tag: {0}")]
    Last(TagError),
    #[error("last is wrongly percent-encoded")]
    Encoding,
    #[error("n or last is given twice")]
    Repeated,
}

impl TagList {
    /// Reads an upstream's list. `null` for `tags` is an empty list, as some registries write it.
    pub fn parse(bytes: &[u8]) -> Result<TagList, TagListError> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(default)]
            name: Option<String>,
            #[serde(borrow)]
            tags: Option<Vec<std::borrow::Cow<'a, str>>>,
        }
        if bytes.len() > MAX_BODY {
            return Err(TagListError::TooLarge { found: bytes.len() });
        }
        let raw: Raw<'_> = serde_json::from_slice(bytes)
            .map_err(|error| TagListError::Json { line: error.line(), column: error.column() })?;
        let tags = raw.tags.unwrap_or_default();
        if tags.len() > MAX_TAGS {
            return Err(TagListError::TooMany { found: tags.len() });
        }
        let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
        Ok(TagList { name: raw.name.unwrap_or_default(), tags })
    }

    /// The body of an answer, to be sent as `application/json`.
    pub fn body(&self) -> Vec<u8> {
        // Texts in, text out: serde_json fails on maps with other keys and on failing writers only.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Page {
    /// Tags per page at most; who asks for more gets this many (CVE-2023-2253).
    pub const MAX: u64 = 1000;

    /// Reads a query, without its `?`. Other parameters are not looked at.
    pub fn parse(query: &str) -> Result<Page, PageError> {
        let mut page = Page::default();
        let mut seen = (false, false);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "n" if !std::mem::replace(&mut seen.0, true) => page.n = Some(number(value)?),
                "last" if !std::mem::replace(&mut seen.1, true) => page.last = last(value)?,
                "n" | "last" => return Err(PageError::Repeated),
                _ => {}
            }
        }
        Ok(page)
    }

    /// The query that asks for this page, without `?`; empty if it asks for nothing in particular.
    pub fn query(&self) -> String {
        let n = self.n.map(|n| format!("n={n}"));
        let last = self.last.as_ref().map(|last| format!("last={last}"));
        n.into_iter().chain(last).collect::<Vec<_>>().join("&")
    }

    /// Cuts this page out of a whole list, which is put in lexical order, and says which page is next, if any. A page of
    /// no tags has none.
    pub fn cut(&self, mut tags: Vec<Tag>) -> (Vec<Tag>, Option<Page>) {
        tags.sort();
        tags.dedup();
        if let Some(last) = &self.last {
            tags.retain(|tag| tag.as_str() > last.as_str());
        }
        let n = self.n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        if n >= tags.len() {
            return (tags, None);
        }
        tags.truncate(n);
        let next = tags.last().map(|tag| Page { n: self.n, last: Some(tag.as_str().to_owned()) });
        (tags, next)
    }
}

/// Numbers too large for 64 bits are clamped like other large ones.
fn number(digits: &str) -> Result<u64, PageError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PageError::Number);
    }
    Ok(digits.parse().unwrap_or(u64::MAX).min(Page::MAX))
}

/// A tag has only characters that need no encoding, but a client may encode them all the same.
fn last(value: &str) -> Result<Option<String>, PageError> {
    let text = decode(value).ok_or(PageError::Encoding)?;
    if text.is_empty() {
        return Ok(None);
    }
    let tag: Tag = text.parse().map_err(PageError::Last)?;
    Ok(Some(tag.as_str().to_owned()))
}

fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [char::from(rest.next()?), char::from(rest.next()?)];
            let [high, low] = digits.map(|digit| digit.to_digit(16));
            bytes.push(u8::try_from(high? * 16 + low?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(texts: &[&str]) -> Vec<Tag> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn page(n: Option<u64>, last: Option<&str>) -> Page {
        Page { n, last: last.map(str::to_owned) }
    }

    #[test]
    fn lists_are_read_and_written() {
        let list = TagList::parse(br#"{"name":"a/b","tags":["latest","1.0"],"x":[{}]}"#).unwrap();
        assert_eq!(list, TagList { name: "a/b".into(), tags: tags(&["latest", "1.0"]) });
        assert_eq!(list.body(), br#"{"name":"a/b","tags":["latest","1.0"]}"#);
        assert_eq!(TagList::parse(&list.body()), Ok(list));
        for empty in [r#"{"name":"a","tags":null}"#, r#"{"name":"a","tags":[]}"#, r#"{"name":"a"}"#] {
            assert_eq!(TagList::parse(empty.as_bytes()).unwrap().tags, []);
        }
    }

    #[test]
    fn hostile_lists_are_refused() {
        for text in [
            "",
            "[]x",
            "null",
            "<html>",
            "{\"tags\":{}}",
            "{\"tags\":[1]}",
            "{\"tags\":[]}{}",
            "{\"tags\":[],\"tags\":[]}",
        ] {
            assert!(matches!(TagList::parse(text.as_bytes()), Err(TagListError::Json { .. })), "{text}");
        }
        for tag in ["", "a/b", "-a", "\\u0000", "\\u001b[31m", "a\\r\\nSet-Cookie: b", "é"] {
            let text = format!("{{\"tags\":[\"a\",\"{tag}\"]}}");
            assert!(matches!(TagList::parse(text.as_bytes()), Err(TagListError::Tag(_))), "{tag}");
        }
        let many = format!("{{\"tags\":[{}]}}", vec!["\"a\""; MAX_TAGS + 1].join(","));
        assert_eq!(TagList::parse(many.as_bytes()), Err(TagListError::TooMany { found: MAX_TAGS + 1 }));
        let found = MAX_BODY + 1;
        assert_eq!(TagList::parse(&vec![b' '; found]), Err(TagListError::TooLarge { found }));
    }

    #[test]
    fn t_hc6_n_and_last_are_clamped_or_refused() {
        let rows = [
            ("", Ok(page(None, None))),
            ("ns=docker.io", Ok(page(None, None))),
            ("n=0", Ok(page(Some(0), None))),
            ("n=10&last=a", Ok(page(Some(10), Some("a")))),
            ("last=1.0-rc&n=1000", Ok(page(Some(1000), Some("1.0-rc")))),
            ("last=%76%31", Ok(page(None, Some("v1")))),
            ("last=", Ok(page(None, None))),
            ("n=1001", Ok(page(Some(1000), None))),
            ("n=18446744073709551616", Ok(page(Some(1000), None))),
            ("n=99999999999999999999999999", Ok(page(Some(1000), None))),
            ("N=x&&=&n", Ok(page(None, None))),
            ("n=", Err(PageError::Number)),
            ("n=-1", Err(PageError::Number)),
            ("n=+1", Err(PageError::Number)),
            ("n=1.5", Err(PageError::Number)),
            ("n=1e3", Err(PageError::Number)),
            ("n=0x10", Err(PageError::Number)),
            ("n=NaN", Err(PageError::Number)),
            ("n=%31", Err(PageError::Number)),
            ("n=\u{661}", Err(PageError::Number)),
            ("n=1&n=1", Err(PageError::Repeated)),
            ("last=a&last=b", Err(PageError::Repeated)),
            ("last=%", Err(PageError::Encoding)),
            ("last=%2", Err(PageError::Encoding)),
            ("last=%+1", Err(PageError::Encoding)),
            ("last=%FF", Err(PageError::Encoding)),
            ("last=a+b", Err(PageError::Last(TagError::Character))),
            ("last=../a", Err(PageError::Last(TagError::Character))),
            ("last=%0D%0AX:", Err(PageError::Last(TagError::Character))),
            ("last=%00", Err(PageError::Last(TagError::Character))),
        ];
        for (query, expected) in rows {
            assert_eq!(Page::parse(query), expected, "{query:?}");
            if let Ok(page) = expected {
                assert_eq!(Page::parse(&page.query()), Ok(page), "{query:?}");
            }
        }
        let long = format!("last={}", "a".repeat(10_000));
        assert_eq!(Page::parse(&long), Err(PageError::Last(TagError::TooLong { found: 10_000 })));
    }

    #[test]
    fn t_hc6_a_page_is_cut_and_names_the_next() {
        let all = ["c", "a", "b", "B", "a"];
        let rows = [
            (page(None, None), vec!["B", "a", "b", "c"], None),
            (page(Some(2), None), vec!["B", "a"], Some(page(Some(2), Some("a")))),
            (page(Some(2), Some("a")), vec!["b", "c"], None),
            (page(Some(1), Some("aa")), vec!["b"], Some(page(Some(1), Some("b")))),
            (page(Some(4), None), vec!["B", "a", "b", "c"], None),
            (page(Some(9), Some("z")), vec![], None),
            (page(Some(0), None), vec![], None),
            (page(Some(0), Some("a")), vec![], None),
        ];
        for (page, expected, next) in rows {
            assert_eq!(page.cut(tags(&all)), (tags(&expected), next), "{page:?}");
        }
    }
}
