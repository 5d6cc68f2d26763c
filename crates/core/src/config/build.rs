//! From the tree to the configuration: reads each section, and fills in what follows from the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::SecretRef;
use super::model::{Access, Cache, ClientToken, Config, RateLimit, Source, Tls, TtlRule};
use super::problem::Complaint;
use super::read::{At, Found, Reader, Section, closest};
use super::schema;
use super::source::{self, Draft};
use super::tree::Node;
use super::units::{Rate, Size};
use super::value::{Count, Label, Origin, Path, Scalar, Sha256, Text};
use super::{claims, overlap, warm};
use crate::pattern::NamePattern;

/// What holds at the edge unless the file says otherwise: 100 manifest requests a minute.
const EDGE_RATE_LIMIT: RateLimit = RateLimit { count: 100, per: Duration::from_secs(60), burst: 100 };

/// Reads the whole file. `None`, or a value beside problems in the reader, is not to be used.
pub(super) fn config(reader: &mut Reader<'_>, root: &Node) -> Option<Config> {
    let file = Section::open(
        reader,
        At { key: String::new(), line: root.line, column: root.column },
        root,
        &schema::FILE,
    );
    let proxy = file.section(reader, "proxy")?;

    let listen = listen(reader, &proxy);
    let admin = admin(reader, &proxy, &listen);
    let tls = tls(reader, &proxy);
    let endpoint = endpoint(reader, &proxy, &listen, tls.is_some());
    let cache = cache(reader, &proxy);
    let rate_limit = rate_limit(reader, &proxy);
    let access = access(reader, &proxy);
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.domain().is_none())
        && access.secret_hosts_env.is_some()
    {
        let at = At { key: "proxy.access.secret_hosts_env".into(), ..proxy.at("access") };
        reader.problem(
            &at,
            "there are no labels under an address",
            "give the mirror an `endpoint` with a name",
        );
    }
    let trusted_proxies =
        networks(reader, &proxy, "trusted_proxies", "every client may then claim any address");
    let mut drafts: Vec<Draft> = Vec::new();
    for section in proxy.sections(reader, "sources") {
        drafts.extend(source::draft(reader, &section));
    }
    if proxy.has("sources") && drafts.is_empty() && reader.problems.is_empty() {
        let at = proxy.at("sources");
        reader.problem(&at, "there is nothing to mirror", "list at least one source");
    }
    claims::settle(reader, &mut drafts, endpoint.as_ref());
    overlap::images(reader, &drafts);
    let default_source = default_source(reader, &proxy, &drafts);
    let edge = warm::edge(reader, &proxy, &drafts);

    Some(Config {
        endpoint: endpoint?,
        listen: listen.into_iter().map(|found| found.value).collect(),
        admin,
        tls,
        cache,
        rate_limit,
        access,
        trusted_proxies,
        sources: drafts.into_iter().map(|draft| Arc::<Source>::new(draft.source)).collect(),
        default_source,
        edge,
    })
}

fn listen(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Vec<Found<SocketAddr>> {
    let listen = proxy.list::<SocketAddr>(reader, "listen").unwrap_or_default();
    if listen.is_empty() && reader.problems.is_empty() {
        reader.problem(
            &proxy.at("listen"),
            "there is no address to listen on",
            "list one, or remove the key",
        );
    }
    for (index, found) in listen.iter().enumerate() {
        if let Some(other) = listen[..index].iter().find(|other| collide(other.value, found.value)) {
            let message = format!("{} and {} cannot both be listened on", other.value, found.value);
            reader.problem(&found.at, message, "keep one of the two");
        }
    }
    listen
}

fn admin(reader: &mut Reader<'_>, proxy: &Section<'_>, listen: &[Found<SocketAddr>]) -> Option<SocketAddr> {
    let admin = proxy.get::<SocketAddr>(reader, "admin")?;
    if let Some(public) = listen.iter().find(|found| collide(found.value, admin)) {
        let message = format!("{admin} is also a public address ({})", public.value);
        reader.problem(&proxy.at("admin"), message, "give it a port of its own");
    }
    Some(admin)
}

/// Whether two sockets would want the same port of the same address. Port 0 is any free one.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn tls(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Option<Tls> {
    if reader.site.is_edge() {
        return None;
    }
    let section = proxy.section(reader, "tls")?;
    let mut file = |name: &str| {
        let path = section.get::<Path>(reader, name)?.0;
        reader.secret(&section.at(name), &SecretRef::File(path.clone())).map(|_| path)
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(Tls { cert: cert?, key: key? })
}

fn endpoint(
    reader: &mut Reader<'_>,
    proxy: &Section<'_>,
    listen: &[Found<SocketAddr>],
    tls: bool,
) -> Option<Url> {
    if reader.site.is_edge() && !proxy.has("endpoint") {
        let remedy = "add it, for example `endpoint: \"https://mirror.example.com\"`";
        reader.problem(&proxy.at("endpoint"), "the edge cannot guess its own URL", remedy);
        return None;
    }
    if let Some(Origin(endpoint)) = proxy.get::<Origin>(reader, "endpoint") {
        if tls && endpoint.scheme() == "http" {
            let at = proxy.at("endpoint");
            reader.warn(&at, "clients are told to use http, but TLS is served", "begin it with https://");
        }
        return Some(endpoint);
    }
    let first = listen.first()?.value;
    let ip = match first.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let scheme = if tls { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{}", SocketAddr::new(ip, first.port()))).ok()
}

fn cache(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Cache {
    let section = proxy.section_or_defaults(reader, "cache", &schema::CACHE);
    let rules = section.sections(reader, "rules");
    let rules: Vec<Found<TtlRule>> = rules.iter().map(|section| ttl_rule(reader, section)).collect();
    overlap::rules(reader, &rules);
    let mut time = |name: &str| section.get::<Duration>(reader, name).unwrap_or_default();
    let (manifest_ttl, blob_ttl) = (time("manifest_ttl"), time("blob_ttl"));
    let (negative_ttl, max_stale) = (time("negative_ttl"), time("max_stale"));
    Cache {
        dir: section.get::<Path>(reader, "dir").map(|path| path.0),
        max_size: section.get::<Size>(reader, "max_size").map_or(0, |size| size.0),
        manifest_ttl,
        blob_ttl: (!blob_ttl.is_zero()).then_some(blob_ttl),
        negative_ttl,
        max_stale,
        rules: rules.into_iter().map(|rule| rule.value).collect(),
    }
}

fn ttl_rule(reader: &mut Reader<'_>, section: &Section<'_>) -> Found<TtlRule> {
    let value = TtlRule {
        images: patterns(reader, section, "images"),
        tags: patterns(reader, section, "tags"),
        manifest_ttl: section.get::<Duration>(reader, "manifest_ttl").unwrap_or_default(),
    };
    Found { at: section.at.clone(), value }
}

/// The patterns of a list, which must not be there and empty: it would match nothing.
fn patterns(reader: &mut Reader<'_>, section: &Section<'_>, name: &str) -> Vec<NamePattern> {
    let before = reader.problems.len();
    let found = section.list::<NamePattern>(reader, name).unwrap_or_default();
    if found.is_empty() && reader.problems.len() == before {
        let remedy = "list at least one, or remove the key for all";
        reader.problem(&section.at(name), "an empty list matches nothing", remedy);
    }
    found.into_iter().map(|found| found.value).collect()
}

fn rate_limit(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Option<RateLimit> {
    let Some(section) = proxy.section(reader, "rate_limit") else {
        return (reader.site.is_edge() && !proxy.has("rate_limit")).then_some(EDGE_RATE_LIMIT);
    };
    let rate = section.get::<Rate>(reader, "anonymous");
    let burst = section.get::<Count>(reader, "burst");
    let rate = rate?;
    Some(RateLimit { count: rate.count, per: rate.per, burst: burst.map_or(rate.count, |burst| burst.0) })
}

fn access(reader: &mut Reader<'_>, proxy: &Section<'_>) -> Access {
    let section = proxy.section_or_defaults(reader, "access", &schema::ACCESS);
    // An open mirror at the edge serves the world.
    let closed = reader.site.is_edge() && !section.has("anonymous");
    let anonymous = !closed && section.get::<bool>(reader, "anonymous").unwrap_or_default();
    let networks = networks(reader, &section, "networks", "every client is then a known one");
    let mut tokens: Vec<Found<ClientToken>> = Vec::new();
    for token in section.sections(reader, "tokens") {
        let name = token.get::<Label>(reader, "name");
        let sha256 = token.get::<Sha256>(reader, "sha256");
        let forwards = token.get::<bool>(reader, "forwards").unwrap_or_default();
        if let (Some(Label(name)), Some(Sha256(sha256))) = (name, sha256) {
            tokens.push(Found { at: token.at("name"), value: ClientToken { name, sha256, forwards } });
        }
    }
    if let Some(Path(path)) = section.get::<Path>(reader, "tokens_file") {
        token_lines(reader, &section.at("tokens_file"), &SecretRef::File(path), &mut tokens);
    }
    if let Some(Text(name)) = section.get::<Text>(reader, "tokens_env") {
        token_lines(reader, &section.at("tokens_env"), &SecretRef::Env(name), &mut tokens);
    }
    let (secret_hosts, secret_hosts_env) = secret_names(reader, &section, "secret_hosts_env");
    let (secret_paths, secret_paths_env) = secret_names(reader, &section, "secret_paths_env");
    let clients: Vec<_> = [&tokens, &secret_hosts, &secret_paths].into_iter().flatten().collect();
    for (index, client) in clients.iter().enumerate() {
        if clients[..index].iter().any(|other| other.value.name == client.value.name) {
            let message = format!("there are two clients named `{}`", client.value.name);
            reader.problem(&client.at, message, "give each token and each secret its own name");
        }
    }
    if !anonymous && networks.is_empty() && clients.is_empty() && reader.problems.is_empty() {
        let remedy = "list `networks`, `tokens` or secrets, or set `anonymous: true`";
        reader.problem(&section.at("anonymous"), "no client could ever pull", remedy);
    }
    let values = |found: Vec<Found<ClientToken>>| found.into_iter().map(|found| found.value).collect();
    Access {
        anonymous,
        networks,
        tokens: values(tokens),
        secret_hosts: values(secret_hosts),
        secret_paths: values(secret_paths),
        secret_hosts_env,
        secret_paths_env,
    }
}

/// What the variable holds that `key` names, and its name.
fn secret_names(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
) -> (Vec<Found<ClientToken>>, Option<String>) {
    let mut found = Vec::new();
    let variable = section.get::<Text>(reader, key).map(|text| text.0);
    if let Some(name) = &variable {
        token_lines(reader, &section.at(key), &SecretRef::Env(name.clone()), &mut found);
    }
    (found, variable)
}

/// Lines of `name:sha256`; empty ones and those that begin with `#` do not count.
fn token_lines(
    reader: &mut Reader<'_>,
    at: &At,
    reference: &SecretRef,
    tokens: &mut Vec<Found<ClientToken>>,
) {
    let Some(text) = reader.secret(at, reference) else {
        return;
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match token_line(line) {
            Ok(value) => tokens.push(Found { at: at.clone(), value }),
            Err(complaint) => {
                let message = format!("{reference}, line {}: {}", index + 1, complaint.message);
                reader.problem(at, message, complaint.remedy);
            }
        }
    }
}

fn token_line(line: &str) -> Result<ClientToken, Complaint> {
    // The line is not quoted in what is said: it may hold the token itself, by mistake.
    let parts = line.split_once(':');
    let (name, sha256) = parts.ok_or_else(|| {
        Complaint::new("this is not `name:sha256`", "write a name, a colon and the SHA-256 of the secret")
    })?;
    let Label(name) = Label::read(name.trim()).map_err(|complaint| {
        Complaint::new("what stands before the colon is not a name", complaint.remedy)
    })?;
    let Sha256(sha256) = Sha256::read(sha256.trim())?;
    Ok(ClientToken { name, sha256, forwards: false })
}

fn networks(reader: &mut Reader<'_>, section: &Section<'_>, name: &str, everyone: &str) -> Vec<IpNet> {
    let found = section.list::<IpNet>(reader, name).unwrap_or_default();
    for net in found.iter().filter(|net| net.value.prefix_len() == 0) {
        let message = format!("{} is every address: {everyone}", net.value);
        reader.warn(&net.at, message, "name the networks that are meant");
    }
    found.into_iter().map(|found| found.value).collect()
}

fn default_source(reader: &mut Reader<'_>, proxy: &Section<'_>, drafts: &[Draft]) -> Option<usize> {
    if let Some(Label(name)) = proxy.get::<Label>(reader, "default_source") {
        let found = drafts.iter().position(|draft| *draft.source.name == *name);
        if found.is_none() {
            let names = drafts.iter().map(|draft| &*draft.source.name);
            let remedy = match closest(&name, names.clone()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("name one of the sources: {}", names.collect::<Vec<_>>().join(", ")),
            };
            reader.problem(&proxy.at("default_source"), format!("there is no source `{name}`"), remedy);
        }
        return found;
    }
    let hub = drafts.iter().position(|draft| draft.source.library);
    hub.or((drafts.len() == 1).then_some(0))
}
