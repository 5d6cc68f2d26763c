//! The effective configuration: every default filled in, every name parsed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;
use zeroize::Zeroizing;

use crate::pattern::{HostPattern, NamePattern};

/// Everything `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public URL; our realm and links are built from it, never from a request's `Host`.
    pub endpoint: Url,
    pub listen: Vec<SocketAddr>,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub admin: Option<SocketAddr>,
    pub tls: Option<Tls>,
    pub cache: Cache,
    /// Absent: no limit.
    pub rate_limit: Option<RateLimit>,
    pub access: Access,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub sources: Vec<Arc<Source>>,
    /// Index into `sources`: who answers a name that carries no registry.
    pub default_source: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file, leaf first.
    pub cert: String,
    pub key: String,
}

#[derive(Clone, Debug)]
pub struct Cache {
    /// Absent: the user's data directory, which the host knows.
    pub dir: Option<String>,
    /// Bytes.
    pub max_size: u64,
    /// How long a tag is believed; a digest is for ever.
    pub manifest_ttl: Duration,
    /// How long after its last use an object may stay; `None`: until space is needed.
    pub blob_ttl: Option<Duration>,
    pub negative_ttl: Duration,
    /// How long past its TTL a tag may be served while upstream fails.
    pub max_stale: Duration,
    /// First match wins.
    pub rules: Vec<TtlRule>,
}

#[derive(Clone, Debug)]
pub struct TtlRule {
    pub images: Vec<NamePattern>,
    pub tags: Vec<NamePattern>,
    pub manifest_ttl: Duration,
}

/// `count` manifest requests per `per`, with `burst` at once, for each client address (IPv6 by /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub count: u32,
    pub per: Duration,
    pub burst: u32,
}

#[derive(Clone, Debug)]
pub struct Access {
    /// Whether unknown clients may have what is public upstream.
    pub anonymous: bool,
    pub networks: Vec<IpNet>,
    pub tokens: Vec<ClientToken>,
}

/// A client's password, kept as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientToken {
    pub name: String,
    pub sha256: [u8; 32],
}

/// A registry that is mirrored.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: Arc<str>,
    /// Scheme, host and port of the registry; no path, no trailing slash matters.
    pub url: Url,
    /// Tried in order when `url` fails.
    pub alternates: Vec<Url>,
    /// Registry names (lower case, with port if any) for `?ns=` and path prefixes.
    pub names: Vec<String>,
    /// `Host` names that select this source (lower case).
    pub hosts: Vec<String>,
    /// Repository names without a registry that belong here.
    pub images: Vec<NamePattern>,
    /// False: pass through, store nothing.
    pub mirror: bool,
    pub auth: Option<Auth>,
    /// What anonymous clients may have on our credentials without further asking.
    pub public: Vec<NamePattern>,
    /// Where credentials may go besides the source itself.
    pub token_hosts: Vec<HostPattern>,
    /// Where redirects may lead. `None`: any public host, without credentials.
    pub blob_hosts: Option<Vec<HostPattern>>,
    /// Plain http, or a certificate that does not verify, is accepted.
    pub insecure: bool,
    /// Private, loopback and link-local addresses are accepted.
    pub allow_private: bool,
    pub on_gone: OnGone,
    pub timeouts: Timeouts,
    /// A one-part repository name `x` means `library/x`.
    pub library: bool,
}

#[derive(Clone, Debug)]
pub enum Auth {
    Static {
        username: String,
        password: Secret,
    },
    /// The suffix of a `docker-credential-<name>` program.
    Helper(String),
}

/// What to do when upstream says 404 for a tag that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGone {
    /// Serve it stale, with a warning.
    Keep,
    Follow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    /// The longest pause inside a body.
    pub stall: Duration,
}

/// A string that no log, error or dump ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(value.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientToken").field("name", &self.name).finish_non_exhaustive()
    }
}
