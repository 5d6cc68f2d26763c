//! Who asks, and what they may have.
//!
//! Clients are known by a token, by a secret in the address that they ask, or by their network. A token is the password of
//! Basic, or is traded at our own token endpoint for a bearer token that lives five minutes. Richer access (users, rules) grows from [`Client`] and
//! [`standing`].

mod address;
mod bearer;
mod client;
mod public;
mod token;

use entrepot_oci::name::Repository;

use crate::config::{Config, Source};

pub use address::{Entrance, entrance, has_secrets, loggable};
pub use bearer::{MAX_TOKEN_AGE, SigningKey, sign};
pub use client::{Authorized, Client, Identity, by_network, forwarded_for, identify};
pub use public::{
    PROBE_TTL, Probed, PublicRecord, after_probe, identity_needed, probe_verdict, probe_wait, shown,
};
pub use token::{MAX_TOKEN_BODY, TokenRequest, token_answer};

/// What a client may have of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The source has no credentials, or the client is known: whatever upstream gives us.
    Open,
    /// An anonymous client, and a source with credentials: what an anonymous HEAD upstream may see (T-AZ5). Nothing is
    /// fetched with the credentials before that is known (T-AZ6).
    Probe,
    /// `public:` names the repository: served to anyone on our credentials.
    Public,
}

/// What `client` may have of `repository` (upstream's name) at `source`.
pub fn standing(source: &Source, repository: &Repository, client: &Client) -> Standing {
    if source.auth.is_none() || client.is_known() {
        Standing::Open
    } else if source.public.iter().any(|pattern| pattern.matches(repository.as_str())) {
        Standing::Public
    } else {
        Standing::Probe
    }
}

/// Whether what is served rests on credentials, so that it must be `private, no-store`, carry no CORS header, and be
/// denied when upstream refuses us. `public`: whether an anonymous HEAD has shown the repository to anyone.
pub fn credentialed(source: &Source, repository: &Repository, public: bool) -> bool {
    source.auth.is_some()
        && !public
        && !source.public.iter().any(|pattern| pattern.matches(repository.as_str()))
}

/// Whether a client with no credentials may pass at all.
pub fn admits(config: &Config, client: &Client) -> bool {
    config.access.anonymous || client.is_known()
}

/// Our own challenge, from the configured endpoint and nothing else (T-CR9). `scope` is a repository as the client
/// spells it; `insufficient`: a valid token was presented, but it names nobody.
pub fn challenge(config: &Config, scope: Option<&str>, insufficient: bool) -> String {
    let endpoint = config.endpoint.as_str().trim_end_matches('/');
    let mut challenge = format!("Bearer realm=\"{endpoint}/token\",service=\"{}\"", service(config));
    if let Some(scope) = scope {
        // A raw name holds visible ASCII; a quote or backslash in it would end the parameter.
        let safe: String =
            scope.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
        challenge.push_str(&format!(",scope=\"repository:{safe}:pull\""));
    }
    if insufficient {
        challenge.push_str(",error=\"insufficient_scope\"");
    }
    challenge
}

/// The endpoint's host, with its port where it is not the scheme's own.
pub fn service(config: &Config) -> String {
    let host = config.endpoint.host_str().unwrap_or_default();
    config.endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests;
