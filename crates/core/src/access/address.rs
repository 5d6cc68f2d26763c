//! Clients that send a mirror no credentials, as dockerd's `registry-mirrors`, and are known by a secret in the address
//! that they ask: a label under the endpoint's host, or the first part of the path.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{ClientToken, Config, Secret};
use crate::failure::{Failure, Reason};
use crate::resolve::{is_name, without_port};

/// Characters of a secret: too many to guess, and no more than a label has.
const LENGTH: RangeInclusive<usize> = 16..=63;

/// What stands in its place in a log.
const MASK: &str = "***";

/// Where a request goes once the secret is taken out of its address. One that we do not know is left where it is, so that
/// it is answered like any other name that we do not know.
#[derive(Debug)]
pub struct Entrance<'a> {
    /// The `Host`, with its port if it has one.
    pub host: &'a str,
    /// What stands before `/v2`.
    pub root: Option<&'a str>,
    /// Who is known by the secret.
    pub client: Option<Arc<str>>,
    /// What was taken from the path; the links that we give this client need it.
    pub secret: Option<Secret>,
}

/// Looks for a secret. `host` is in lower case; `root` is what `path` has before `/v2`.
///
/// Errors: `NameUnknown` for one of our secrets anywhere else in the path, where it would be asked for upstream.
pub fn entrance<'a>(
    config: &Config,
    host: &'a str,
    path: &str,
    root: Option<&'a str>,
) -> Result<Entrance<'a>, Failure> {
    let by_host = label(config, host).and_then(|label| {
        let client = find(&config.access.secret_hosts, label)?;
        Some((client, &host[label.len() + 1..]))
    });
    let (first, deeper) = root.map_or(("", None), |root| match root.split_once('/') {
        Some((first, deeper)) => (first, Some(deeper)),
        None => (root, None),
    });
    let by_path = find(&config.access.secret_paths, first);
    let rest = if by_path.is_some() { &path[1 + first.len()..] } else { path };
    if has_secrets(config) && words(rest).any(|(_, word)| is_secret(config, word)) {
        let public = "there is a secret in this path where a name belongs; it goes right behind the host";
        return Err(Failure::new(Reason::NameUnknown, public));
    }
    Ok(Entrance {
        host: by_host.map_or(host, |(_, host)| host),
        root: if by_path.is_some() { deeper } else { root },
        client: by_host.map(|(client, _)| client).or(by_path).map(Arc::from),
        secret: by_path.map(|_| Secret::new(first)),
    })
}

/// A request's target as it may be logged: without secrets wherever they stand, and, where secrets are taken from paths,
/// without a first part that might be meant as one.
pub fn loggable<'t>(config: &Config, target: &'t str) -> Cow<'t, str> {
    if !has_secrets(config) {
        return Cow::Borrowed(target);
    }
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    let first = target.strip_prefix('/').unwrap_or_default().split(['/', '?']).next().unwrap_or_default();
    if !config.access.secret_paths.is_empty() && !is_ordinary(config, first) {
        hidden.push((1, 1 + first.len()));
    }
    let after = hidden.last().map_or(0, |(_, end)| *end);
    let secrets = words(&target[after..]).filter(|(_, word)| is_secret(config, word));
    hidden.extend(secrets.map(|(at, word)| (after + at, after + at + word.len())));
    if hidden.is_empty() {
        return Cow::Borrowed(target);
    }
    let mut shown = String::with_capacity(target.len());
    let mut from = 0;
    for (start, end) in hidden {
        shown.push_str(&target[from..start]);
        shown.push_str(MASK);
        from = end;
    }
    shown.push_str(&target[from..]);
    Cow::Owned(shown)
}

/// The one label under the endpoint's host, if the request went to one.
fn label<'h>(config: &Config, host: &'h str) -> Option<&'h str> {
    let endpoint = config.endpoint.domain()?;
    let label = without_port(host).strip_suffix(endpoint)?.strip_suffix('.')?;
    (!label.contains('.')).then_some(label)
}

/// Whose secret `presented` is. Every one is compared, each in constant time.
fn find<'c>(clients: &'c [ClientToken], presented: &str) -> Option<&'c str> {
    if clients.is_empty() || !LENGTH.contains(&presented.len()) || !presented.bytes().all(is_letter) {
        return None;
    }
    let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
    let mut found = None;
    for client in clients {
        if bool::from(client.sha256.ct_eq(&presented)) {
            found = Some(client.name.as_str());
        }
    }
    found
}

/// Whether an address may hold a secret by which a client is known.
pub fn has_secrets(config: &Config) -> bool {
    !config.access.secret_hosts.is_empty() || !config.access.secret_paths.is_empty()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn is_secret(config: &Config, word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    find(&config.access.secret_hosts, &word).is_some() || find(&config.access.secret_paths, &word).is_some()
}

/// What a request for something of ours begins with.
fn is_ordinary(config: &Config, first: &str) -> bool {
    matches!(first, "" | "v2" | "token" | "metrics") || is_name(config, first)
}

/// The runs of letters, digits and `-`, with their places; a percent-encoding stands between two of them.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        loop {
            match bytes.get(at)? {
                b'%' if bytes
                    .get(at + 1..at + 3)
                    .is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) =>
                {
                    at += 3
                }
                byte if is_inner(*byte) => break,
                _ => at += 1,
            }
        }
        let start = at;
        at += bytes[start..].iter().take_while(|byte| is_inner(**byte)).count();
        Some((start, &text[start..at]))
    })
}

#[cfg(test)]
mod tests;
