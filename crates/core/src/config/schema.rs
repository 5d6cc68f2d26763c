//! Every key of the configuration, in one table.
//!
//! The reader refuses what is not here and takes its defaults from here; the reference page, the sample and the JSON
//! schema are written from here.

use self::Default::{Follows, Nothing, Required, Value};

/// A mapping: its keys in the order in which they are documented.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub keys: &'static [Key],
}

#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// What it means, in Markdown; the first sentence is the sample's comment.
    pub doc: &'static str,
    /// The value in the sample, as YAML on one line; for sections nothing, for their keys say it.
    pub example: &'static str,
    /// Whether the sample shows it as a comment, because it excludes another key or is rarely wanted.
    pub aside: bool,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Path,
    Label,
    Duration,
    Size,
    Rate,
    Count,
    Address,
    Url,
    Network,
    NamePattern,
    HostPattern,
    RegistryName,
    HostName,
    Sha256,
    /// A repository with its registry, and a tag or digest.
    Image,
    /// `os/architecture`, and a variant if there is one.
    Platform,
    /// Five fields, as cron has them.
    Schedule,
    Choice(&'static [&'static str]),
    List(&'static Kind),
    /// One value, or a list of them.
    OneOrMore(&'static Kind),
    Section(&'static Section),
    /// A list of sections.
    Sections(&'static Section),
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    Required,
    /// The feature is off, or the list is empty.
    Nothing,
    /// This, read as if it stood in the file.
    Value(&'static str),
    /// It follows from other keys, as the text says.
    Follows(&'static str),
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: Default,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default, doc, example, aside: false }
}

const fn aside(
    name: &'static str,
    kind: Kind,
    default: Default,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default, doc, example, aside: true }
}

/// The file.
pub static FILE: Section = Section {
    keys: &[key("proxy", Kind::Section(&PROXY), Required, "", "Everything there is to configure.")],
};

pub static PROXY: Section = Section {
    keys: &[
        key(
            "endpoint",
            Kind::Url,
            Follows(
                "`http://` (with `tls`, `https://`) and the first address of `listen`, or the loopback address where that is unspecified",
            ),
            "\"https://docker-proxy.example.com\"",
            "The public URL under which clients reach the mirror. Our token realm and our links are built from it, never from a request's `Host`. Names under its host select sources too: `ghcr.docker-proxy.example.com` is ghcr.io.",
        ),
        key(
            "listen",
            Kind::OneOrMore(&Kind::Address),
            Value("0.0.0.0:8080"),
            "\"0.0.0.0:8080\"",
            "The address to listen on, or a list of them. Without a configuration file it is `127.0.0.1:8080`.",
        ),
        key(
            "admin",
            Kind::Address,
            Nothing,
            "\"127.0.0.1:8081\"",
            "The address of `/healthz`, `/readyz` and `/metrics`. They are never served on the public address; absent, they are not served at all.",
        ),
        aside(
            "tls",
            Kind::Section(&TLS),
            Nothing,
            "",
            "Serve TLS, from files. Absent, plain HTTP is served.",
        ),
        key(
            "cache",
            Kind::Section(&CACHE),
            Follows("the defaults of its keys"),
            "",
            "What is stored, and for how long it is believed.",
        ),
        key(
            "rate_limit",
            Kind::Section(&RATE_LIMIT),
            Nothing,
            "",
            "How much one client address may ask for. IPv6 addresses count by /64. Absent, there is no limit.",
        ),
        key("access", Kind::Section(&ACCESS), Follows("the defaults of its keys"), "", "Who may pull."),
        key(
            "trusted_proxies",
            Kind::List(&Kind::Network),
            Nothing,
            "[\"127.0.0.1/32\"]",
            "Peers whose `X-Forwarded-For` is believed. Everyone else's is ignored.",
        ),
        key(
            "default_source",
            Kind::Label,
            Follows("the source that names `docker.io`, else the only source, else none"),
            "\"dockerhub\"",
            "The name of the source that answers a repository name that carries no registry.",
        ),
        key(
            "sources",
            Kind::Sections(&SOURCE),
            Required,
            "",
            "The registries that are mirrored, at least one. Everything else is unknown, and costs no look-up.",
        ),
        key(
            "edge",
            Kind::Section(&EDGE),
            Follows("the defaults of its keys"),
            "",
            "What only the edge (the Cloudflare Worker) needs to know. At home it means nothing.",
        ),
    ],
};

pub static TLS: Section = Section {
    keys: &[
        key(
            "cert",
            Kind::Path,
            Required,
            "\"cert.pem\"",
            "The certificate chain, a PEM file, the leaf first.",
        ),
        key("key", Kind::Path, Required, "\"key.pem\"", "Its private key, a PEM file."),
    ],
};

pub static CACHE: Section = Section {
    keys: &[
        key(
            "dir",
            Kind::Path,
            Follows("the user's data directory"),
            "\"/var/lib/entrepot\"",
            "The directory that holds the cache.",
        ),
        key(
            "max_size",
            Kind::Size,
            Value("50GiB"),
            "\"50GiB\"",
            "How much the cache may hold. What was not used for longest leaves first.",
        ),
        key(
            "manifest_ttl",
            Kind::Duration,
            Value("1h"),
            "\"1h\"",
            "How long a tag is believed before the registry is asked again. A digest is for ever. `0` asks every time.",
        ),
        key(
            "blob_ttl",
            Kind::Duration,
            Value("0"),
            "\"0\"",
            "How long after its last use a layer may stay. `0` is until space is needed.",
        ),
        key(
            "negative_ttl",
            Kind::Duration,
            Value("10s"),
            "\"10s\"",
            "How long \"not found\" is believed. No other failure is ever remembered.",
        ),
        key(
            "max_stale",
            Kind::Duration,
            Value("7d"),
            "\"7d\"",
            "How long past its time a tag may be served while the registry cannot be asked.",
        ),
        key(
            "rules",
            Kind::Sections(&TTL_RULE),
            Nothing,
            "",
            "Other times for tags that move more or less than most. The first match holds.",
        ),
    ],
};

pub static TTL_RULE: Section = Section {
    keys: &[
        key(
            "images",
            Kind::List(&Kind::NamePattern),
            Value("*"),
            "[\"*\"]",
            "Repositories, by the name they have in their registry.",
        ),
        key("tags", Kind::List(&Kind::NamePattern), Value("*"), "[\"latest\", \"nightly*\"]", "Their tags."),
        key("manifest_ttl", Kind::Duration, Required, "\"10m\"", "How long these are believed."),
    ],
};

pub static RATE_LIMIT: Section = Section {
    keys: &[
        key(
            "anonymous",
            Kind::Rate,
            Required,
            "\"100/min\"",
            "Manifest requests (what Docker Hub counts as pulls) for each address of unknown clients; ten times as many requests of all kinds.",
        ),
        key(
            "burst",
            Kind::Count,
            Follows("as many as `anonymous` allows in its unit of time"),
            "50",
            "How many of them may come at once.",
        ),
    ],
};

pub static ACCESS: Section = Section {
    keys: &[
        key(
            "anonymous",
            Kind::Bool,
            Value("true"),
            "true",
            "Whether unknown clients may have what is public upstream. With `false` only known clients are answered.",
        ),
        key(
            "networks",
            Kind::List(&Kind::Network),
            Nothing,
            "[\"10.0.0.0/8\"]",
            "Clients from here are known.",
        ),
        key(
            "tokens",
            Kind::Sections(&TOKEN),
            Nothing,
            "",
            "Clients with one of these tokens are known. The token is the password of Basic authentication (any user name), or is traded at our token endpoint.",
        ),
        aside(
            "tokens_file",
            Kind::Path,
            Nothing,
            "\"/run/secrets/tokens\"",
            "A file of further tokens. Each line is `name:sha256`; empty lines and lines that begin with `#` do not count.",
        ),
        aside(
            "tokens_env",
            Kind::Text,
            Nothing,
            "\"ENTREPOT_TOKENS\"",
            "An environment variable that holds such lines.",
        ),
        aside(
            "secret_hosts_env",
            Kind::Text,
            Nothing,
            "\"ENTREPOT_SECRET_HOSTS\"",
            "An environment variable (at the edge, a Worker's secret) of lines `name:sha256`: clients that ask a secret label under the endpoint's host, `https://<secret>.docker-proxy.example.com`, are known by that name. For clients that send no credentials, dockerd's `registry-mirrors` among them. A secret has 16 to 63 lower-case letters, digits and `-`, and here its SHA-256 stands.",
        ),
        aside(
            "secret_paths_env",
            Kind::Text,
            Nothing,
            "\"ENTREPOT_SECRET_PATHS\"",
            "The same for a secret that is the first part of the path: `https://docker-proxy.example.com/<secret>/`, or `/<secret>/<registry>/`.",
        ),
    ],
};

pub static TOKEN: Section = Section {
    keys: &[
        key("name", Kind::Label, Required, "\"ci\"", "What the log calls the client."),
        key(
            "sha256",
            Kind::Sha256,
            Required,
            "\"0000000000000000000000000000000000000000000000000000000000000000\"",
            "The SHA-256 of the token, in hexadecimal: `printf %s TOKEN | sha256sum`. The token itself is nowhere in the configuration.",
        ),
        aside(
            "forwards",
            Kind::Bool,
            Value("false"),
            "true",
            "Whether the client is an Entrepot at the edge, which says in a signed header for which address it asks. That address is then the one that is logged.",
        ),
    ],
};

pub static SOURCE: Section = Section {
    keys: &[
        key(
            "name",
            Kind::Label,
            Required,
            "\"dockerhub\"",
            "What logs and metrics call the source. It also selects the source as a label under the endpoint's host.",
        ),
        key(
            "type",
            Kind::Choice(&["registry", "entrepot"]),
            Value("registry"),
            "\"registry\"",
            "What the source is. `entrepot` is a mirror of ours at `url`, which is asked for what the registries in `names` hold; where it is away, `alternates` are asked.",
        ),
        key(
            "url",
            Kind::Url,
            Required,
            "\"https://registry-1.docker.io\"",
            "The registry: scheme, host and port.",
        ),
        key(
            "alternates",
            Kind::List(&Kind::Url),
            Nothing,
            "[\"https://mirror.gcr.io\"]",
            "Other registries that hold the same, tried in order when `url` fails. They are never given the source's credentials.",
        ),
        key(
            "names",
            Kind::List(&Kind::RegistryName),
            Follows(
                "Docker Hub's three names where `url` is Docker Hub, else the host (and port) of `url`; an `entrepot` has to be given them",
            ),
            "[\"docker.io\", \"index.docker.io\", \"registry-1.docker.io\"]",
            "The registry's names in `?ns=` and as the first part of a path. The first is what an `entrepot` is asked for.",
        ),
        key(
            "hosts",
            Kind::List(&Kind::HostName),
            Nothing,
            "[\"docker.example.com\"]",
            "`Host` names that select the source. Those under the endpoint's host need not be listed.",
        ),
        key(
            "images",
            Kind::List(&Kind::NamePattern),
            Nothing,
            "[\"library/*\", \"grafana/*\"]",
            "Repository names without a registry that belong to this source. The first match in the order of the file holds.",
        ),
        key(
            "mirror",
            Kind::Bool,
            Value("true"),
            "true",
            "Whether to store what is pulled. `false` passes it through and stores nothing.",
        ),
        key(
            "auth",
            Kind::Section(&AUTH),
            Nothing,
            "",
            "Our credentials at this registry. Absent, we ask anonymously, whatever the machine knows otherwise.",
        ),
        key(
            "public",
            Kind::List(&Kind::NamePattern),
            Nothing,
            "[\"library/*\"]",
            "What anonymous clients may have on our credentials without further asking. For the rest the registry is asked whether it shows it to anyone.",
        ),
        key(
            "token_hosts",
            Kind::List(&Kind::HostPattern),
            Follows("what the table of known registries says, else none"),
            "[\"auth.docker.io\"]",
            "Where credentials may go besides the source itself.",
        ),
        key(
            "blob_hosts",
            Kind::List(&Kind::HostPattern),
            Follows("what the table of known registries says, else any public host, without credentials"),
            "[\"*.cloudfront.net\"]",
            "Where redirects may lead.",
        ),
        key(
            "insecure",
            Kind::Bool,
            Value("false"),
            "false",
            "Allow plain HTTP, or a certificate that does not verify.",
        ),
        key(
            "allow_private",
            Kind::Bool,
            Value("false"),
            "false",
            "Allow private, loopback and link-local addresses.",
        ),
        key(
            "on_gone",
            Kind::Choice(&["keep", "follow"]),
            Value("keep"),
            "\"keep\"",
            "What to do when the registry says 404 for a tag that is held: `keep` serves it stale, with a warning; `follow` forgets it.",
        ),
        key(
            "timeouts",
            Kind::Section(&TIMEOUTS),
            Follows("the defaults of its keys"),
            "",
            "How long to wait for the registry.",
        ),
    ],
};

pub static AUTH: Section = Section {
    keys: &[
        key("username", Kind::Text, Follows("required, except with `helper`"), "\"u\"", "The user name."),
        aside(
            "password",
            Kind::Text,
            Nothing,
            "\"pass\"",
            "The password or access token, in the file itself. One of `password`, `password_file`, `password_env`, `password_kv` and `helper` is required, and no two of them.",
        ),
        key(
            "password_file",
            Kind::Path,
            Nothing,
            "\"/run/secrets/hub\"",
            "A file that holds it. One line break at its end does not count.",
        ),
        aside(
            "password_env",
            Kind::Text,
            Nothing,
            "\"HUB_PASSWORD\"",
            "An environment variable (at the edge, a Worker's secret) that holds it.",
        ),
        aside(
            "password_kv",
            Kind::Text,
            Nothing,
            "\"hub-password\"",
            "A key of the Worker's KV namespace that holds it; only the edge has one.",
        ),
        aside(
            "helper",
            Kind::Label,
            Nothing,
            "\"ecr-login\"",
            "A Docker credential helper that tells user name and password: `ecr-login` runs `docker-credential-ecr-login`.",
        ),
    ],
};

pub static TIMEOUTS: Section = Section {
    keys: &[
        key("connect", Kind::Duration, Value("5s"), "\"5s\"", "For a connection, TLS included."),
        key(
            "first_byte",
            Kind::Duration,
            Value("10s"),
            "\"10s\"",
            "From the request to the head of the answer.",
        ),
        key("stall", Kind::Duration, Value("15s"), "\"15s\"", "The longest pause inside a body."),
    ],
};

pub static EDGE: Section = Section {
    keys: &[
        key(
            "front_ttl",
            Kind::Duration,
            Value("1d"),
            "\"1d\"",
            "How long a layer stays in the cache in front of the Worker. Behind it, `cache` holds.",
        ),
        key(
            "error_ttl",
            Kind::Duration,
            Value("7d"),
            "\"7d\"",
            "How long what went wrong is kept in KV, from one minute.",
        ),
        key(
            "cron",
            Kind::Schedule,
            Value("*/5 * * * *"),
            "\"*/5 * * * *\"",
            "When the Worker wakes to warm its cache and to make room, in UTC.",
        ),
        key(
            "warm",
            Kind::Sections(&WARM),
            Nothing,
            "",
            "Images that are fetched before anyone asks, and again when their tags move.",
        ),
    ],
};

pub static WARM: Section = Section {
    keys: &[
        key(
            "images",
            Kind::List(&Kind::Image),
            Required,
            "[\"docker.io/library/alpine:3.20\"]",
            "The images, each with its registry's name, which one of the sources has, and a tag or digest.",
        ),
        key(
            "platforms",
            Kind::List(&Kind::Platform),
            Value("linux/amd64"),
            "[\"linux/amd64\", \"linux/arm64\"]",
            "The platforms of which the layers are wanted.",
        ),
    ],
};
