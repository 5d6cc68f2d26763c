//! The effective configuration: every default filled in, every name parsed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use entrepot_oci::manifest::Platform;
use entrepot_oci::name::Reference;
use entrepot_oci::path::RawName;
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
    pub edge: Edge,
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
    /// Labels under the endpoint's host by which clients are known.
    pub secret_hosts: Vec<ClientToken>,
    /// First parts of a path by which clients are known.
    pub secret_paths: Vec<ClientToken>,
    /// Where `secret_hosts` stand.
    pub secret_hosts_env: Option<String>,
    /// Where `secret_paths` stand.
    pub secret_paths_env: Option<String>,
}

/// What a client knows, kept as its SHA-256: a password, a label or a part of a path. No two have one name.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientToken {
    pub name: String,
    pub sha256: [u8; 32],
    /// The client is an Entrepot that says for which address it asks. Passwords only.
    pub forwards: bool,
}

/// What only the edge needs.
#[derive(Clone, Debug)]
pub struct Edge {
    /// How long a layer stays in the cache in front.
    pub front_ttl: Duration,
    /// How long errors are kept, at least a minute.
    pub error_ttl: Duration,
    /// Five fields; UTC.
    pub cron: String,
    pub warm: Vec<Warm>,
}

/// Images that are fetched before anyone asks.
#[derive(Clone, Debug)]
pub struct Warm {
    pub images: Vec<WarmImage>,
    pub platforms: Vec<Platform>,
}

/// A manifest of a source, as a client would ask for it.
#[derive(Clone, Debug)]
pub struct WarmImage {
    /// With the registry in front; [`crate::resolve::resolve`] knows it.
    pub name: RawName,
    pub reference: Reference,
}

/// A registry that is mirrored.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: Arc<str>,
    pub kind: SourceKind,
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

/// Who is at a source's `url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Registry,
    /// A mirror of ours, asked for what the source's names hold. Its alternates are registries.
    Entrepot,
}

#[derive(Clone, Debug)]
pub enum Auth {
    Static {
        username: String,
        password: Secret,
    },
    /// The suffix of a `docker-credential-<name>` program. Never at the edge.
    Helper(String),
    /// The password is in the Worker's KV namespace. Only at the edge.
    Kv {
        username: String,
        key: String,
    },
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
