//! Which upstream is meant, and which repository there.
//!
//! A source is named by `?ns=`, by what stands before `/v2`, by the `Host` name, or by a registry or source at the head of
//! the name; where several of them speak they must agree, except that `?ns=` overrides `Host`. Where none does, the
//! image patterns decide in file order, then the default source. Nothing here leads to an upstream that is not
//! configured, and no lookup of any kind is made for one.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use entrepot_oci::name::Repository;
use entrepot_oci::path::RawName;
use url::Position;

use crate::config::{Config, Secret, Source};
use crate::failure::{Failure, Reason};

/// Bytes that the last part of most keys has at most: `anonymous ` and a digest.
const REST: usize = 96;

/// The upstream and the repository that a request means.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub source: Arc<Source>,
    /// The upstream's own name, with `library/` filled in.
    pub repository: Repository,
    /// The name as the client spelt it, which is what `name` in a tag list and a token's scope say.
    pub shown: String,
    /// What stands before `/v2` in the client's paths.
    pub root: Option<String>,
    /// What stands before that: a secret by which the client is known. It goes back to that client alone.
    pub secret: Option<Secret>,
    /// The `?ns=` that chose the source, for `OCI-Namespace`: one of the source's configured names, never the client's
    /// own text.
    pub ns: Option<String>,
}

impl Resolved {
    /// Whether `?ns=` was used, so that the answer carries `OCI-Namespace`.
    pub fn ns_used(&self) -> bool {
        self.ns.is_some()
    }

    /// The client's path to the repository, to build links from: `/v2/ghcr.io/foo/bar`.
    pub fn path(&self) -> String {
        let secret = self.secret.as_ref().map(|secret| format!("/{}", secret.expose())).unwrap_or_default();
        let root = self.root.as_ref().map(|root| format!("/{root}")).unwrap_or_default();
        format!("{secret}{root}/v2/{}", self.shown)
    }
}

/// Resolves a name. `host` is the `Host` of the request in lower case, with its port if it has one, or empty; `root` is
/// what stands before `/v2`.
///
/// Errors: `NameUnknown` for a registry that is not configured, or two ways of naming one that disagree; `NameInvalid`
/// for what is no repository name.
pub fn resolve(
    config: &Config,
    host: &str,
    root: Option<&str>,
    ns: Option<&str>,
    name: &RawName,
) -> Result<Resolved, Failure> {
    let choice = choose(config, host, root, ns)?;
    let (source, rest) = match choice {
        Some(Choice { source, kind }) => (source, strip_own(config, source, kind, name.as_str())?),
        None => by_name(config, name.as_str())?,
    };
    let repository = fill_in(source, rest)?;
    Ok(Resolved {
        source: Arc::clone(source),
        repository,
        shown: name.as_str().to_owned(),
        root: root.map(str::to_owned),
        secret: None,
        ns: ns.map(str::to_ascii_lowercase),
    })
}

/// The key under which a record about a repository is kept, which holds everything that the record depends on: the
/// upstream, as whom it was asked (the source's name, for two sources may lead to one registry with different
/// credentials), the repository, and what of it. No two different things share a key: `kind` is a word, and no part but
/// `rest` can hold a `|`.
pub fn record_key(source: &Source, repository: &Repository, kind: &str, rest: impl fmt::Display) -> String {
    let url = &source.url;
    let (scheme, host) = (url.scheme(), &url[Position::BeforeHost..Position::AfterPort]);
    let name = match source.name.contains(['%', '|']) {
        true => Cow::Owned(source.name.replace('%', "%25").replace('|', "%7C")),
        false => Cow::Borrowed(&*source.name),
    };
    let parts = [kind, "|", scheme, "://", host, "|", &name, "|", repository.as_str(), "|"];
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = String::with_capacity(length + REST);
    key.extend(parts);
    // Writing to a string cannot fail.
    let _ = write!(key, "{rest}");
    key
}

/// The source that a request names outside of its repository, if it names one: what a ping needs.
///
/// Errors: `NameUnknown`, as [`resolve`].
pub fn named(
    config: &Config,
    host: &str,
    root: Option<&str>,
    ns: Option<&str>,
) -> Result<Option<Arc<Source>>, Failure> {
    Ok(choose(config, host, root, ns)?.map(|choice| Arc::clone(choice.source)))
}

struct Choice<'a> {
    source: &'a Arc<Source>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ns,
    Other,
}

/// What `?ns=`, root and `Host` say together. The `Host` name gives way to `?ns=`: containerd sends `?ns=quay.io` to
/// whatever mirror it was told of.
fn choose<'a>(
    config: &'a Config,
    host: &str,
    root: Option<&str>,
    ns: Option<&str>,
) -> Result<Option<Choice<'a>>, Failure> {
    let by_ns = ns
        .map(|ns| by_registry(config, ns).ok_or_else(|| unknown_registry("the `ns` parameter")))
        .transpose()?;
    let by_root = root
        .map(|root| {
            by_registry(config, root)
                .or_else(|| by_source_name(config, root))
                .ok_or_else(|| unknown_registry("the path before /v2"))
        })
        .transpose()?;
    let (source, kind) = match (by_ns, by_host(config, host)) {
        (Some(source), _) => (Some(source), Kind::Ns),
        (None, host) => (host, Kind::Other),
    };
    match (source, by_root) {
        (Some(source), Some(root)) if !Arc::ptr_eq(source, root) => Err(contradiction()),
        (source, root) => Ok(source.or(root).map(|source| Choice { source, kind })),
    }
}

/// The source is known already, so the name is a repository there, except that clients told to ask `host/v2/<registry>`
/// (BuildKit's `mirrors = ["host/path"]`, containerd's `override_path`) also put the registry in front. A registry name is
/// taken off, and another source's is a contradiction. A source's short name may be a repository's first part as well
/// (`quay.io/quay/clair`), so it is taken off only behind `?ns=`, where such clients come from, and only when what
/// remains has two parts.
fn strip_own<'n>(
    config: &Config,
    source: &Arc<Source>,
    kind: Kind,
    name: &'n str,
) -> Result<&'n str, Failure> {
    let Some((first, rest)) = name.split_once('/') else {
        return Ok(name);
    };
    match by_registry(config, first) {
        Some(named) if Arc::ptr_eq(named, source) => Ok(rest),
        Some(_) => Err(contradiction()),
        None if kind == Kind::Ns && rest.contains('/') && same_name(first, &source.name) => Ok(rest),
        None => Ok(name),
    }
}

/// No source is named outside of the repository's name, so that name is asked.
fn by_name<'a, 'n>(config: &'a Config, name: &'n str) -> Result<(&'a Arc<Source>, &'n str), Failure> {
    if let Some((first, rest)) = name.split_once('/') {
        if let Some(source) = by_registry(config, first).or_else(|| by_source_name(config, first)) {
            return Ok((source, rest));
        }
        if looks_like_registry(first) {
            return Err(unknown_registry("the name's first part"));
        }
    }
    let by_pattern = config.sources.iter().find(|source| owns_image(source, name));
    let default = || config.default_source.and_then(|index| config.sources.get(index));
    by_pattern.or_else(default).map(|source| (source, name)).ok_or_else(|| {
        Failure::new(
            Reason::NameUnknown,
            "the name carries no registry and there is no default source: ask for <registry>/<repository>",
        )
    })
}

/// Docker's rule for telling `registry/repository` from `user/repository`.
fn looks_like_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first.eq_ignore_ascii_case("localhost")
}

fn owns_image(source: &Source, name: &str) -> bool {
    let filled = source.library && !name.contains('/');
    source
        .images
        .iter()
        .any(|pattern| pattern.matches(name) || (filled && pattern.matches(&format!("library/{name}"))))
}

fn by_registry<'a>(config: &'a Config, name: &str) -> Option<&'a Arc<Source>> {
    config.sources.iter().find(|source| source.names.iter().any(|known| same_name(known, name)))
}

fn by_source_name<'a>(config: &'a Config, name: &str) -> Option<&'a Arc<Source>> {
    config.sources.iter().find(|source| same_name(&source.name, name))
}

/// A configured host without a port is meant on every port we listen on.
fn by_host<'a>(config: &'a Config, host: &str) -> Option<&'a Arc<Source>> {
    let bare = without_port(host);
    config
        .sources
        .iter()
        .find(|source| source.hosts.iter().any(|known| same_name(known, host) || same_name(known, bare)))
}

/// Whether this is a registry's or source's name.
pub(crate) fn is_name(config: &Config, name: &str) -> bool {
    by_registry(config, name).or_else(|| by_source_name(config, name)).is_some()
}

pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

fn same_name(known: &str, asked: &str) -> bool {
    !asked.is_empty() && known.eq_ignore_ascii_case(asked)
}

fn fill_in(source: &Source, name: &str) -> Result<Repository, Failure> {
    let parsed = if source.library && !name.contains('/') {
        // An over-long name stays over-long, so the message speaks of what the client wrote plus `library/`.
        format!("library/{name}").parse()
    } else {
        name.parse()
    };
    parsed
        .map_err(|error: entrepot_oci::name::NameError| Failure::new(Reason::NameInvalid, error.to_string()))
}

fn unknown_registry(whence: &str) -> Failure {
    Failure::new(
        Reason::NameUnknown,
        format!(
            "{whence} names a registry that this mirror does not serve; it must be one of its configured sources"
        ),
    )
}

fn contradiction() -> Failure {
    Failure::new(
        Reason::NameUnknown,
        "the path and the `ns` parameter or Host name two different registries; leave one of them out",
    )
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
