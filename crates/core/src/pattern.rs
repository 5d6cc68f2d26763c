//! The two kinds of pattern that the configuration knows.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

/// The longest pattern for names, in bytes; repository names are no longer either.
pub const MAX_PATTERN: usize = 255;

/// A glob over repository names or tags: `*` stands for anything but `/`, `**` for anything; a lone `*` matches all.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    matcher: GlobMatcher,
}

/// A host name, exact or `*.suffix`; the star stands for one or more whole labels. Compared in lower case; a port, where
/// the pattern has one, must be equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    wildcard: bool,
    host: String,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl NamePattern {
    pub fn matches(&self, name: &str) -> bool {
        self.text == "*" || self.matcher.is_match(name)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether everything that `other` matches is matched by this one too, as far as that is plain to see: a pattern with
    /// classes or alternatives covers nothing but itself, and is covered by nothing but itself and a lone `*`.
    pub fn covers(&self, other: &NamePattern) -> bool {
        if self.text == other.text || self.text == "*" || self.text == "**" {
            return true;
        }
        let plain = |text: &str| !text.contains(['[', ']', '{', '}']);
        if other.text == "*" || !plain(&self.text) || !plain(&other.text) {
            return false;
        }
        // Witnesses: the stars stand for nothing, for a text that only a star can match (no pattern is that long), and
        // for several segments.
        let long = "~".repeat(MAX_PATTERN + 1);
        let deep = format!("{long}/{long}");
        let witness = |one: &str, any: &str| {
            other
                .text
                .replace("**", "\u{1}")
                .replace('*', one)
                .replace('\u{1}', any)
                .replace('?', "~")
        };
        [witness("", &long), witness(&long, &long), witness(&long, &deep)]
            .iter()
            .all(|name| self.matcher.is_match(name))
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError(
                "an empty pattern matches nothing; write `*` for everything".into(),
            ));
        }
        if text.len() > MAX_PATTERN {
            return Err(PatternError(format!("a pattern has at most {MAX_PATTERN} bytes")));
        }
        if let Some(stranger) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(PatternError(format!(
                "`{}` occurs in no name",
                stranger.escape_default()
            )));
        }
        if text
            .split('/')
            .any(|segment| segment.contains("**") && segment != "**")
        {
            return Err(PatternError(format!(
                "`{text}`: `**` must stand alone between slashes"
            )));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .backslash_escape(false)
            .build()
            .map_err(|error| PatternError(format!("`{text}` is not a pattern: {}", error.kind())))?;
        Ok(NamePattern {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }
}

impl HostPattern {
    /// Of a pattern `*.suffix`, the suffix.
    pub fn suffix(&self) -> Option<&str> {
        self.wildcard.then_some(self.host.as_str())
    }

    /// Whether `host` (any case, without port) and `port` are meant. A trailing dot is part of the name and never matches.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let host = host.to_ascii_lowercase();
        if self.wildcard {
            host.strip_suffix(self.host.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(']') || !port.is_empty() => {
                let port = port
                    .parse()
                    .map_err(|_| PatternError(format!("`{text}`: `{port}` is not a port")))?;
                (host, Some(port))
            }
            _ => (rest, None),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if host.is_empty() || !host.split('.').all(label) {
            return Err(PatternError(format!(
                "`{text}` is not a host: write `host.example.com` or `*.example.com`, without scheme and path"
            )));
        }
        Ok(HostPattern {
            wildcard,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}
