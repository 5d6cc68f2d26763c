//! One object's conversation with a registry.

use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::time::Duration;
use url::Url;

use super::auth::{self, Unmet};
use super::body::{self, Expected, Found};
use super::failures::{self, Scene};
use super::health::Refused;
use super::state::{Scheme, Standing};
use super::{
    Ask, Fault, Identity, Input, MAX_SMALL, Origin, Outbound, Reply, Step, TokenAsk, TokenKey, Trust,
    USER_AGENT, UpstreamState, Verb, What, backoff, net_literal, origin, redirect, refusal, token,
};
use crate::config::{Secret, Source};
use crate::failure::{Failure, Reason};
use crate::time::Now;
use entrepot_oci::media;

/// Requests that may fail before the conversation does; alternates may each be asked once in any case.
const MAX_TRIES: u32 = 3;
/// Alternates that are considered at all.
const MAX_ALTERNATES: usize = 8;
/// Challenges met in a row: one for a cached token that is no longer honoured, one for what replaces it.
const MAX_CHALLENGES: u32 = 2;
/// Breaks of a body that are mended, one after the other.
const MAX_RESUMES: u32 = 5;
/// Tries in a row that may bring nothing new.
const MAX_IDLE: u32 = 3;
/// Bytes between two breaks that make up for all breaks so far: a large blob over a poor line still arrives.
const FORGIVEN: u64 = 16 * 1024 * 1024;

/// Asks for one object: begin with `Input::Start`, perform each step, and hand back what came of it.
#[derive(Debug)]
pub struct Exchange {
    ask: Ask,
    phase: Phase,
    trouble: Trouble,
    hop: Hop,
    body: Body,
}

/// What input is due.
#[derive(Debug)]
enum Phase {
    Fresh,
    Sent,
    Reading(Box<Parts>),
    Token(TokenKey),
    Waiting,
    /// The caller reads the body.
    Open,
    Over,
}

/// What has gone wrong so far, and where to go next.
#[derive(Debug, Default)]
struct Trouble {
    /// 0 is the source's own URL, then its alternates.
    place: usize,
    tries: u32,
    /// Every origin has been asked once.
    round: bool,
    /// What the registry said first: an alternate's word weighs less.
    first: Option<Failure>,
    /// Whether the registry may be asked again, and after what wait at least.
    again: Option<Duration>,
    /// 500 has been retried; other server errors pass more often.
    odd: bool,
    /// A redirect that led to a refusal has been asked for afresh.
    reasked: bool,
}

/// One approach to the registry, redirects included.
#[derive(Debug)]
struct Hop {
    url: Url,
    hops: u32,
    /// The registry's origin has been left; whatever comes later gets nothing, not even the registry itself.
    left: bool,
    presented: Presented,
    challenges: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Presented {
    Nothing,
    Basic,
    Bearer {
        key: TokenKey,
        value: Secret,
        fresh: bool,
    },
}

/// The bytes that are wanted, and how their transfer goes.
#[derive(Debug, Default)]
struct Body {
    /// HEAD was refused: the first byte is asked for instead, and tells the size.
    probe: bool,
    /// The first byte still wanted.
    from: u64,
    /// Bytes have been received before.
    resumed: bool,
    /// The last byte no longer matters: the object changed and is fetched whole.
    whole: bool,
    validator: Option<(Origin, HeaderValue)>,
    size: Option<u64>,
    /// The furthest that any try has come.
    mark: u64,
    resumes: u32,
    idle: u32,
}

/// What a step may use besides the conversation itself.
struct Env<'a> {
    state: &'a mut UpstreamState,
    now: Now,
    random: u64,
}

/// Where a failed request may be repeated.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// At once with an alternate, or here after at least this wait.
    Here(Duration),
    /// With an alternate only.
    Elsewhere,
    Nowhere,
}

impl Exchange {
    pub fn new(ask: Ask) -> Self {
        let from = ask.range.map_or(0, |(first, _)| first);
        let url = ask.source.url.clone();
        let hop = Hop {
            url,
            hops: 0,
            left: false,
            presented: Presented::Nothing,
            challenges: 0,
        };
        let body = Body {
            from,
            mark: from,
            ..Body::default()
        };
        Exchange {
            ask,
            phase: Phase::Fresh,
            trouble: Trouble::default(),
            hop,
            body,
        }
    }

    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What to do after `input`. `random` is drawn anew for every call. An input that does not answer the last step ends
    /// in `Reason::Internal`.
    pub fn step(&mut self, state: &mut UpstreamState, now: Now, random: u64, input: Input) -> Step {
        let mut env = Env { state, now, random };
        let env = &mut env;
        match (std::mem::replace(&mut self.phase, Phase::Over), input) {
            (Phase::Fresh, Input::Start) | (Phase::Waiting, Input::Waited) => self.approach(env),
            (Phase::Token(key), Input::Token(Ok(token))) => {
                self.hop.presented = Presented::Bearer {
                    key,
                    value: token.value,
                    fresh: true,
                };
                self.send(env)
            }
            (Phase::Token(_), Input::Token(Err(failure))) => self.no_token(env, failure),
            (Phase::Sent, Input::Head(parts)) => self.head(env, parts),
            (Phase::Sent, Input::Fault(fault)) => self.fault(env, fault),
            (Phase::Reading(parts), Input::Small(body)) => self.read(env, &parts, &body.unwrap_or_default()),
            (Phase::Reading(parts), Input::Fault(_)) => self.read(env, &parts, &[]),
            _ => self.fail(Reason::Internal, "a step was answered out of turn"),
        }
    }

    /// The body of a blob broke after `received` bytes, counted from the start of the blob (not of the part asked for):
    /// goes on from there with the registry, whose redirect may be a fresh one. Not for a body that is all there.
    pub fn broken(
        &mut self,
        state: &mut UpstreamState,
        now: Now,
        random: u64,
        received: u64,
        fault: Fault,
    ) -> Step {
        let opened = matches!(self.phase, Phase::Open);
        self.phase = Phase::Over;
        if !opened || !self.is_blob() || self.ask.method != Verb::Get {
            return self.fail(Reason::Internal, "a body that was not being read broke");
        }
        let body = &mut self.body;
        if received > body.mark {
            body.idle = 0;
            if received - body.mark >= FORGIVEN {
                body.resumes = 0;
            }
            body.mark = received;
        } else {
            body.idle += 1;
        }
        if body.idle >= MAX_IDLE || body.resumes >= MAX_RESUMES {
            return Step::Done(Err(self.scene().fault(fault, !self.hop.left)));
        }
        body.resumes += 1;
        let start = if body.whole {
            0
        } else {
            self.ask.range.map_or(0, |(first, _)| first)
        };
        body.from = received.max(start);
        body.resumed = true;
        self.trouble = Trouble::default();
        let mut env = Env { state, now, random };
        self.wait(&mut env, Duration::ZERO)
    }

    /// Goes to the registry (or an alternate) from the start.
    fn approach(&mut self, env: &mut Env<'_>) -> Step {
        let registry = self.registry().clone();
        let url = self.url(&registry);
        self.hop = Hop {
            url,
            hops: 0,
            left: false,
            presented: Presented::Nothing,
            challenges: 0,
        };
        let standing = self.standing();
        if self.is_pull()
            && let Some(wait) = env.state.exhausted(&self.ask.source, standing, env.now.mono)
        {
            let failure = self.used_up(Reason::BudgetExhausted).retry_after(wait);
            return self.unavailable(env, failure, Again::Elsewhere);
        }
        let origin = Origin::of(&registry);
        if let Err(refused) = env.state.check(&origin, env.now.mono) {
            return self.refused(env, refused);
        }
        match env.state.scheme(&origin, standing) {
            Some(scheme) => self.authenticate(env, scheme),
            None => self.send(env),
        }
    }

    fn authenticate(&mut self, env: &mut Env<'_>, scheme: Scheme) -> Step {
        let (realm, service) = match scheme {
            Scheme::Basic => {
                self.hop.presented = Presented::Basic;
                return self.send(env);
            }
            Scheme::Bearer { realm, service } => (realm, service),
        };
        let credentials = self
            .credentials()
            .map(|(name, password)| (name.to_owned(), password.clone()));
        let key = TokenKey {
            source: self.ask.source.name.clone(),
            identity: credentials.as_ref().map(|(name, _)| name.clone()),
            realm: realm.to_string(),
            service,
            // Never what upstream suggests: a token that can do more is a better thing to steal.
            scope: format!("repository:{}:pull", self.ask.repository),
        };
        if let Some(token) = env.state.token(&key, env.now.mono) {
            self.hop.presented = Presented::Bearer {
                key,
                value: token.value,
                fresh: false,
            };
            return self.send(env);
        }
        self.phase = Phase::Token(key.clone());
        Step::Token(TokenAsk {
            key,
            source: self.ask.source.clone(),
            realm,
            credentials,
        })
    }

    fn send(&mut self, env: &mut Env<'_>) -> Step {
        let url = self.hop.url.clone();
        if net_literal(&self.ask.source, &url) {
            let failure = self.scene().fault(Fault::PrivateAddress, !self.hop.left);
            return self.unavailable(env, failure, Again::Nowhere);
        }
        let origin = Origin::of(&url);
        if let Err(refused) = env.state.origin(&origin, env.now.mono).admit(env.now.mono) {
            return self.refused(env, refused);
        }
        if self.is_pull() && !self.hop.left {
            env.state.charge(&self.ask.source, self.standing());
        }
        let source = &self.ask.source;
        self.phase = Phase::Sent;
        Step::Send(Outbound {
            method: if self.body.probe {
                http::Method::GET
            } else {
                self.ask.method.method()
            },
            headers: self.headers(&origin),
            body: None,
            trust: Trust {
                insecure: source.insecure && origin::is_declared(source, &url),
                allow_private: source.allow_private,
            },
            connect: source.timeouts.connect,
            first_byte: source.timeouts.first_byte,
            url,
        })
    }

    fn headers(&self, origin: &Origin) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let accept = self.ask.accept.clone().or_else(|| default_accept(&self.ask.what));
        if let Some(accept) = accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
            headers.insert(header::ACCEPT, accept);
        }
        if let Some((first, last)) = self.range() {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            if let Ok(range) = HeaderValue::try_from(format!("bytes={first}-{last}")) {
                headers.insert(header::RANGE, range);
            }
            match &self.body.validator {
                // A validator means nothing to any but its author.
                Some((author, validator)) if self.body.resumed && author == origin => {
                    headers.insert(header::IF_RANGE, validator.clone());
                }
                _ => {}
            }
        }
        match (&self.hop.presented, self.credentials()) {
            (_, _) if self.hop.left => {}
            (Presented::Basic, Some((username, password))) => {
                headers.insert(header::AUTHORIZATION, token::basic(username, password));
            }
            (Presented::Bearer { value, .. }, _) => {
                headers.insert(header::AUTHORIZATION, token::bearer(value));
            }
            (Presented::Basic | Presented::Nothing, _) => {}
        }
        headers
    }

    fn head(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        let code = parts.status.as_u16();
        let health = env.state.origin(&Origin::of(&self.hop.url), env.now.mono);
        if matches!(code, 500 | 502..=504) {
            health.bad(env.now.mono)
        } else {
            health.good()
        }
        let own = !self.hop.left;
        if own && self.trouble.place == 0 && !self.is_blob() {
            let pulled = self.is_pull() && parts.status == StatusCode::OK;
            let standing = self.standing();
            env.state
                .observe(&self.ask.source, standing, &parts.headers, env.now.mono, pulled);
        }
        match code {
            200 | 206 => self.found(env, parts),
            301 | 302 | 303 | 307 | 308 => self.redirected(env, &parts),
            401 if own => self.challenged(env, &parts),
            416 => self.unsatisfiable(env, parts),
            408 | 425 | 500 | 502..=504 => self.faltered(env, &parts),
            429 => self.read_first(env, parts),
            405 | 501 if self.may_probe() => self.probe(env),
            400 | 401 | 403 | 404 | 405 | 410 | 501 if !own => self.expired(env, parts.status),
            404 | 410 => self.read_first(env, parts),
            403 => self.conclude(env, Reason::UpstreamDenied, self.refusal()),
            405 | 501 => {
                let sentence = format!("{} does not support this request", self.who());
                self.conclude(env, Reason::UpstreamUnsupported, &sentence)
            }
            451 => {
                let sentence = format!("{} withholds this for legal reasons", self.who());
                self.conclude(env, Reason::UpstreamDenied, &sentence)
            }
            500..=599 => {
                let failure = self.scene().server_error(parts.status);
                self.unavailable(env, failure, Again::Elsewhere)
            }
            _ => {
                let sentence = format!("{} answered {code}, which makes no sense here", self.who());
                self.conclude(env, Reason::UpstreamBadAnswer, &sentence)
            }
        }
    }

    fn found(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        let head = self.ask.method == Verb::Head;
        let expected = Expected {
            document: !self.is_blob(),
            head: head && !self.body.probe,
            range: self.range(),
        };
        let found = match body::read(expected, &parts) {
            Ok(found) => found,
            Err(what) => {
                let sentence = format!("{} answered with {what}", self.who());
                return self.conclude(env, Reason::UpstreamBadAnswer, &sentence);
            }
        };
        if head {
            return match found.size {
                None if self.may_probe() => self.probe(env),
                size => self.described(&parts, size),
            };
        }
        let validator = body::strong_etag(&parts.headers).map(|etag| (Origin::of(&self.hop.url), etag));
        if self.body.resumed && found.offset > 0 && self.changed(&found, validator.as_ref()) {
            return self.restart(env);
        }
        self.body.whole |= self.body.resumed && found.offset == 0;
        self.body.validator = validator;
        self.body.size = found.size.or(self.body.size);
        self.phase = Phase::Open;
        let Found { offset, length, size } = found;
        let upstream = self.upstream();
        Step::Done(Ok(Reply {
            status: parts.status,
            headers: body::kept(&parts.headers),
            offset,
            length,
            size,
            upstream,
        }))
    }

    /// Whether this is a part of something else than the bytes received so far.
    fn changed(&self, found: &Found, validator: Option<&(Origin, HeaderValue)>) -> bool {
        let sizes = matches!((found.size, self.body.size), (Some(now), Some(before)) if now != before);
        let tags = match (validator, &self.body.validator) {
            (Some((now, new)), Some((before, old))) => now == before && new != old,
            _ => false,
        };
        sizes || tags
    }

    /// Fetches the whole anew: what was received cannot be continued.
    fn restart(&mut self, env: &mut Env<'_>) -> Step {
        let body = &mut self.body;
        if body.resumes >= MAX_RESUMES {
            let sentence = format!("{} keeps changing the blob", self.who());
            return self.conclude(env, Reason::UpstreamBadAnswer, &sentence);
        }
        body.resumes += 1;
        body.from = 0;
        body.whole = true;
        body.validator = None;
        body.size = None;
        self.approach(env)
    }

    fn described(&mut self, parts: &Parts, size: Option<u64>) -> Step {
        let mut headers = body::kept(&parts.headers);
        headers.remove(header::CONTENT_RANGE);
        if let Some(size) = size {
            headers.insert(header::CONTENT_LENGTH, size.into());
        }
        let upstream = self.upstream();
        Step::Done(Ok(Reply {
            status: StatusCode::OK,
            headers,
            offset: 0,
            length: None,
            size,
            upstream,
        }))
    }

    fn redirected(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
        self.hop.hops += 1;
        if self.hop.hops > redirect::MAX_HOPS {
            let sentence = format!("{} redirects too often", self.who());
            return self.conclude(env, Reason::UpstreamRedirectRefused, &sentence);
        }
        match redirect::target(&self.ask.source, &self.hop.url, &parts.headers) {
            Ok(to) => {
                self.hop.left |= !origin::same(&to, self.registry());
                self.hop.url = to;
                self.send(env)
            }
            Err(what) => {
                let sentence = format!("{} answered with {what}", self.who());
                self.conclude(env, Reason::UpstreamRedirectRefused, &sentence)
            }
        }
    }

    fn challenged(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
        let registry = self.registry().clone();
        let standing = self.standing();
        let scheme = match auth::choose(&self.ask.source, standing, &registry, &parts.headers) {
            Ok(scheme) => scheme,
            Err(unmet) => return self.unmet(env, &unmet),
        };
        self.hop.challenges += 1;
        let stuck = match (&self.hop.presented, &scheme) {
            (Presented::Basic, Scheme::Basic) => true,
            (Presented::Bearer { key, fresh, .. }, Scheme::Bearer { realm, service }) => {
                *fresh && key.realm == realm.as_str() && key.service == *service
            }
            _ => false,
        };
        if let Presented::Bearer { key, value, .. } = &self.hop.presented {
            env.state.drop_token(key, value);
        }
        if stuck || self.hop.challenges > MAX_CHALLENGES {
            return self.conclude(env, Reason::UpstreamUnauthorized, self.refusal());
        }
        env.state
            .keep_scheme(Origin::of(&registry), standing, scheme.clone());
        self.hop.presented = Presented::Nothing;
        self.hop.url = self.url(&registry);
        self.authenticate(env, scheme)
    }

    fn unmet(&mut self, env: &mut Env<'_>, unmet: &Unmet) -> Step {
        let who = self.who();
        match unmet {
            Unmet::Realm(why, host) => {
                let host = host.as_ref().map(|host| format!(" ({host})")).unwrap_or_default();
                let sentence = format!("{who} sends us for a token where we do not go: {why}{host}");
                self.conclude(env, Reason::UpstreamRedirectRefused, &sentence)
            }
            Unmet::NoCredentials | Unmet::Nothing => {
                self.conclude(env, Reason::UpstreamUnauthorized, self.refusal())
            }
        }
    }

    fn no_token(&mut self, env: &mut Env<'_>, failure: Failure) -> Step {
        let again = if failure.reason.is_refusal() {
            Again::Nowhere
        } else {
            Again::Elsewhere
        };
        self.unavailable(env, failure, again)
    }

    fn unsatisfiable(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        if self.body.probe && body::unsatisfied_size(&parts.headers) == Some(0) {
            return self.described(&parts, Some(0));
        }
        if self.body.resumed && self.body.from > 0 {
            return self.restart(env);
        }
        let sentence = format!("{} does not have these bytes", self.who());
        self.conclude(env, Reason::RangeInvalid, &sentence)
    }

    /// The target of a redirect refuses: the signed URL may have expired, so the registry is asked for another.
    fn expired(&mut self, env: &mut Env<'_>, status: StatusCode) -> Step {
        if matches!(status.as_u16(), 400 | 403) && self.may_probe() {
            return self.probe(env);
        }
        if !self.trouble.reasked {
            self.trouble.reasked = true;
            return self.approach(env);
        }
        let reason = match status.as_u16() {
            401 | 403 => Reason::UpstreamDenied,
            _ => Reason::UpstreamBadAnswer,
        };
        let sentence = format!(
            "the host that {} redirects to answered {}",
            self.who(),
            status.as_u16()
        );
        self.conclude(env, reason, &sentence)
    }

    fn may_probe(&self) -> bool {
        self.is_blob() && self.ask.method == Verb::Head && !self.body.probe
    }

    fn probe(&mut self, env: &mut Env<'_>) -> Step {
        self.body.probe = true;
        self.approach(env)
    }

    /// The body of the answer says more than its status, where there is one.
    fn read_first(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        if self.ask.method == Verb::Head && !self.body.probe {
            return self.read(env, &parts, &[]);
        }
        self.phase = Phase::Reading(Box::new(parts));
        Step::ReadSmall { max: MAX_SMALL }
    }

    fn read(&mut self, env: &mut Env<'_>, parts: &Parts, body: &[u8]) -> Step {
        if parts.status == StatusCode::TOO_MANY_REQUESTS {
            return self.limited(env, &parts.headers, body);
        }
        let sentence = format!("{} does not have it", self.who());
        self.conclude(env, refusal::absence(&self.ask.what, body), &sentence)
    }

    fn limited(&mut self, env: &mut Env<'_>, headers: &HeaderMap, body: &[u8]) -> Step {
        let after = backoff::retry_after(headers, env.now);
        let pulls = self.is_pull() && !self.hop.left && refusal::is_pull_limit(headers, body);
        let failure = if pulls {
            let standing = self.standing();
            let wait = env.state.spent(&self.ask.source, standing, env.now.mono, after);
            let failure = self.used_up(Reason::UpstreamRateLimited);
            wait.into_iter().fold(failure, Failure::retry_after)
        } else {
            let wait = env
                .state
                .origin(&Origin::of(&self.hop.url), env.now.mono)
                .held(env.now.mono, after);
            self.scene().refused(Refused::Held(wait))
        };
        self.unavailable(env, failure, Again::Elsewhere)
    }

    fn used_up(&self, reason: Reason) -> Failure {
        let remedy = match self.standing() {
            Standing::Anonymous => "; the operator can configure an account for more",
            Standing::Credentialed => "",
        };
        self.scene().fail(
            reason,
            format!("the pulls that {} grants are used up for now{remedy}", self.who()),
        )
    }

    fn faltered(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
        let mut failure = self.scene().server_error(parts.status);
        failure.retry_after = backoff::retry_after(&parts.headers, env.now);
        let wait = failure.retry_after.unwrap_or_default();
        let twice = parts.status.as_u16() == 500 && std::mem::replace(&mut self.trouble.odd, true);
        let again = if twice || wait > backoff::PATIENCE {
            Again::Elsewhere
        } else {
            Again::Here(wait)
        };
        self.unavailable(env, failure, again)
    }

    fn fault(&mut self, env: &mut Env<'_>, fault: Fault) -> Step {
        if fault != Fault::PrivateAddress {
            env.state
                .origin(&Origin::of(&self.hop.url), env.now.mono)
                .bad(env.now.mono);
        }
        let failure = self.scene().fault(fault, !self.hop.left);
        let again = match fault {
            Fault::PrivateAddress => Again::Nowhere,
            Fault::Tls => Again::Elsewhere,
            Fault::Connect
            | Fault::Dns
            | Fault::Timeout
            | Fault::Stalled
            | Fault::Reset
            | Fault::BadFraming => Again::Here(Duration::ZERO),
        };
        self.unavailable(env, failure, again)
    }

    fn refused(&mut self, env: &mut Env<'_>, refused: Refused) -> Step {
        let failure = self.scene().refused(refused);
        self.unavailable(env, failure, Again::Elsewhere)
    }

    /// The registry has spoken. An alternate's word only counts when it is a yes.
    fn conclude(&mut self, env: &mut Env<'_>, reason: Reason, sentence: &str) -> Step {
        let failure = self.scene().fail(reason, sentence);
        let again = if reason == Reason::UpstreamBadAnswer {
            Again::Elsewhere
        } else {
            Again::Nowhere
        };
        self.unavailable(env, failure, again)
    }

    /// Tries the next origin at once, then the first one again after a wait, or fails with what was first said.
    fn unavailable(&mut self, env: &mut Env<'_>, failure: Failure, again: Again) -> Step {
        let trouble = &mut self.trouble;
        trouble.tries += 1;
        if trouble.place == 0 {
            // That we now leave it alone tells less than why.
            let tells = failure.reason != Reason::UpstreamSuspended || trouble.first.is_none();
            if tells {
                trouble.first = Some(failure);
            }
            trouble.again = match again {
                Again::Here(wait) => Some(wait),
                Again::Elsewhere => None,
                Again::Nowhere => return self.give_up(),
            };
        }
        let patient = trouble.tries < MAX_TRIES;
        if trouble.place < self.ask.source.alternates.len().min(MAX_ALTERNATES) && (patient || !trouble.round)
        {
            trouble.place += 1;
            trouble.reasked = false;
            return self.approach(env);
        }
        let origin = Origin::of(&self.ask.source.url);
        match trouble.again {
            Some(wait) if patient && env.state.may_retry(&origin, env.now.mono) => {
                trouble.place = 0;
                trouble.round = true;
                self.wait(env, wait)
            }
            _ => self.give_up(),
        }
    }

    fn give_up(&mut self) -> Step {
        self.phase = Phase::Over;
        match self.trouble.first.take() {
            Some(failure) => Step::Done(Err(failure)),
            None => self.fail(Reason::Internal, "a conversation failed without a reason"),
        }
    }

    fn wait(&mut self, env: &mut Env<'_>, least: Duration) -> Step {
        self.phase = Phase::Waiting;
        Step::Wait(backoff::jitter(env.random, self.trouble.tries + self.body.resumes).max(least))
    }

    fn fail(&self, reason: Reason, sentence: &str) -> Step {
        Step::Done(Err(self.scene().fail(reason, sentence)))
    }

    fn scene(&self) -> Scene<'_> {
        let method = if self.body.probe {
            http::Method::GET
        } else {
            self.ask.method.method()
        };
        Scene {
            object: failures::object(&self.ask),
            who: self.who(),
            method,
            url: &self.hop.url,
        }
    }

    fn who(&self) -> String {
        failures::host(&self.ask.source, self.registry())
    }

    fn refusal(&self) -> &'static str {
        match (&self.ask.identity, self.credentials()) {
            (Identity::Anonymous, _) => {
                "upstream does not show this to anonymous clients, or it does not exist"
            }
            (Identity::Basic { .. }, None) => {
                "upstream wants credentials, which are not sent there over plain http"
            }
            (Identity::Basic { .. }, Some(_)) => {
                "upstream refuses this to the configured credentials, or it does not exist"
            }
        }
    }

    fn is_blob(&self) -> bool {
        matches!(self.ask.what, What::Blob(_))
    }

    /// What the registry counts: a GET of a manifest (Docker Hub, "pulls"); HEAD is free.
    fn is_pull(&self) -> bool {
        matches!(self.ask.what, What::Manifest(_)) && self.ask.method == Verb::Get && self.trouble.place == 0
    }

    /// What may be presented to the registry asked now: only its declared origin sees credentials, and plain http never
    /// does unless the source says so.
    fn credentials(&self) -> Option<(&str, &Secret)> {
        let source = &self.ask.source;
        let registry = self.registry();
        let safe = registry.scheme() == "https" || source.insecure;
        match &self.ask.identity {
            Identity::Basic { username, password } if safe && origin::same(registry, &source.url) => {
                Some((username, password))
            }
            _ => None,
        }
    }

    fn standing(&self) -> Standing {
        if self.credentials().is_some() {
            Standing::Credentialed
        } else {
            Standing::Anonymous
        }
    }

    fn registry(&self) -> &Url {
        registry(&self.ask.source, self.trouble.place)
    }

    fn upstream(&self) -> Url {
        plain(self.registry())
    }

    fn range(&self) -> Option<(u64, Option<u64>)> {
        if self.body.probe {
            return Some((0, Some(0)));
        }
        if !self.is_blob() || self.ask.method == Verb::Head {
            return None;
        }
        let last = if self.body.whole {
            None
        } else {
            self.ask.range.and_then(|(_, last)| last)
        };
        let asked = self.ask.range.is_some() && !self.body.whole;
        (asked || self.body.from > 0).then_some((self.body.from, last))
    }

    /// `<origin>/v2/<repository>/…` (distribution-spec, "Endpoints").
    fn url(&self, registry: &Url) -> Url {
        let (tail, query) = match &self.ask.what {
            What::Manifest(reference) => (format!("manifests/{reference}"), ""),
            What::Blob(digest) => (format!("blobs/{digest}"), ""),
            What::Tags(query) => ("tags/list".to_owned(), query.as_str()),
            What::Referrers(digest, query) => (format!("referrers/{digest}"), query.as_str()),
        };
        let mut url = plain(registry);
        url.set_path(&format!("/v2/{}/{tail}", self.ask.repository));
        url.set_query((!query.is_empty()).then_some(query));
        url
    }
}

fn registry(source: &Source, place: usize) -> &Url {
    place
        .checked_sub(1)
        .and_then(|index| source.alternates.get(index))
        .unwrap_or(&source.url)
}

/// Scheme, host and port.
fn plain(url: &Url) -> Url {
    url.join("/")
        .map(|mut url| {
            // Neither can fail: an http URL has a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url
        })
        .unwrap_or_else(|_| url.clone())
}

fn default_accept(what: &What) -> Option<String> {
    match what {
        What::Manifest(_) => Some(media::MANIFESTS.join(", ")),
        What::Referrers(..) => Some(media::OCI_INDEX.to_owned()),
        What::Tags(_) => Some(media::JSON.to_owned()),
        What::Blob(_) => None,
    }
}
