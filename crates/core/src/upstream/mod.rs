//! The conversation with a registry, as a step machine: what to send next, and what an answer means.
//!
//! [`Exchange`] asks for one object and ends in a [`Reply`] or a [`Failure`]; [`TokenExchange`] asks a token service.
//! The engine performs their steps; what outlives a conversation is kept in [`UpstreamState`]. Credentials leave only for
//! the source's own origin and the token hosts it declares, whatever a challenge or a redirect names.

mod auth;
mod backoff;
mod body;
mod bounded;
mod budget;
mod exchange;
mod failures;
mod health;
mod origin;
pub mod pieces;
mod redirect;
mod refusal;
mod state;
mod token;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::digest::Digest;
use entrepot_oci::name::{Reference, Repository};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{Secret, Source};
use crate::failure::Failure;

pub use exchange::Exchange;
pub use health::Breaker;
pub use origin::Origin;
pub use state::{OriginHealth, Suspended, Suspension, UpstreamState};
pub use token::{Token, TokenAsk, TokenExchange, TokenKey, TokenStep};

/// The largest error body or token answer that is read, in bytes.
pub const MAX_SMALL: usize = 64 * 1024;

/// What the mirror calls itself upstream.
pub const USER_AGENT: &str = concat!("entrepot/", env!("CARGO_PKG_VERSION"));

/// What is wanted from upstream.
#[derive(Clone, Debug)]
pub struct Ask {
    pub source: Arc<Source>,
    /// Upstream's own name of the repository, `library/` filled in.
    pub repository: Repository,
    pub what: What,
    pub method: Verb,
    /// Sent as it is; absent: every manifest type we know for manifests, an image index for referrers.
    pub accept: Option<String>,
    /// First byte, and last byte inclusive. Blob GET only.
    pub range: Option<(u64, Option<u64>)>,
    pub identity: Identity,
    /// For whom we ask; a mirror of ours is told, and nobody else.
    pub client: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Manifest(Reference),
    Blob(Digest),
    /// The query without `?`, empty for none.
    Tags(String),
    /// The subject, and the query without `?`.
    Referrers(Digest, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Head,
}

/// What may be presented upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    Basic { username: String, password: Secret },
}

/// What the engine has to tell.
#[derive(Debug)]
pub enum Input {
    Start,
    /// Status and headers of the response to the last `Send`; its body stays with the host.
    Head(http::response::Parts),
    Fault(Fault),
    /// The body that `ReadSmall` asked for.
    Small(Result<Bytes, SmallFault>),
    Token(Result<Token, Failure>),
    /// The time that `Wait` asked for is over.
    Waited,
}

/// What the engine has to do next.
#[derive(Debug)]
pub enum Step {
    Send(Outbound),
    /// Read the body of the response to the last `Send`, at most `max` bytes of it.
    ReadSmall {
        max: usize,
    },
    /// Run a [`TokenExchange`], once however many wait for its key, and answer with `Input::Token`.
    Token(TokenAsk),
    Wait(Duration),
    /// `Ok`: the body of the response to the last `Send` is the object's (never, when HEAD was asked: drop it then).
    Done(Result<Reply, Failure>),
}

/// One request, complete: a host adds no header but `Host` and what framing needs, and follows no redirect.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub method: http::Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// A form, for token requests by POST only.
    pub body: Option<Bytes>,
    pub trust: Trust,
    /// Many bytes are to come, while other requests go the same way: a connection of its own brings them faster.
    pub apart: bool,
    pub connect: Duration,
    pub first_byte: Duration,
    /// The longest pause inside a body that is read whole; who fills a blob is told on its own.
    pub stall: Duration,
}

/// What this one request may put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// A certificate that does not verify.
    pub insecure: bool,
    /// A name that resolves to an address that is not public.
    pub allow_private: bool,
}

/// A head that makes sense for what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200, or 206 for a part of a blob: one that was asked for, or the rest after a break.
    pub status: StatusCode,
    /// Only headers that mean something to a mirror.
    pub headers: HeaderMap,
    /// Where in the object the body begins: at the byte asked for, or before it, when the caller discards up to there.
    /// After [`Exchange::broken`], zero means that everything received so far is void.
    pub offset: u64,
    /// Bytes of the body; `None` when unknown or when HEAD was asked.
    pub length: Option<u64>,
    /// Bytes of the whole object.
    pub size: Option<u64>,
    /// Who answered: scheme, host and port of the registry, never a signed URL.
    pub upstream: Url,
}

/// What went wrong below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    Connect,
    Dns,
    /// The name resolves to an address where we do not go.
    PrivateAddress,
    Tls,
    /// No connection or no first byte in time.
    Timeout,
    /// A pause inside a body that was too long.
    Stalled,
    Reset,
    /// The answer is not HTTP, or its length lies.
    BadFraming,
}

/// The longest that a manifest, a list or a token may take to arrive, whose pauses are bounded by [`Outbound::stall`].
pub const SMALL_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmallFault {
    TooLarge,
    Broken,
}

impl Verb {
    pub(crate) fn method(self) -> http::Method {
        match self {
            Verb::Get => http::Method::GET,
            Verb::Head => http::Method::HEAD,
        }
    }
}

impl Fault {
    /// The stable name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Fault::Connect => "connect",
            Fault::Dns => "dns",
            Fault::PrivateAddress => "private_address",
            Fault::Tls => "tls",
            Fault::Timeout => "timeout",
            Fault::Stalled => "stalled",
            Fault::Reset => "reset",
            Fault::BadFraming => "bad_framing",
        }
    }
}
