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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        let raw: Raw<'_> = serde_json::from_slice(bytes).map_err(|error| TagListError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        let tags = raw.tags.unwrap_or_default();
        if tags.len() > MAX_TAGS {
            return Err(TagListError::TooMany { found: tags.len() });
        }
        let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
        Ok(TagList {
            name: raw.name.unwrap_or_default(),
            tags,
        })
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
        let next = tags.last().map(|tag| Page {
            n: self.n,
            last: Some(tag.as_str().to_owned()),
        });
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
