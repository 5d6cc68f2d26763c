//! Scheme, host and port: the unit that credentials, back-off and breakers are bound to.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::config::Source;
use crate::net;
use crate::pattern::HostPattern;

/// `https://registry-1.docker.io`, the port only where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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

pub(super) fn declared(patterns: &[HostPattern], url: &Url) -> bool {
    patterns.iter().any(|pattern| pattern.declares(url))
}

/// Whether the owner of the configuration has named this origin as the registry.
pub(super) fn is_registry(source: &Source, url: &Url) -> bool {
    same(&source.url, url) || source.alternates.iter().any(|alternate| same(alternate, url))
}

/// Whether the owner of the configuration has named this origin at all.
pub(super) fn is_declared(source: &Source, url: &Url) -> bool {
    is_registry(source, url)
        || declared(&source.token_hosts, url)
        || source.blob_hosts.as_deref().is_some_and(|hosts| declared(hosts, url))
}

/// Whether the URL spells out an address where this source must not go. Names are judged when they are resolved.
pub(super) fn is_private_literal(source: &Source, url: &Url) -> bool {
    let name = matches!(url.host(), Some(Host::Domain(_)));
    !source.allow_private && !name && !url.host().is_some_and(|host| net::may_be_public(&host))
}

/// The URL without what may be secret: user, query and fragment.
pub(super) fn redacted(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}
