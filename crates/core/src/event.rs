//! What happened, for logs and metrics: closed types with stable labels. Core never counts; a host does.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Verdict;
use crate::failure::Reason;

/// Client-made text in a log line is cut to this many characters.
pub const MAX_TEXT: usize = 512;

/// One request, finished or broken off. Free text in it comes from clients: it is a log field, never a metric label.
#[derive(Clone, Debug)]
pub struct RequestLog {
    /// The known client's name.
    pub client: Option<Arc<str>>,
    pub address: IpAddr,
    pub method: Method,
    pub route: Route,
    /// Path and query, as the client spelt them.
    pub target: Text,
    pub user_agent: Option<Text>,
    pub source: Option<Arc<str>>,
    pub status: u16,
    /// How the cache answered; absent where none was asked.
    pub verdict: Option<Verdict>,
    pub reason: Option<Reason>,
    /// The failure's internal half, which only this line shows.
    pub internal: Option<Text>,
    /// Body bytes sent to the client.
    pub bytes: u64,
    /// Body bytes fetched from upstream for this request.
    pub upstream_bytes: u64,
    /// Until the first byte of the answer's body, or its end if it has none.
    pub first_byte: Duration,
    pub total: Duration,
    /// The client left, or the body broke, before its end.
    pub aborted: bool,
}

/// What happens outside of any one request, for a host to log or count.
#[derive(Clone, Debug)]
pub enum Event {
    /// One conversation with an upstream ended. `status` is absent when no answer came back.
    Upstream {
        source: Arc<str>,
        route: Route,
        status: Option<u16>,
        reason: Option<Reason>,
    },
    FillEnded {
        source: Arc<str>,
        bytes: u64,
        reason: Option<Reason>,
    },
    /// Upstream's bytes did not hash to what was asked for.
    DigestMismatch {
        source: Arc<str>,
    },
    /// A body broke and was resumed at `offset`.
    Resumed {
        source: Arc<str>,
        offset: u64,
    },
    /// A client was refused by its rate limit.
    Limited {
        bucket: crate::limit::Bucket,
    },
    /// A new configuration was read.
    Reloaded {
        accepted: bool,
    },
}

/// The route as a label: the same few words however many repositories there are (T-OL6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    Ping,
    Token,
    Manifest,
    Blob,
    Tags,
    Referrers,
    Catalog,
    Upload,
    Metrics,
    Other,
}

/// The method as a label; a client may invent methods, but no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    Get,
    Head,
    Options,
    Post,
    Other,
}

/// Foreign text made fit for one log record: control, line-breaking, bidirectional and other invisible characters become
/// `\u{…}` escapes, and it is cut to [`MAX_TEXT`] characters. It still needs the log format's own quoting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    pub fn new(foreign: &str) -> Text {
        if foreign.len() <= MAX_TEXT && is_all(foreign.as_bytes(), is_plain_ascii) {
            return Text(foreign.to_owned());
        }
        let mut text = String::with_capacity(foreign.len().min(MAX_TEXT));
        for (index, character) in foreign.chars().enumerate() {
            if index == MAX_TEXT {
                text.push('…');
                break;
            }
            if is_plain(character) {
                text.push(character);
            } else {
                text.extend(character.escape_unicode());
            }
        }
        Text(text)
    }

    /// Header values may hold any byte; those that are no UTF-8 show as replacement characters.
    pub fn from_bytes(foreign: &[u8]) -> Text {
        let cut = foreign.get(..MAX_TEXT * 4 + 4).unwrap_or(foreign);
        match str::from_utf8(cut) {
            Ok(text) => Text::new(text),
            Err(_) => Text::new(&String::from_utf8_lossy(cut)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Looks at every byte, without a way out in between: that takes many at a time.
fn is_all(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & is(*byte))
}

fn is_plain_ascii(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn is_plain(character: char) -> bool {
    if let Ok(byte) = u8::try_from(u32::from(character))
        && byte.is_ascii()
    {
        return is_plain_ascii(byte);
    }
    // C1 controls, then the invisible and direction-changing ones a terminal or a log viewer acts on.
    !matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The metric labels of a request: each from a closed set, or a source's configured name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    method: Method,
    route: Route,
    source: Option<Arc<str>>,
    /// As `2xx`.
    status: &'static str,
    verdict: Option<Verdict>,
    reason: Option<Reason>,
}

impl Labels {
    /// How the cache answered.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    pub fn pairs(&self) -> [(&'static str, &str); 6] {
        [
            ("method", self.method.label()),
            ("route", self.route.label()),
            ("source", self.source.as_deref().unwrap_or("none")),
            ("status", self.status),
            ("verdict", self.verdict.map_or("none", Verdict::label)),
            ("reason", self.reason.map_or("none", Reason::label)),
        ]
    }
}

impl RequestLog {
    pub fn into_labels(self) -> Labels {
        Labels {
            method: self.method,
            route: self.route,
            source: self.source,
            status: status_class(self.status),
            verdict: self.verdict,
            reason: self.reason,
        }
    }
}

fn status_class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

impl Route {
    pub const ALL: &'static [Route] = &[
        Route::Ping,
        Route::Token,
        Route::Manifest,
        Route::Blob,
        Route::Tags,
        Route::Referrers,
        Route::Catalog,
        Route::Upload,
        Route::Metrics,
        Route::Other,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Route::Ping => "ping",
            Route::Token => "token",
            Route::Manifest => "manifest",
            Route::Blob => "blob",
            Route::Tags => "tags",
            Route::Referrers => "referrers",
            Route::Catalog => "catalog",
            Route::Upload => "upload",
            Route::Metrics => "metrics",
            Route::Other => "other",
        }
    }
}

impl Method {
    pub fn of(method: &http::Method) -> Method {
        match *method {
            http::Method::GET => Method::Get,
            http::Method::HEAD => Method::Head,
            http::Method::OPTIONS => Method::Options,
            http::Method::POST => Method::Post,
            _ => Method::Other,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Post => "POST",
            Method::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests;
