//! One source: its section, its secrets, and what a known registry brings.

use std::time::Duration;

use url::Url;

use super::SecretRef;
use super::model::{Auth, OnGone, Secret, Source, SourceKind, Timeouts};
use super::read::{At, Found, Reader, Section, Site};
use super::schema;
use super::value::{HostName, Label, Origin, Path, RegistryName, Text, authority};
use crate::net::may_be_public;
use crate::pattern::{HostPattern, NamePattern};
use crate::registries::{self, Registry};

/// A source, and where its parts stand in the file.
pub(super) struct Draft {
    pub(super) source: Source,
    pub(super) name_at: At,
    pub(super) url_at: At,
    pub(super) known: Option<&'static Registry>,
    /// Its registry names; those that follow from `url` stand at `url`.
    pub(super) names: Vec<Found<String>>,
    pub(super) hosts: Vec<Found<String>>,
    pub(super) images: Vec<Found<NamePattern>>,
}

/// Reads one source; `None` when it lacks a name or a usable URL, which has then been said.
pub(super) fn draft(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Draft> {
    let name = section.get::<Label>(reader, "name").map(|label| label.0);
    let kind = section.get::<SourceKind>(reader, "type").unwrap_or(SourceKind::Registry);
    let insecure = section.get::<bool>(reader, "insecure").unwrap_or_default();
    let allow_private = section.get::<bool>(reader, "allow_private").unwrap_or_default();
    let trust = Trust { insecure, allow_private };
    let url = section.get::<Origin>(reader, "url").map(|origin| origin.0);
    if let Some(url) = &url {
        trust.check(reader, &section.at("url"), url);
    }
    let alternates = alternates(reader, section, &trust);
    let auth = section.section(reader, "auth").map(|section| auth(reader, &section));
    let credentials = auth.is_some();
    let public = section.list::<NamePattern>(reader, "public").unwrap_or_default();
    if !credentials && !public.is_empty() {
        let message = "without `auth` there is nothing to be asked: everything is public or refused upstream";
        reader.warn(&section.at("public"), message, "remove the key, or add `auth`");
    }
    if let Some(url) = url.as_ref().filter(|url| credentials && url.scheme() == "http") {
        let message = format!("the credentials travel to {} in the clear", authority(url));
        reader.warn(&section.at("auth"), message, "use https");
    }
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let token_hosts = host_patterns(reader, section, "token_hosts", true);
    let blob_hosts = host_patterns(reader, section, "blob_hosts", false);
    let hosts = section.list::<HostName>(reader, "hosts").unwrap_or_default();
    let images = section.list::<NamePattern>(reader, "images").unwrap_or_default();
    let known = registries::known(host);
    let names = names(reader, section, kind, url.as_ref(), known);
    let of_registry = || match kind {
        SourceKind::Registry => (
            known.map(|known| known.token_patterns(host)).unwrap_or_default(),
            known.and_then(Registry::blob_patterns),
        ),
        // No registry's token service is to see what was meant for home; an alternate is asked anonymously.
        SourceKind::Entrepot => (Vec::new(), blob_hosts_of(&alternates)),
    };
    let (known_token_hosts, known_blob_hosts) = of_registry();
    let source = Source {
        name: name.as_deref().unwrap_or_default().into(),
        kind,
        alternates,
        names: Vec::new(),
        hosts: Vec::new(),
        images: images.iter().map(|found| found.value.clone()).collect(),
        mirror: section.get::<bool>(reader, "mirror").unwrap_or_default(),
        auth: auth.flatten(),
        public: public.into_iter().map(|found| found.value).collect(),
        token_hosts: token_hosts.unwrap_or(known_token_hosts),
        blob_hosts: blob_hosts.or(known_blob_hosts),
        insecure,
        allow_private,
        on_gone: section.get::<OnGone>(reader, "on_gone").unwrap_or(OnGone::Keep),
        timeouts: timeouts(reader, section),
        library: names.iter().any(|name| registries::HUB_NAMES.contains(&name.value.as_str())),
        url: url?,
    };
    name?;
    let hosts = hosts.into_iter().map(|found| Found { at: found.at, value: found.value.0 }).collect();
    let (name_at, url_at) = (section.at("name"), section.at("url"));
    // The label of what a mirror of ours is asked for.
    let asked_for = || names.first().and_then(|name| registries::known(&name.value));
    let known = if kind == SourceKind::Entrepot { asked_for() } else { known };
    Some(Draft { source, name_at, url_at, known, names, hosts, images })
}

/// What a source allows its URLs to be.
struct Trust {
    insecure: bool,
    allow_private: bool,
}

impl Trust {
    fn check(&self, reader: &mut Reader<'_>, at: &At, url: &Url) {
        if url.scheme() == "http" && !self.insecure {
            let remedy = "use https://, or set `insecure: true` on this source";
            reader.problem(at, "plain http can be read and changed by anyone on the way", remedy);
        }
        if !self.allow_private && url.host().is_some_and(|host| !may_be_public(&host)) {
            let message = format!("`{}` is not a public address", url.host_str().unwrap_or_default());
            let remedy = "if this registry is meant to be in a private network, set `allow_private: true` on this source";
            reader.problem(at, message, remedy);
        }
    }
}

fn alternates(reader: &mut Reader<'_>, section: &Section<'_>, trust: &Trust) -> Vec<Url> {
    let found = section.list::<Origin>(reader, "alternates").unwrap_or_default();
    for alternate in &found {
        trust.check(reader, &alternate.at, &alternate.value.0);
    }
    found.into_iter().map(|found| found.value.0).collect()
}

/// The registry's names: those of the file, else those of the known registry, else the host of its URL.
fn names(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    kind: SourceKind,
    url: Option<&Url>,
    known: Option<&'static Registry>,
) -> Vec<Found<String>> {
    if section.has("names") || kind == SourceKind::Entrepot {
        let before = reader.problems.len();
        let found = section.list::<RegistryName>(reader, "names").unwrap_or_default();
        if kind == SourceKind::Entrepot && found.is_empty() && reader.problems.len() == before {
            let message = "an entrepot holds what others are the registries of, and nobody says which";
            reader.problem(&section.at("names"), message, "name them, for example `names: [\"docker.io\"]`");
        }
        return found.into_iter().map(|found| Found { at: found.at, value: found.value.0 }).collect();
    }
    let at = section.at("url");
    match known {
        Some(known) if !known.names.is_empty() => {
            known.names.iter().map(|name| Found { at: at.clone(), value: (*name).to_owned() }).collect()
        }
        _ => url.map(|url| Found { at, value: authority(url) }).into_iter().collect(),
    }
}

/// Where the redirects of these registries lead; `None` when that is not known of each.
fn blob_hosts_of(registries: &[Url]) -> Option<Vec<HostPattern>> {
    let mut patterns = Vec::new();
    for registry in registries {
        patterns.extend(registries::known(registry.host_str()?)?.blob_patterns()?);
    }
    (!patterns.is_empty()).then_some(patterns)
}

/// `None`: wrong, which has been said.
fn auth(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Auth> {
    const WAYS: [&str; 5] = ["password", "password_file", "password_env", "password_kv", "helper"];
    let given: Vec<&str> = WAYS.into_iter().filter(|way| section.has(way)).collect();
    match given.as_slice() {
        [] => {
            let remedy = "add one of password, password_file, password_env, password_kv and helper";
            reader.problem(&section.at, "there is no password", remedy);
        }
        [_] => {}
        [_, second, ..] => {
            let message = format!("{} exclude each other", given.join(" and "));
            reader.problem(&section.at(second), message, "keep one of them");
        }
    }
    let username = section.get::<Text>(reader, "username").map(|text| text.0);
    if let Some(Label(helper)) = section.get::<Label>(reader, "helper") {
        if reader.site.is_edge() {
            let remedy = "use password_env or password_kv";
            reader.problem(&section.at("helper"), "there are no programs at the edge", remedy);
        }
        if username.is_some() && given.len() == 1 {
            let remedy = "remove `username`: the helper tells it";
            reader.problem(&section.at("username"), "`username` and `helper` exclude each other", remedy);
        }
        return Some(Auth::Helper(helper));
    }
    if !section.has("username") && !section.has("helper") {
        reader.problem(&section.at("username"), "this key is missing", "add the user name");
    }
    if let Some(Text(key)) = section.get::<Text>(reader, "password_kv") {
        if reader.site == Site::Home {
            let remedy = "use password_file or password_env; for both places, write two files";
            reader.problem(&section.at("password_kv"), "there is a KV namespace only at the edge", remedy);
        }
        return Some(Auth::Kv { username: username?, key });
    }
    let mut password = section.get::<Text>(reader, "password").map(|text| text.0);
    if let Some(Path(path)) = section.get::<Path>(reader, "password_file") {
        password = reader.secret(&section.at("password_file"), &SecretRef::File(path));
    }
    if let Some(Text(name)) = section.get::<Text>(reader, "password_env") {
        password = reader.secret(&section.at("password_env"), &SecretRef::Env(name));
    }
    Some(Auth::Static { username: username?, password: Secret::new(password?) })
}

fn timeouts(reader: &mut Reader<'_>, source: &Section<'_>) -> Timeouts {
    let section = source.section_or_defaults(reader, "timeouts", &schema::TIMEOUTS);
    let mut time = |name: &str| {
        let time = section.get::<Duration>(reader, name).unwrap_or_default();
        if time.is_zero() {
            reader.problem(
                &section.at(name),
                "nothing can be done in no time",
                "give it some, for example 10s",
            );
        }
        time
    };
    Timeouts { connect: time("connect"), first_byte: time("first_byte"), stall: time("stall") }
}

fn host_patterns(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    name: &str,
    secrets: bool,
) -> Option<Vec<HostPattern>> {
    let found = section.list::<HostPattern>(reader, name)?;
    for pattern in &found {
        if let Some(suffix) = pattern.value.suffix().filter(|suffix| secrets && is_shared(suffix)) {
            let message = format!("anyone can have a host under `{suffix}`, and credentials would go there");
            reader.problem(&pattern.at, message, "name the host that issues the tokens");
        }
    }
    Some(found.into_iter().map(|found| found.value).collect())
}

/// Whether strangers get names under this suffix: a top-level domain, one of the usual second levels of a country, or a
/// well-known provider's.
fn is_shared(suffix: &str) -> bool {
    const SECOND_LEVELS: &[&str] = &["ac", "co", "com", "edu", "go", "gov", "gv", "ne", "net", "or", "org"];
    const PROVIDERS: &[&str] = &[
        "aliyuncs.com",
        "amazonaws.com",
        "amazonaws.com.cn",
        "appspot.com",
        "azurecr.io",
        "azurewebsites.net",
        "cloudapp.net",
        "cloudflarestorage.com",
        "cloudfront.net",
        "digitaloceanspaces.com",
        "elasticbeanstalk.com",
        "fly.dev",
        "github.io",
        "githubusercontent.com",
        "gitlab.io",
        "googleapis.com",
        "herokuapp.com",
        "myqcloud.com",
        "netlify.app",
        "ngrok.io",
        "onrender.com",
        "pages.dev",
        "pkg.dev",
        "r2.dev",
        "run.app",
        "trycloudflare.com",
        "vercel.app",
        "web.app",
        "windows.net",
        "workers.dev",
    ];
    let labels: Vec<&str> = suffix.split('.').collect();
    match labels.as_slice() {
        [_] => true,
        [second, top] if top.len() == 2 && SECOND_LEVELS.contains(second) => true,
        _ => PROVIDERS.iter().any(|provider| {
            suffix == *provider || suffix.strip_suffix(provider).is_some_and(|region| region.ends_with('.'))
        }),
    }
}
