//! What a challenge asks for, and to whom anything is given.

use entrepot_oci::challenge::{self, Challenge};
use http::{HeaderMap, header};
use url::Url;

use super::origin;
use super::state::{Scheme, Standing};
use crate::config::Source;
use crate::net;

const MAX_REALM: usize = 2048;
const MAX_SERVICE: usize = 512;

/// Why a challenge cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// No challenge of a kind we can meet.
    Nothing,
    /// Basic is wanted, and there are no credentials to give.
    NoCredentials,
    /// The realm leads where we do not go, for the reason given; its host, where it may be shown.
    Realm(&'static str, Option<String>),
}

/// The first challenge that can be met: Bearer before Basic, for then the password goes to fewer places.
pub(super) fn choose(
    source: &Source,
    standing: Standing,
    registry: &Url,
    headers: &HeaderMap,
) -> Result<Scheme, Unmet> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = challenge::parse(values);
    let mut unmet = Unmet::Nothing;
    for bearer in challenges.iter().filter(|challenge| challenge.scheme == "bearer") {
        match scheme(source, standing, registry, bearer) {
            Ok(scheme) => return Ok(scheme),
            Err(error) => unmet = error,
        }
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        match standing {
            Standing::Credentialed => return Ok(Scheme::Basic),
            Standing::Anonymous if unmet == Unmet::Nothing => unmet = Unmet::NoCredentials,
            Standing::Anonymous => {}
        }
    }
    Err(unmet)
}

fn scheme(source: &Source, standing: Standing, registry: &Url, bearer: &Challenge) -> Result<Scheme, Unmet> {
    let text = bearer.param("realm").ok_or(Unmet::Realm("the challenge names no realm", None))?;
    let realm = realm(source, standing, registry, text)?;
    let service = bearer.param("service").unwrap_or_default().to_owned();
    if service.len() > MAX_SERVICE {
        return Err(Unmet::Realm("the challenge names a service that is too long", None));
    }
    Ok(Scheme::Bearer { realm, service })
}

/// With credentials a realm must be the registry's own origin or a declared token host. Without, any public host will do:
/// there is nothing to lose but a request.
fn realm(source: &Source, standing: Standing, registry: &Url, text: &str) -> Result<Url, Unmet> {
    let refuse = |why| Err(Unmet::Realm(why, None));
    if text.len() > MAX_REALM {
        return refuse("the realm is too long");
    }
    let Ok(mut realm) = Url::parse(text) else {
        return refuse("the realm is not a URL");
    };
    realm.set_fragment(None);
    match realm.scheme() {
        "https" => {}
        "http" if source.insecure => {}
        "http" => return refuse("the realm is plain http"),
        _ => return refuse("the realm is not http"),
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return refuse("the realm has a user name in it");
    }
    if origin::same(registry, &realm) || origin::declared(&source.token_hosts, &realm) {
        return Ok(realm);
    }
    let Some(host) = realm.host() else {
        return refuse("the realm has no host");
    };
    let public =
        source.allow_private || (net::may_be_public(&host) && realm.port().is_none_or(net::is_web_port));
    match standing {
        _ if !public => refuse("the realm is not on a public host"),
        Standing::Anonymous => Ok(realm),
        Standing::Credentialed => {
            Err(Unmet::Realm("the realm is not among the source's `token_hosts`", Some(host.to_string())))
        }
    }
}
