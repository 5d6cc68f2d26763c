//! Scheme, host and port: the unit that credentials, back-off and breakers are bound to.

use std::fmt;

use url::{Host, Url};

use crate::config::Source;
use crate::pattern::HostPattern;

/// `https://registry-1.docker.io`, the port only where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl Origin {
    pub fn of(url: &Url) -> Origin {
        Origin(url.origin().ascii_serialization())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn same(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether a list declares the host of `url`. A pattern without a port means the scheme's own port only; an address must
/// be spelt out, no star reaches it.
pub(super) fn declared(patterns: &[HostPattern], url: &Url) -> bool {
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return false;
    };
    let default = url.port().is_none();
    match host {
        Host::Ipv6(_) => false,
        Host::Ipv4(address) => {
            let (bare, full) = (address.to_string(), format!("{address}:{port}"));
            patterns
                .iter()
                .map(HostPattern::to_string)
                .any(|text| text == full || (default && text == bare))
        }
        // A pattern that also matches another port does not name this one.
        Host::Domain(name) => patterns
            .iter()
            .any(|pattern| pattern.matches(name, port) && (default || !pattern.matches(name, port ^ 1))),
    }
}

/// Whether the owner of the configuration has named this origin as the registry.
pub(super) fn is_registry(source: &Source, url: &Url) -> bool {
    same(&source.url, url) || source.alternates.iter().any(|alternate| same(alternate, url))
}

/// Whether the owner of the configuration has named this origin at all.
pub(super) fn is_declared(source: &Source, url: &Url) -> bool {
    is_registry(source, url)
        || declared(&source.token_hosts, url)
        || source
            .blob_hosts
            .as_deref()
            .is_some_and(|hosts| declared(hosts, url))
}

/// The URL without what may be secret: user, query and fragment.
pub(super) fn redacted(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}
