//! The first look at a request, in this order: framing and method, path, which upstream, who asks, whether they may
//! come in. What remains is a pull that names a configured source, a valid repository and a known or admitted client.

mod forwarded;
mod framing;
mod query;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use entrepot_oci::digest::{Digest, DigestError};
use entrepot_oci::media::Accept;
use entrepot_oci::name::{Reference, ReferenceError};
use entrepot_oci::path::{self, ApiPath, Call, PathClass, PathError, RawName};
use entrepot_oci::range::RangeRequest;
use entrepot_oci::tags::Page;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use crate::access::{self, Authorized, Client, Entrance, SigningKey, TokenRequest};
use crate::ahead::Puller;
use crate::answer::{self, Allow, Answer, EntityTags, FailureContext};
use crate::config::Config;
use crate::event::Route;
use crate::failure::{Failure, Reason};
use crate::resolve::{self, Resolved};
use crate::time::Now;

pub use forwarded::client_address;
pub use query::MAX_QUERY;
use query::{Query, referrers, tags};
pub use watch::{Watcher, watcher};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Admitted {
    /// It is answered already. `reason` is why, when it was refused.
    Answer {
        answer: Answer,
        route: Route,
        client: Client,
        reason: Option<Reason>,
    },
    /// A token is wanted: [`access::token_answer`], after reading the form if there is one.
    Token(TokenRequest),
    Call(Box<Incoming>),
}

/// A pull.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub client: Client,
    /// The client showed a valid token, though perhaps one that names nobody; see [`Incoming::failure_context`].
    pub presented: bool,
    pub resolved: Resolved,
    pub call: Request,
    /// HEAD.
    pub head_only: bool,
    /// Of a request for a manifest by tag.
    pub accept: Accept,
    /// Of a GET for a blob. A `Range` that makes no sense, or asks for several parts, is as good as none.
    pub range: Option<RangeRequest>,
    pub if_range: Option<String>,
    pub if_none_match: Option<EntityTags>,
    /// The client is known to pull what it asks for.
    pub puller: Option<Puller>,
}

/// What is asked of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Manifest(Reference),
    Blob(Digest),
    /// `query` goes upstream: all that the client sent but `ns`, with `n` clamped, for registries page in ways of their
    /// own.
    Tags {
        page: Page,
        query: String,
    },
    Referrers {
        digest: Digest,
        artifact_type: Option<String>,
        query: String,
    },
}

impl Request {
    pub fn route(&self) -> Route {
        match self {
            Request::Manifest(_) => Route::Manifest,
            Request::Blob(_) => Route::Blob,
            Request::Tags { .. } => Route::Tags,
            Request::Referrers { .. } => Route::Referrers,
        }
    }
}

impl Incoming {
    /// What the answer to a failure of this pull depends on.
    pub fn failure_context<'a>(&'a self, config: &'a Config) -> FailureContext<'a> {
        FailureContext {
            head_only: self.head_only,
            scope: Some(&self.resolved.shown),
            insufficient: self.presented && !self.client.is_known(),
            ns: self.resolved.ns.as_deref(),
            ..FailureContext::new(config)
        }
    }

    /// Whether it counts as a pull, as at Docker Hub: a manifest by GET.
    pub fn is_pull(&self) -> bool {
        !self.head_only && matches!(self.call, Request::Manifest(_))
    }
}

/// Judges the head of a request from `peer`. Headers that speak of the client (`X-Forwarded-For`) are believed from
/// trusted proxies only, and none chooses an upstream but `Host`, by configured names. Whether the connection is TLS does
/// not matter: realm and links come from the configured endpoint.
pub fn admit(config: &Config, head: &Parts, peer: IpAddr, key: &SigningKey, now: Now) -> Admitted {
    let mut door = Door {
        config,
        head,
        key,
        now,
        context: FailureContext { head_only: head.method == Method::HEAD, ..FailureContext::new(config) },
        scope: None,
        ns: None,
        route: Route::Other,
        client: access::by_network(config, client_address(config, &head.headers, peer)),
        secret: None,
    };
    match door.judge() {
        Ok(admitted) => admitted,
        Err(failure) => door.refuse(&failure),
    }
}

/// A request on its way in, and how far it has got, which a refusal's answer and log line tell.
struct Door<'a> {
    config: &'a Config,
    head: &'a Parts,
    key: &'a SigningKey,
    now: Now,
    context: FailureContext<'a>,
    scope: Option<String>,
    ns: Option<String>,
    route: Route,
    /// By its network until it is identified: whoever is refused is still somebody, and charged for the request.
    client: Client,
    /// Who is known by a secret in the address, unless a credential says otherwise.
    secret: Option<Arc<str>>,
}

impl Door<'_> {
    fn judge(&mut self) -> Result<Admitted, Failure> {
        let http1 = self.head.version < Version::HTTP_2;
        let host = framing::check(self.head).inspect_err(|_| self.context.close = http1)?;
        let parsed = path::parse(self.head.uri.path());
        self.route = route_of(&parsed);
        if self.head.method == Method::OPTIONS && self.route != Route::Other {
            return Ok(self.answered(answer::preflight()));
        }
        if !is_allowed(&self.head.method, self.route) {
            self.context.allow = allowed(self.route);
            // The body of a refused push is not read, so what follows on the connection is not a request.
            self.context.close = http1;
            return Err(push_unsupported());
        }
        let ApiPath { root, call } = parsed.map_err(path_failure)?;
        let query = Query::parse(self.head.uri.query().unwrap_or_default())?;
        let entrance = access::entrance(self.config, &host, self.head.uri.path(), root.as_deref())?;
        self.secret.clone_from(&entrance.client);
        let place = Place { config: self.config, entrance, ns: query.ns.as_deref() };
        let (name, request) = match call {
            Call::Token => return self.token(),
            Call::Ping => return self.ping(&place),
            Call::Catalog => return self.catalog(&place),
            Call::Upload { .. } => return Err(push_unsupported()),
            Call::Manifest { name, reference } => {
                (name, Request::Manifest(reference.map_err(reference_failure)?))
            }
            Call::Blob { name, digest } => (name, Request::Blob(digest.map_err(digest_failure)?)),
            Call::Tags { name } => (name, tags(&query)?),
            Call::Referrers { name, digest } => (name, referrers(digest.map_err(digest_failure)?, &query)?),
        };
        self.pull(&place, &name, request)
    }

    fn token(&mut self) -> Result<Admitted, Failure> {
        let authorized = self.identify(None)?;
        Ok(Admitted::Token(TokenRequest {
            has_form: self.head.method == Method::POST,
            head_only: self.head.method == Method::HEAD,
            authorized,
        }))
    }

    /// Docker and podman take the challenge from the ping, and never ask for a token without one. So where there are
    /// tokens, a ping without one is 401 even if anyone may pull; they then get a token for anyone.
    fn ping(&mut self, place: &Place<'_>) -> Result<Admitted, Failure> {
        place.named()?;
        let authorized = self.identify(place.ns)?;
        self.enter(&authorized)?;
        if self.config.access.tokens.is_empty() || authorized.presented || authorized.client.is_known() {
            Ok(self.answered(answer::ping(self.context.head_only)))
        } else {
            Err(login_needed())
        }
    }

    fn catalog(&mut self, place: &Place<'_>) -> Result<Admitted, Failure> {
        place.named()?;
        let authorized = self.identify(place.ns)?;
        self.enter(&authorized)?;
        Err(Failure::new(Reason::NameUnknown, "this mirror gives no catalogue of repositories"))
    }

    fn pull(&mut self, place: &Place<'_>, name: &RawName, call: Request) -> Result<Admitted, Failure> {
        let resolved = Resolved { secret: place.entrance.secret.clone(), ..place.resolve(name)? };
        let entered = self.identify(place.ns).and_then(|authorized| {
            self.enter(&authorized)?;
            Ok(authorized)
        });
        let Authorized { client, presented } = entered.inspect_err(|_| {
            self.scope = Some(resolved.shown.clone());
            self.ns.clone_from(&resolved.ns);
        })?;
        let headers = &self.head.headers;
        // A digest leaves no choice.
        let chooses = matches!(call, Request::Manifest(Reference::Tag(_)));
        let pulls = matches!(call, Request::Manifest(_)) && self.head.method == Method::GET;
        let ranged = matches!(call, Request::Blob(_)) && self.head.method == Method::GET;
        Ok(Admitted::Call(Box::new(Incoming {
            client,
            presented,
            resolved,
            call,
            head_only: self.context.head_only,
            accept: Accept::parse(texts(headers, &header::ACCEPT).filter(|_| chooses)),
            range: single(headers, &header::RANGE)
                .filter(|_| ranged)
                .and_then(|text| RangeRequest::parse(text).ok()),
            if_range: single(headers, &header::IF_RANGE).map(str::to_owned),
            if_none_match: EntityTags::parse(texts(headers, &header::IF_NONE_MATCH)),
            puller: single(headers, &header::USER_AGENT).filter(|_| pulls).and_then(Puller::of),
        })))
    }

    fn identify(&mut self, ns: Option<&str>) -> Result<Authorized, Failure> {
        let headers = &self.head.headers;
        let address = self.client.address;
        let (config, now) = (self.config, self.now.wall);
        let mut authorized = access::identify(config, headers, address, self.secret.as_ref(), self.key, now)?;
        let client = &mut authorized.client;
        if let Some(address) = access::forwarded_for(config, client, self.head, ns, now)? {
            client.address = address;
        }
        self.client.clone_from(&authorized.client);
        self.context.insufficient = authorized.presented && !authorized.client.is_known();
        Ok(authorized)
    }

    fn enter(&self, authorized: &Authorized) -> Result<(), Failure> {
        if access::admits(self.config, &authorized.client) { Ok(()) } else { Err(login_needed()) }
    }

    fn answered(&self, answer: Answer) -> Admitted {
        Admitted::Answer { answer, route: self.route, client: self.client.clone(), reason: None }
    }

    fn refuse(self, failure: &Failure) -> Admitted {
        let context = FailureContext { scope: self.scope.as_deref(), ns: self.ns.as_deref(), ..self.context };
        Admitted::Answer {
            answer: answer::failure(failure, &context),
            route: self.route,
            client: self.client,
            reason: Some(failure.reason),
        }
    }
}

/// Where a request says it goes.
struct Place<'a> {
    config: &'a Config,
    entrance: Entrance<'a>,
    ns: Option<&'a str>,
}

impl Place<'_> {
    fn resolve(&self, name: &RawName) -> Result<Resolved, Failure> {
        resolve::resolve(self.config, self.entrance.host, self.entrance.root, self.ns, name)
    }

    fn named(&self) -> Result<(), Failure> {
        resolve::named(self.config, self.entrance.host, self.entrance.root, self.ns).map(drop)
    }
}

fn route_of(parsed: &Result<ApiPath, PathError>) -> Route {
    match parsed.as_ref().map(|path| &path.call) {
        Ok(Call::Ping) => Route::Ping,
        Ok(Call::Token) => Route::Token,
        Ok(Call::Catalog) => Route::Catalog,
        Ok(Call::Manifest { .. }) => Route::Manifest,
        Ok(Call::Blob { .. }) => Route::Blob,
        Ok(Call::Tags { .. }) => Route::Tags,
        Ok(Call::Referrers { .. }) => Route::Referrers,
        Ok(Call::Upload { .. }) => Route::Upload,
        Err(_) => Route::Other,
    }
}

/// By the method of the request line alone: no header or parameter stands for another (T-HC10).
fn is_allowed(method: &Method, route: Route) -> bool {
    match *method {
        Method::GET | Method::HEAD => route != Route::Upload,
        Method::POST => route == Route::Token,
        _ => false,
    }
}

fn allowed(route: Route) -> Allow {
    match route {
        Route::Token => Allow::Token,
        Route::Upload => Allow::Nothing,
        _ => Allow::Pull,
    }
}

fn push_unsupported() -> Failure {
    Failure::new(Reason::MethodUnsupported, "this mirror only serves pulls: push to the registry itself")
}

fn login_needed() -> Failure {
    Failure::new(Reason::Unauthorized, "this mirror wants to know who asks: log in to it")
}

fn path_failure(error: PathError) -> Failure {
    let reason = match error.class() {
        PathClass::NotFound => Reason::NameUnknown,
        PathClass::NameInvalid => Reason::NameInvalid,
    };
    Failure::new(reason, error.to_string())
}

fn reference_failure(error: ReferenceError) -> Failure {
    match error {
        ReferenceError::Tag(error) => Failure::new(Reason::TagInvalid, error.to_string()),
        ReferenceError::Digest(error) => digest_failure(error),
    }
}

fn digest_failure(error: DigestError) -> Failure {
    Failure::new(Reason::DigestInvalid, error.to_string())
}

fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// The header's value, if there is exactly one.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    value.filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests;
