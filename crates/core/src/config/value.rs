//! The scalar values of the configuration: how each is spelt, read and written back.

use std::net::{IpAddr, SocketAddr};

use entrepot_oci::manifest::Platform;
use entrepot_oci::name::ReferenceError;
use entrepot_oci::path::RawName;
use ipnet::IpNet;
use url::Url;

use super::model::{OnGone, SourceKind, WarmImage};
use super::problem::Complaint;
use super::schema::Kind;
use crate::pattern::{HostPattern, NamePattern};

/// A value that is one YAML scalar.
pub(super) trait Scalar: Sized {
    /// What the table says of a key that holds this value.
    const KIND: Kind;

    /// # Errors
    /// What is wrong with the text, and how to write it.
    fn read(text: &str) -> Result<Self, Complaint>;
}

/// Any text that is not empty.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

/// The path of a file or directory.
#[derive(Debug)]
pub(super) struct Path(pub(super) String);

/// The name of a source, a client, or a credential helper: it goes into logs, labels and host names.
#[derive(Debug)]
pub(super) struct Label(pub(super) String);

/// At least 1.
#[derive(Debug)]
pub(super) struct Count(pub(super) u32);

/// A registry's name in `?ns=` and path prefixes: one path segment, lower case, with a port if any.
#[derive(Debug)]
pub(super) struct RegistryName(pub(super) String);

/// A `Host`: lower case, with a port if any.
#[derive(Debug)]
pub(super) struct HostName(pub(super) String);

/// The root of a server: scheme, host and port, nothing else.
#[derive(Debug)]
pub(super) struct Origin(pub(super) Url);

#[derive(Debug, PartialEq)]
pub(super) struct Sha256(pub(super) [u8; 32]);

/// Five fields, as cron has them.
#[derive(Debug)]
pub(super) struct Schedule(pub(super) String);

impl Scalar for bool {
    const KIND: Kind = Kind::Bool;

    fn read(text: &str) -> Result<bool, Complaint> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Complaint::new(
                format!("`{text}` is neither true nor false"),
                "write true or false, without quotes",
            )),
        }
    }
}

impl Scalar for Text {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Result<Text, Complaint> {
        filled(text).map(|text| Text(text.to_owned()))
    }
}

impl Scalar for Path {
    const KIND: Kind = Kind::Path;

    fn read(text: &str) -> Result<Path, Complaint> {
        if text.contains('\0') {
            return Err(Complaint::new("a path cannot hold a zero byte", "write the path of a file"));
        }
        filled(text).map(|text| Path(text.to_owned()))
    }
}

impl Scalar for Label {
    const KIND: Kind = Kind::Label;

    fn read(text: &str) -> Result<Label, Complaint> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            return Err(Complaint::new(
                format!("`{}` is not a name", shortened(text)),
                "write 1 to 64 letters, digits, `-`, `_` or `.`",
            ));
        }
        Ok(Label(text.to_owned()))
    }
}

impl Scalar for Count {
    const KIND: Kind = Kind::Count;

    fn read(text: &str) -> Result<Count, Complaint> {
        text.parse().ok().filter(|count| *count > 0).map(Count).ok_or_else(|| {
            Complaint::new(
                format!("`{}` is not a count", shortened(text)),
                format!("write a whole number from 1 to {}", u32::MAX),
            )
        })
    }
}

impl Scalar for SocketAddr {
    const KIND: Kind = Kind::Address;

    fn read(text: &str) -> Result<SocketAddr, Complaint> {
        text.parse().map_err(|_| {
            Complaint::new(
                format!("`{}` is not an address and a port", shortened(text)),
                "write an IP address and a port: \"0.0.0.0:8080\", \"127.0.0.1:8081\" or \"[::]:8080\"",
            )
        })
    }
}

impl Scalar for IpNet {
    const KIND: Kind = Kind::Network;

    fn read(text: &str) -> Result<IpNet, Complaint> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(IpNet::from(address));
        }
        let net: IpNet = text.parse().map_err(|_| {
            Complaint::new(
                format!("`{}` is not a network", shortened(text)),
                "write it as address/bits: \"10.0.0.0/8\" or \"fd00::/8\"",
            )
        })?;
        if net.trunc() != net {
            return Err(Complaint::new(
                format!("`{text}` has bits outside its mask"),
                format!(
                    "write \"{}\" for the network, or \"{}\" for the one address",
                    net.trunc(),
                    net.addr()
                ),
            ));
        }
        Ok(net)
    }
}

impl Scalar for NamePattern {
    const KIND: Kind = Kind::NamePattern;

    fn read(text: &str) -> Result<NamePattern, Complaint> {
        text.parse().map_err(|error: crate::pattern::PatternError| {
            Complaint::new(
                error.to_string(),
                "write a pattern like \"library/*\", \"team/**\" or \"nightly*\"",
            )
        })
    }
}

impl Scalar for HostPattern {
    const KIND: Kind = Kind::HostPattern;

    fn read(text: &str) -> Result<HostPattern, Complaint> {
        text.parse().map_err(|error: crate::pattern::PatternError| {
            Complaint::new(
                error.to_string(),
                "write a host like \"auth.example.com\" or \"*.cdn.example.com\"",
            )
        })
    }
}

impl Scalar for RegistryName {
    const KIND: Kind = Kind::RegistryName;

    fn read(text: &str) -> Result<RegistryName, Complaint> {
        let name = text.to_ascii_lowercase();
        if let Err(why) = host_and_port(&name) {
            return Err(Complaint::new(
                format!("`{}` is not a registry's name: {why}", shortened(text)),
                "write the host (and port) that stands before the image's name, or a single word to use as a prefix",
            ));
        }
        if ["v2", "token", "library"].contains(&name.as_str()) {
            return Err(Complaint::new(
                format!("`{name}` has a meaning of its own in paths"),
                "choose another prefix",
            ));
        }
        Ok(RegistryName(name))
    }
}

impl Scalar for HostName {
    const KIND: Kind = Kind::HostName;

    fn read(text: &str) -> Result<HostName, Complaint> {
        let name = text.to_ascii_lowercase();
        match host_and_port(&name) {
            Ok(()) => Ok(HostName(name)),
            Err(why) => Err(Complaint::new(
                format!("`{}` is not a host name: {why}", shortened(text)),
                "write it as \"docker.example.com\", without scheme, path or star",
            )),
        }
    }
}

impl Scalar for Origin {
    const KIND: Kind = Kind::Url;

    fn read(text: &str) -> Result<Origin, Complaint> {
        let remedy =
            "write scheme, host and port only: \"https://registry.example.com\" or \"https://host:5000\"";
        let url = Url::parse(text)
            .map_err(|error| Complaint::new(format!("this is not a URL: {error}"), remedy))?;
        // The URL is not quoted: it may hold a password.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Complaint::new(
                "a URL must not hold credentials",
                "move user name and password to the source's `auth` section",
            ));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Complaint::new(format!("`{}:` is not a scheme we speak", url.scheme()), remedy));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(Complaint::new("the URL has no host", remedy));
        }
        if url.port() == Some(0) {
            return Err(Complaint::new("port 0 cannot be connected to", remedy));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(Complaint::new("the URL has a path, a query or a fragment", remedy));
        }
        Ok(Origin(url))
    }
}

impl Scalar for Sha256 {
    const KIND: Kind = Kind::Sha256;

    fn read(text: &str) -> Result<Sha256, Complaint> {
        // The text is not quoted: it may be the token itself, put here by mistake.
        let wrong = || {
            Complaint::new(
                "this is not a SHA-256 in hexadecimal",
                "write the 64 digits that `printf %s TOKEN | sha256sum` prints",
            )
        };
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(wrong);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| wrong())?;
        }
        Ok(Sha256(bytes))
    }
}

impl Scalar for OnGone {
    const KIND: Kind = Kind::Choice(&["keep", "follow"]);

    fn read(text: &str) -> Result<OnGone, Complaint> {
        match text {
            "keep" => Ok(OnGone::Keep),
            "follow" => Ok(OnGone::Follow),
            _ => Err(Complaint::new(format!("`{}` is not known", shortened(text)), "write keep or follow")),
        }
    }
}

impl Scalar for SourceKind {
    const KIND: Kind = Kind::Choice(&["registry", "entrepot"]);

    fn read(text: &str) -> Result<SourceKind, Complaint> {
        match text {
            "registry" => Ok(SourceKind::Registry),
            "entrepot" => Ok(SourceKind::Entrepot),
            _ => Err(Complaint::new(
                format!("`{}` is not a type of source", shortened(text)),
                "write registry or entrepot, or remove the key",
            )),
        }
    }
}

impl Scalar for WarmImage {
    const KIND: Kind = Kind::Image;

    fn read(text: &str) -> Result<WarmImage, Complaint> {
        let remedy = "write registry, repository and tag or digest: \"docker.io/library/alpine:3.20\"";
        let wrong =
            |why: &str| Complaint::new(format!("`{}` is not an image: {why}", shortened(text)), remedy);
        let slash = text.rfind('/').ok_or_else(|| wrong("there is no registry in it"))?;
        let (name, reference) = match text.split_once('@') {
            Some(parts) => parts,
            None => {
                let colon = text[slash..].find(':').ok_or_else(|| wrong("there is no tag"))?;
                (&text[..slash + colon], &text[slash + colon + 1..])
            }
        };
        let reference = reference.parse().map_err(|error: ReferenceError| wrong(&error.to_string()))?;
        let name = RawName::parse(name).map_err(|error| wrong(&error.to_string()))?;
        Ok(WarmImage { name, reference })
    }
}

impl Scalar for Platform {
    const KIND: Kind = Kind::Platform;

    fn read(text: &str) -> Result<Platform, Complaint> {
        let word = |part: &&str| {
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            !part.is_empty() && part.len() <= 32 && part.bytes().all(fits)
        };
        let parts: Vec<&str> = text.split('/').filter(word).collect();
        match parts.as_slice() {
            [os, architecture, variant @ ..]
                if variant.len() <= 1 && parts.len() == text.split('/').count() =>
            {
                Ok(Platform {
                    architecture: (*architecture).into(),
                    os: (*os).into(),
                    variant: variant.first().map(|variant| (*variant).into()),
                })
            }
            _ => Err(Complaint::new(
                format!("`{}` is not a platform", shortened(text)),
                "write \"linux/amd64\", or \"linux/arm/v7\"",
            )),
        }
    }
}

impl Scalar for Schedule {
    const KIND: Kind = Kind::Schedule;

    /// What the fields mean is for whoever keeps the schedule to judge.
    fn read(text: &str) -> Result<Schedule, Complaint> {
        let field = |field: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"*,-/#".contains(&byte);
            !field.is_empty() && field.bytes().all(fits)
        };
        let fields: Vec<&str> = text.split(' ').collect();
        if fields.len() == 5 && text.len() <= 100 && fields.into_iter().all(field) {
            return Ok(Schedule(text.to_owned()));
        }
        Err(Complaint::new(
            format!("`{}` is not a schedule", shortened(text)),
            "write minute, hour, day, month and weekday: \"*/5 * * * *\"",
        ))
    }
}

/// Scheme, host and port, without the slash that `Url` puts at the end.
#[cfg(feature = "yaml")]
pub(super) fn origin_text(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// The host and, unless it is the scheme's own, the port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn filled(text: &str) -> Result<&str, Complaint> {
    match text.is_empty() {
        true => Err(Complaint::new("the value is empty", "give it a value, or remove the key")),
        false => Ok(text),
    }
}

/// At most 60 characters of a text for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether `text` is a lower-case host, with a port or without.
fn host_and_port(text: &str) -> Result<(), &'static str> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "what stands in brackets is not an IPv6 address")?;
            (
                "v6",
                if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':').ok_or("a port must follow")?)
                },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if let Some(port) = port {
        let number = port.parse::<u16>().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
        number.filter(|port| *port > 0).ok_or("the port is not one")?;
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match host.len() <= 253 && host.split('.').all(label) {
        true => Ok(()),
        false => Err("letters, digits, `-` and `.` make a host"),
    }
}
