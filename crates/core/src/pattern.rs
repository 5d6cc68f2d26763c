//! The two kinds of pattern that the configuration knows.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use fast_glob::{glob_match, validate};
use url::{Host, Url};

/// The longest pattern for names, in bytes; repository names are no longer either.
pub const MAX_PATTERN: usize = 255;

/// The most groups of alternatives in a pattern: each may multiply the work of a match.
const MAX_GROUPS: usize = 3;

/// A glob over repository names or tags: `*` stands for anything but `/`, `**` for anything, `?` for one character but `/`, `[ab]`
/// and `[!a]` likewise, `{a,b}` for either; a lone `*` matches all.
#[derive(Clone, Debug)]
pub struct NamePattern(String);

/// A host name, exact or `*.suffix`; the star stands for one or more whole labels. Compared in lower case; a port, where
/// the pattern has one, must be equal. Addresses are spelt out, IPv6 in brackets.
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
        self.0 == "*" || glob_match(&self.0, name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether everything that `other` matches is matched by this one too, as far as that is plain to see: a pattern with
    /// classes or alternatives covers nothing but itself, and is covered by nothing but itself and a lone `*`.
    pub fn covers(&self, other: &NamePattern) -> bool {
        if self.0 == other.0 || self.0 == "*" || self.0 == "**" {
            return true;
        }
        let plain = |text: &str| !text.contains(['[', ']', '{', '}']);
        // Without a star or a question mark this is one name, and a pattern that is that name is the same text.
        let one_name = !self.0.contains(['*', '?']);
        if other.0 == "*" || one_name || !plain(&self.0) || !plain(&other.0) {
            return false;
        }
        // Witnesses: the stars stand for nothing, for a text that only a star can match (no pattern is that long), and
        // for several segments.
        let long = "~".repeat(MAX_PATTERN + 1);
        let deep = format!("{long}/{long}");
        let witness = |one: &str, any: &str| {
            other.0.replace("**", "\u{1}").replace('*', one).replace('\u{1}', any).replace('?', "~")
        };
        [witness("", &long), witness(&long, &long), witness(&long, &deep)]
            .iter()
            .all(|name| self.matches(name))
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError("an empty pattern matches nothing; write `*` for everything".into()));
        }
        if text.len() > MAX_PATTERN {
            return Err(PatternError(format!("a pattern has at most {MAX_PATTERN} bytes")));
        }
        if let Some(stranger) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(PatternError(format!("`{}` occurs in no name", stranger.escape_default())));
        }
        if text.split('/').any(|segment| segment.contains("**") && segment != "**") {
            return Err(PatternError(format!("`{text}`: `**` must stand alone between slashes")));
        }
        // Outside of brackets, none of these is part of a name.
        if text.starts_with('!') || text.contains('\\') {
            return Err(PatternError(format!(
                "`{text}`: neither `\\` nor a `!` in front occurs in any name"
            )));
        }
        if text.starts_with('/') || text.ends_with('/') {
            return Err(PatternError(format!("`{text}`: no name begins or ends with a slash")));
        }
        if ["{,", ",,", ",}", "{}"].iter().any(|empty| text.contains(empty)) {
            return Err(PatternError(format!("`{text}`: there is an alternative that is empty")));
        }
        if text.matches('{').count() > MAX_GROUPS {
            return Err(PatternError(format!("`{text}` has more than {MAX_GROUPS} groups of alternatives")));
        }
        if text.matches('{').count() != text.matches('}').count() || validate(text).is_err() {
            return Err(PatternError(format!(
                "`{text}` is not a pattern: brackets and braces must be opened and closed"
            )));
        }
        Ok(NamePattern(text.to_owned()))
    }
}

impl HostPattern {
    /// Of a pattern `*.suffix`, the suffix.
    pub fn suffix(&self) -> Option<&str> {
        self.wildcard.then_some(self.host.as_str())
    }

    /// Whether this pattern names the server of a URL. Without a port it names the scheme's own port only. A star stands
    /// for labels of a name and never reaches an address. A trailing dot is part of a name and never matches.
    pub fn declares(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return false;
        };
        match self.port {
            Some(wanted) if wanted != port => return false,
            None if url.port().is_some() => return false,
            _ => {}
        }
        match host {
            Host::Domain(name) => self.names(name),
            Host::Ipv4(address) => !self.wildcard && self.host == address.to_string(),
            Host::Ipv6(address) => !self.wildcard && self.host == format!("[{address}]"),
        }
    }

    /// Whether `host` (any case, without port) is meant, at `port` or, where the pattern has none, at any port.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|wanted| wanted == port) && self.names(host)
    }

    fn names(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if !self.wildcard {
            return host == self.host;
        }
        let labels = host.strip_suffix(self.host.as_str()).and_then(|front| front.strip_suffix('.'));
        labels.is_some_and(|labels| labels.split('.').all(is_label))
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || {
            PatternError(format!(
                "`{text}` is not a host: write `host.example.com` or `*.example.com`, without scheme and path"
            ))
        };
        if text.len() > MAX_PATTERN {
            return Err(PatternError(format!("a pattern has at most {MAX_PATTERN} bytes")));
        }
        let lower = text.to_ascii_lowercase();
        let (wildcard, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        // The colons inside brackets belong to an address.
        let after_address = rest.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match rest[after_address..].rfind(':').map(|colon| colon + after_address) {
            None => (rest, None),
            Some(colon) => {
                let port = &rest[colon + 1..];
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let number = port.parse().ok().filter(|number: &u16| digits && *number > 0);
                let number =
                    number.ok_or_else(|| PatternError(format!("`{text}`: `{port}` is not a port")))?;
                (&rest[..colon], Some(number))
            }
        };
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().map_err(|_| wrong())?),
            None if host.split('.').all(is_label) => host.to_owned(),
            None => return Err(wrong()),
        };
        // The last label of a name is never a number (WHATWG URL, "ends in a number"): that is an address.
        let number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if wildcard && (number || host.starts_with('[')) {
            return Err(PatternError(format!("`{text}`: a star cannot stand for a part of an address")));
        }
        if number && host.parse::<Ipv4Addr>().is_err() {
            return Err(wrong());
        }
        Ok(HostPattern { wildcard, host, port })
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    fn host(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    fn declares(pattern: &str, url: &str) -> bool {
        host(pattern).declares(&Url::parse(url).unwrap())
    }

    #[test]
    fn stars_stop_at_slashes() {
        assert!(name("library/*").matches("library/nginx") && !name("library/*").matches("library/a/b"));
        assert!(name("team/**").matches("team/a/b") && !name("team/**").matches("steam/a"));
        assert!(name("*").matches("a/b/c") && name("nightly*").matches("nightly-1"));
        assert!(!name("a.c").matches("abc"));
        assert!(
            name("a[!b]c").matches("adc") && !name("a[!b]c").matches("a/c") && !name("a?c").matches("a/c")
        );
        assert!(name("{a,b/*}x").matches("b/cx") && !name("{a,b}").matches("c"));
    }

    #[test]
    fn what_is_no_name_pattern() {
        for text in ["", "[", "{a", "a b", "a\u{e9}", "**a", "a**/b", &"x".repeat(256), &"{".repeat(200)] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
        for text in
            ["!a", "a\\*", "/a", "a/", "**/", "a{,b}", "{a,}", "{}", "a}", "}a{", "[]", &"{a,b}".repeat(4)]
        {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn covering() {
        for (wide, narrow) in [
            ("*", "a/b"),
            ("**", "a/*"),
            ("*", "[ab]"),
            ("library/*", "library/nginx"),
            ("library/*", "library/n*"),
            ("a/**", "a/*/c"),
            ("v*", "v1.*"),
            ("v*", "v?"),
            ("[ab]", "[ab]"),
            ("a/**", "a/b/**"),
        ] {
            assert!(name(wide).covers(&name(narrow)), "{wide} {narrow}");
            assert!(wide == narrow || !name(narrow).covers(&name(wide)), "{narrow} {wide}");
        }
        for (one, other) in
            [("a*", "*a"), ("?", "*"), ("v?", "v*"), ("a/*", "a/**"), ("[ab]", "a"), ("a/b", "a/c")]
        {
            assert!(!name(one).covers(&name(other)), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_host_pattern() {
        for text in [
            "",
            "*",
            "*.",
            ".",
            "a.",
            ".a",
            "a..b",
            "*a.example.com",
            "a.*.com",
            "*.*.com",
            "https://a",
            "a/b",
            "a:",
            "a:0",
            "a:+1",
            "a:65536",
            "a:b:1",
            "user@a",
            "\u{fc}.example",
            "a b",
            "*.1.2.3.4",
            "*.[::1]",
            "[::1",
            "[x]",
            "::1",
            "1.2.3",
            "[::1]x",
            "a%2eb",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
        assert_eq!(host("*.EXAMPLE.com:8443").to_string(), "*.example.com:8443");
        assert_eq!(host("[0:0::1]:5000").to_string(), "[::1]:5000");
    }

    /// T-CR6: only whole labels, the same port, and the same spelling.
    #[test]
    fn t_cr6_near_misses() {
        assert!(declares("auth.docker.io", "https://AUTH.docker.io/token"));
        assert!(declares("auth.docker.io", "http://auth.docker.io:80/"));
        assert!(
            declares("127.0.0.1:5000", "http://127.1:5000/") && declares("[::1]:5000", "http://[0::1]:5000/")
        );
        for url in [
            "https://xauth.docker.io",
            "https://auth.docker.io.evil.example",
            "https://auth.docker.iox",
            "https://docker.io",
            "https://x.auth.docker.io",
            "https://auth.docker.io.",
            "https://auth.docker.io:8443",
            "https://auth-docker.io",
            "https://auth.docker.io%2eevil.example",
            "https://evil.example/auth.docker.io",
            "https://auth.docker.io@evil.example",
            "https://\u{430}uth.docker.io",
            "https://127.0.0.1",
        ] {
            assert!(!declares("auth.docker.io", url), "{url}");
        }
        assert!(declares("*.example.com", "https://a.b.example.com"));
        for url in [
            "https://example.com",
            "https://.example.com",
            "https://aexample.com",
            "https://a.example.com.",
            "https://a.example.com:444",
            "https://a..example.com",
            "https://a.example.com.evil.example",
        ] {
            let Ok(url) = Url::parse(url) else { continue };
            assert!(!host("*.example.com").declares(&url), "{url}");
        }
        assert!(
            !declares("127.0.0.1:5000", "https://127.0.0.1")
                && !declares("127.0.0.1", "https://127.0.0.1:5000")
        );
    }

    proptest! {
        /// T-CR6: a pattern matches its own host, and nothing that differs from it in one character.
        #[test]
        fn t_cr6_one_character_makes_another_host(
            labels in prop::collection::vec("[a-z][a-z0-9]{0,5}", 2..4), at in any::<prop::sample::Index>(), other in "[a-z0-9.-]"
        ) {
            let text = labels.join(".");
            let pattern = host(&text);
            prop_assert!(pattern.matches(&text, 443) && pattern.matches(&text.to_uppercase(), 443));
            let at = at.index(text.len() + 1);
            let inserted = format!("{}{other}{}", &text[..at], &text[at..]);
            prop_assert!(!pattern.matches(&inserted, 443));
            if at < text.len() {
                let removed = format!("{}{}", &text[..at], &text[at + 1..]);
                prop_assert!(!pattern.matches(&removed, 443));
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                prop_assert_eq!(pattern.matches(&changed, 443), changed == text);
            }
        }

        /// T-CR6: a star reaches hosts that end in a dot and the suffix, and no others.
        #[test]
        fn t_cr6_a_star_stands_for_whole_labels(front in "[a-z0-9.-]{0,8}", suffix in "[a-z]{1,5}\\.[a-z]{2,3}") {
            let pattern = host(&format!("*.{suffix}"));
            let whole = front.strip_suffix('.').is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()));
            prop_assert_eq!(pattern.matches(&format!("{front}{suffix}"), 443), whole);
        }

        #[test]
        fn host_patterns_are_written_as_they_are_read(text in "(\\*\\.)?[a-zA-Z0-9.-]{1,12}(:[0-9]{1,5})?") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<HostPattern>(), Ok(pattern));
            }
        }

        /// What patterns mean is what another implementation says of them. Only here a class never stands for a slash.
        #[test]
        fn patterns_mean_the_same_elsewhere(
            text in "([ab*?/-]|\\*\\*/|\\{[ab*?]{1,3}(,[ab*?/]{1,2}){0,2}\\}|\\[[!^]?[ab-]{1,3}\\]){1,6}",
            names in prop::collection::vec("[ab-]{1,3}(/[ab-]{1,2}){0,3}", 50),
        ) {
            let other = globset::GlobBuilder::new(&text).literal_separator(true).backslash_escape(false).build();
            if let (Ok(pattern), Ok(other)) = (text.parse::<NamePattern>(), other)
                && text != "*"
            {
                let other = other.compile_matcher();
                for name in names.iter().filter(|name| !text.contains('[') || !name.contains('/')) {
                    prop_assert_eq!(pattern.matches(name), other.is_match(name), "{} {}", &text, name);
                }
            }
        }

        /// If one pattern covers another, then every name that the other matches is matched by the first.
        #[test]
        fn covering_means_matching(
            wide in "[ab*?/]{1,5}", narrow in "[ab*?/]{1,5}", names in prop::collection::vec("[ab]{1,3}(/[ab]{1,2}){0,2}", 20)
        ) {
            if let (Ok(wide), Ok(narrow)) = (wide.parse::<NamePattern>(), narrow.parse::<NamePattern>())
                && wide.covers(&narrow)
            {
                for name in names.iter().filter(|name| narrow.matches(name)) {
                    prop_assert!(wide.matches(name), "{} {} {}", wide.as_str(), narrow.as_str(), name);
                }
            }
        }
    }
}
