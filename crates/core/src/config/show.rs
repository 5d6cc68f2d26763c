//! The configuration as YAML, in the words of its own schema, without its secrets.

use std::time::Duration;

use entrepot_oci::manifest::Platform;

use super::model::{
    Access, Auth, Cache, Config, Edge, OnGone, RateLimit, Source, SourceKind, Timeouts, WarmImage,
};
use super::tree::{Entry, Node, Value};
use super::units::{duration_text, rate_text, size_text};
use super::value::origin_text;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Everything that holds, defaults and derived values included. Passwords and the hashes of tokens are masked; apart
/// from those the text can be read again, and means the same.
pub fn show(config: &Config) -> String {
    let root = map([("proxy", proxy(config))]);
    // The tree consists of texts, booleans, numbers, lists and maps with text keys, which YAML can always spell.
    serde_saphyr::to_string(&root).unwrap_or_default()
}

fn proxy(config: &Config) -> Node {
    let mut proxy =
        vec![("endpoint", text(origin_text(&config.endpoint))), ("listen", texts(&config.listen))];
    proxy.extend(config.admin.map(|admin| ("admin", text(admin.to_string()))));
    proxy.extend(
        config
            .tls
            .as_ref()
            .map(|tls| ("tls", map([("cert", text(tls.cert.clone())), ("key", text(tls.key.clone()))]))),
    );
    proxy.push(("cache", cache(&config.cache)));
    proxy.extend(config.rate_limit.map(|limit| ("rate_limit", rate_limit(limit))));
    proxy.push(("access", access(&config.access)));
    proxy.push(("trusted_proxies", texts(&config.trusted_proxies)));
    let default = config.default_source.and_then(|index| config.sources.get(index));
    proxy.extend(default.map(|source| ("default_source", text(source.name.as_ref()))));
    proxy.push(("sources", list(config.sources.iter().map(|found| source(found)))));
    proxy.push(("edge", edge(&config.edge)));
    map(proxy)
}

fn cache(cache: &Cache) -> Node {
    let rules = cache.rules.iter().map(|rule| {
        map([
            ("images", list(rule.images.iter().map(|pattern| text(pattern.as_str())))),
            ("tags", list(rule.tags.iter().map(|pattern| text(pattern.as_str())))),
            ("manifest_ttl", time(rule.manifest_ttl)),
        ])
    });
    let mut entries = Vec::new();
    entries.extend(cache.dir.clone().map(|dir| ("dir", text(dir))));
    entries.extend([
        ("max_size", text(size_text(cache.max_size))),
        ("manifest_ttl", time(cache.manifest_ttl)),
        ("blob_ttl", time(cache.blob_ttl.unwrap_or_default())),
        ("negative_ttl", time(cache.negative_ttl)),
        ("max_stale", time(cache.max_stale)),
        ("rules", list(rules)),
    ]);
    map(entries)
}

fn rate_limit(limit: RateLimit) -> Node {
    let burst = node(Value::Number(limit.burst.to_string()));
    map([("anonymous", text(rate_text(limit.count, limit.per))), ("burst", burst)])
}

fn access(access: &Access) -> Node {
    let tokens = access.tokens.iter().map(|token| {
        let mut entries = vec![("name", text(token.name.as_str())), ("sha256", text(MASK))];
        entries.extend(token.forwards.then(|| ("forwards", flag(true))));
        map(entries)
    });
    let mut entries = vec![
        ("anonymous", flag(access.anonymous)),
        ("networks", texts(&access.networks)),
        ("tokens", list(tokens)),
    ];
    let variable = |name: &Option<String>| name.clone().map(text);
    entries.extend(variable(&access.secret_hosts_env).map(|name| ("secret_hosts_env", name)));
    entries.extend(variable(&access.secret_paths_env).map(|name| ("secret_paths_env", name)));
    map(entries)
}

fn source(source: &Source) -> Node {
    let patterns = |patterns: &[crate::pattern::NamePattern]| {
        list(patterns.iter().map(|pattern| text(pattern.as_str())))
    };
    let mut entries = vec![
        ("name", text(source.name.as_ref())),
        (
            "type",
            text(match source.kind {
                SourceKind::Registry => "registry",
                SourceKind::Entrepot => "entrepot",
            }),
        ),
        ("url", text(origin_text(&source.url))),
        ("alternates", list(source.alternates.iter().map(|url| text(origin_text(url))))),
        ("names", texts(&source.names)),
        ("hosts", texts(&source.hosts)),
        ("images", patterns(&source.images)),
        ("mirror", flag(source.mirror)),
    ];
    entries.extend(source.auth.as_ref().map(|found| ("auth", auth(found))));
    entries.push(("public", patterns(&source.public)));
    entries.push(("token_hosts", texts(&source.token_hosts)));
    entries.extend(source.blob_hosts.as_ref().map(|hosts| ("blob_hosts", texts(hosts))));
    entries.extend([
        ("insecure", flag(source.insecure)),
        ("allow_private", flag(source.allow_private)),
        (
            "on_gone",
            text(match source.on_gone {
                OnGone::Keep => "keep",
                OnGone::Follow => "follow",
            }),
        ),
        ("timeouts", timeouts(&source.timeouts)),
    ]);
    map(entries)
}

fn auth(auth: &Auth) -> Node {
    match auth {
        Auth::Static { username, .. } => {
            map([("username", text(username.as_str())), ("password", text(MASK))])
        }
        Auth::Kv { username, key } => {
            map([("username", text(username.as_str())), ("password_kv", text(key.as_str()))])
        }
        Auth::Helper(helper) => map([("helper", text(helper.as_str()))]),
    }
}

fn edge(edge: &Edge) -> Node {
    let image = |image: &WarmImage| {
        let joint = if image.reference.to_string().contains(':') { '@' } else { ':' };
        text(format!("{}{joint}{}", image.name, image.reference))
    };
    let platform = |platform: &Platform| {
        let variant = platform.variant.iter().map(|variant| format!("/{variant}")).collect::<String>();
        text(format!("{}/{}{variant}", platform.os, platform.architecture))
    };
    let warm = edge.warm.iter().map(|warm| {
        map([
            ("images", list(warm.images.iter().map(image))),
            ("platforms", list(warm.platforms.iter().map(platform))),
        ])
    });
    map([
        ("front_ttl", time(edge.front_ttl)),
        ("error_ttl", time(edge.error_ttl)),
        ("cron", text(edge.cron.as_str())),
        ("warm", list(warm)),
    ])
}

fn timeouts(timeouts: &Timeouts) -> Node {
    map([
        ("connect", time(timeouts.connect)),
        ("first_byte", time(timeouts.first_byte)),
        ("stall", time(timeouts.stall)),
    ])
}

fn time(duration: Duration) -> Node {
    text(duration_text(duration))
}

fn flag(value: bool) -> Node {
    node(Value::Bool(value))
}

fn text(value: impl Into<String>) -> Node {
    node(Value::Text(value.into()))
}

fn texts<T: ToString>(values: &[T]) -> Node {
    list(values.iter().map(|value| text(value.to_string())))
}

fn list(items: impl IntoIterator<Item = Node>) -> Node {
    node(Value::List(items.into_iter().collect()))
}

fn map(entries: impl IntoIterator<Item = (&'static str, Node)>) -> Node {
    let entry = |(key, node): (&str, Node)| Entry { key: key.to_owned(), line: 0, column: 0, node };
    node(Value::Map(entries.into_iter().map(entry).collect()))
}

fn node(value: Value) -> Node {
    Node { value, ..Node::default() }
}
