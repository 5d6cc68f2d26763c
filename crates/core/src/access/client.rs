//! Whose request it is: by `Authorization`, else by a secret in its address, else by network, else nobody's.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::bearer::{self, SigningKey};
use crate::config::Config;
use crate::failure::{Failure, Reason};
use crate::forward::{About, ENTREPOT_CLIENT, heard};
use crate::time::Wall;

/// Bytes of an `Authorization` header at most.
const MAX_AUTHORIZATION: usize = 8 * 1024;

/// The one text for every credential that is wrong, whatever is wrong with it (T-HC4, T-CR10).
const WRONG: &str = "the credentials are not valid here";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub identity: Identity,
    /// The client's own address, behind trusted proxies.
    pub address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    /// By token or secret (its configured name) or by network (`network`).
    Known {
        name: Arc<str>,
    },
}

/// A client, and whether it showed a valid credential: a bearer token for anyone is one, though it names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    pub client: Client,
    pub presented: bool,
}

impl Client {
    pub fn is_known(&self) -> bool {
        matches!(self.identity, Identity::Known { .. })
    }

    pub fn name(&self) -> Option<&Arc<str>> {
        match &self.identity {
            Identity::Known { name } => Some(name),
            Identity::Anonymous => None,
        }
    }
}

/// Who is at `address`, as far as the network tells.
pub fn by_network(config: &Config, address: IpAddr) -> Client {
    let known = config.access.networks.iter().any(|network| network.contains(&address));
    let identity = if known { Identity::Known { name: "network".into() } } else { Identity::Anonymous };
    Client { identity, address }
}

/// Identifies the client at `address`. `secret`: who is known by a secret in the address that was asked. A credential that
/// is presented but wrong is refused on every route, even from a known network and beside a right secret.
///
/// Errors: `Unauthorized`, with the same text for every cause.
pub fn identify(
    config: &Config,
    headers: &HeaderMap,
    address: IpAddr,
    secret: Option<&Arc<str>>,
    key: &SigningKey,
    now: Wall,
) -> Result<Authorized, Failure> {
    let presented = credential(config, headers, key, now)?;
    let is_presented = presented.is_some();
    let client = match (presented, secret) {
        (Some(identity @ Identity::Known { .. }), _) => Client { identity, address },
        (_, Some(name)) => Client { identity: Identity::Known { name: name.clone() }, address },
        (_, None) => by_network(config, address),
    };
    Ok(Authorized { client, presented: is_presented })
}

/// The address for which a mirror of ours at the edge asks, if `client` is one that may say so and does. Anyone else's
/// word is ignored, as are the proxies' own headers for it.
///
/// Errors: `RequestInvalid` when it is not what that client signed for this request. Not `Unauthorized`: its credentials are
/// right, and asking for others would not help.
pub fn forwarded_for(
    config: &Config,
    client: &Client,
    head: &Parts,
    ns: Option<&str>,
    now: Wall,
) -> Result<Option<IpAddr>, Failure> {
    let forwards =
        |name: &Arc<str>| config.access.tokens.iter().find(|token| token.forwards && *token.name == **name);
    let Some(token) = client.name().and_then(forwards) else {
        return Ok(None);
    };
    let mut values = head.headers.get_all(ENTREPOT_CLIENT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let about = About { method: &head.method, path: head.uri.path(), ns: ns.unwrap_or_default() };
    match heard(&token.sha256, &about, value, now).filter(|_| values.next().is_none()) {
        Some(address) => Ok(Some(address)),
        None => Err(Failure::new(
            Reason::RequestInvalid,
            "the Entrepot-Client header is not valid: compare the clocks of the two mirrors, and what lies between them",
        )),
    }
}

fn credential(
    config: &Config,
    headers: &HeaderMap,
    key: &SigningKey,
    now: Wall,
) -> Result<Option<Identity>, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > MAX_AUTHORIZATION {
        return Err(wrong());
    }
    let (scheme, rest) =
        value.to_str().ok().and_then(|text| text.trim().split_once(' ')).ok_or_else(wrong)?;
    let rest = rest.trim();
    let identity = if scheme.eq_ignore_ascii_case("basic") {
        basic(config, rest)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        bearer(config, rest, key, now)
    } else {
        None
    };
    identity.map(Some).ok_or_else(wrong)
}

/// The user name is free: `docker login` wants one, and the token alone decides.
fn basic(config: &Config, encoded: &str) -> Option<Identity> {
    let decoded = STANDARD.decode(encoded).ok()?;
    let text = std::str::from_utf8(&decoded).ok()?;
    if text.contains('\0') {
        return None;
    }
    let (_, password) = text.split_once(':')?;
    by_password(config, password)
}

/// The client whose token `password` is. Every configured token is compared, each in constant time.
pub(super) fn by_password(config: &Config, password: &str) -> Option<Identity> {
    if password.is_empty() {
        return None;
    }
    let presented: [u8; 32] = Sha256::digest(password.as_bytes()).into();
    let mut found = None;
    for token in &config.access.tokens {
        if bool::from(token.sha256.ct_eq(&presented)) {
            found = Some(token.name.as_str());
        }
    }
    found.map(|name| Identity::Known { name: name.into() })
}

/// A subject whose token was taken out of the configuration is nobody's any more.
fn bearer(config: &Config, token: &str, key: &SigningKey, now: Wall) -> Option<Identity> {
    let subject = bearer::verify(key, config.endpoint.as_str(), token, now)?;
    if subject.is_empty() {
        return Some(Identity::Anonymous);
    }
    let stands = config.access.tokens.iter().any(|token| token.name == subject);
    stands.then(|| Identity::Known { name: subject.into() })
}

pub(super) fn wrong() -> Failure {
    Failure::new(Reason::Unauthorized, WRONG)
}
