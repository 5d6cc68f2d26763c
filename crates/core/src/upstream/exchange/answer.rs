//! What an answer means for the conversation.

use http::response::Parts;
use http::{HeaderValue, StatusCode, header};

use super::super::body::{self, Expected, Found};
use super::super::{MAX_SMALL, Origin, Reply, Step, Verb, origin, redirect, refusal};
use super::{Again, Env, Exchange, MAX_RESUMES, Phase};
use crate::failure::Reason;

impl Exchange {
    pub(super) fn head(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        let code = parts.status.as_u16();
        let health = env.state.origin(&Origin::of(&self.hop.url), env.now.mono);
        match code {
            500 | 502..=504 if self.body.further => {}
            500 | 502..=504 => health.bad(env.now.mono),
            _ => health.good(),
        }
        let own = !self.hop.left;
        self.measure(env, parts.status);
        let says_so = own && self.trouble.place == 0 && !parts.status.is_redirection();
        if says_so && !self.is_blob() {
            let pulled = self.is_pull() && parts.status == StatusCode::OK;
            let standing = self.standing();
            let (source, departure) = (&self.ask.source, self.hop.departure);
            env.state.observe(source, standing, &parts.headers, env.now.mono, departure, pulled);
        }
        match code {
            200 | 206 => self.found(env, parts),
            301 | 302 | 303 | 307 | 308 => self.redirected(env, &parts),
            401 if own => self.challenged(env, &parts),
            416 => self.unsatisfiable(env, parts),
            503 if self.body.further => self.crowded(env, &parts.headers),
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

    pub(super) fn found(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        let head = self.ask.method == Verb::Head;
        let expected =
            Expected { document: !self.is_blob(), head: head && !self.body.probe, range: self.range() };
        let found = match body::read(expected, &parts) {
            Ok(found) if self.is_other_part(parts.status, &found) => return self.no_parts(env),
            Ok(found) => found,
            Err(_) if self.body.until.is_some() => return self.no_parts(env),
            Err(_) if self.body.resumed && parts.status == StatusCode::PARTIAL_CONTENT => {
                return self.restart(env);
            }
            Err(what) => {
                let sentence = format!("{} answered with {what}", self.who());
                return self.conclude(env, Reason::UpstreamBadAnswer, &sentence);
            }
        };
        if head {
            // Nothing of it will be hashed, and a captive portal's yes would open the blob to a repository without it.
            if self.is_blob() && body::is_page(&parts.headers) {
                let sentence = format!("{} answered with an HTML page where a blob was expected", self.who());
                return self.conclude(env, Reason::UpstreamBadAnswer, &sentence);
            }
            return match found.size {
                None if self.may_probe() => self.probe(env),
                size => self.described(&parts, size),
            };
        }
        let validator = body::strong_etag(&parts.headers).map(|etag| (Origin::of(&self.hop.url), etag));
        if self.body.resumed && found.offset > 0 && self.changed(&found, validator.as_ref()) {
            return self.restart(env);
        }
        if parts.status == StatusCode::OK {
            self.body.until = None;
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
    pub(super) fn changed(&self, found: &Found, validator: Option<&(Origin, HeaderValue)>) -> bool {
        let sizes = matches!((found.size, self.body.size), (Some(now), Some(before)) if now != before);
        let tags = match (validator, &self.body.validator) {
            (Some((now, new)), Some((before, old))) => now == before && new != old,
            _ => false,
        };
        sizes || tags
    }

    /// Whether this is not the piece that was asked for, nor, instead of a first one, all of the object.
    fn is_other_part(&self, status: StatusCode, found: &Found) -> bool {
        let Some(until) = self.body.until else { return false };
        let is_piece = found.length.and_then(|length| found.offset.checked_add(length)) == Some(until);
        let is_whole = status == StatusCode::OK && !self.body.further;
        !is_piece && !is_whole
    }

    /// The blob is not to be had in pieces: what was to be the first one is all of it.
    fn no_parts(&mut self, env: &mut Env<'_>) -> Step {
        if self.body.further {
            self.phase = Phase::Over;
            let sentence = format!("{} does not serve this part of the same blob", self.who());
            return self.fail(Reason::RangeInvalid, &sentence);
        }
        self.body.until = None;
        if self.body.resumed { self.restart(env) } else { self.approach(env) }
    }

    /// How long the way to the registry is, or to where it has its blobs.
    fn measure(&self, env: &mut Env<'_>, status: StatusCode) {
        let of_blobs = self.is_blob() && self.ask.method == Verb::Get && status.is_success();
        if of_blobs || !(self.hop.left || status.is_redirection()) {
            let delay = env.now.mono.since(self.hop.sent);
            env.state.answered(&Origin::of(self.registry()), delay, of_blobs);
        }
    }

    /// Fetches the whole anew: what was received cannot be continued.
    pub(super) fn restart(&mut self, env: &mut Env<'_>) -> Step {
        if self.body.further {
            return self.no_parts(env);
        }
        let body = &mut self.body;
        body.until = None;
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

    pub(super) fn described(&mut self, parts: &Parts, size: Option<u64>) -> Step {
        let mut headers = body::kept(&parts.headers);
        headers.remove(header::CONTENT_RANGE);
        if let Some(size) = size {
            headers.insert(header::CONTENT_LENGTH, size.into());
        }
        let upstream = self.upstream();
        Step::Done(Ok(Reply { status: StatusCode::OK, headers, offset: 0, length: None, size, upstream }))
    }

    pub(super) fn redirected(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
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
            Err(refusal) => {
                let sentence = format!("{} answered with {}", self.who(), refusal.why);
                let mut failure = self.scene().fail(Reason::UpstreamRedirectRefused, sentence);
                if let (Some(internal), Some(to)) = (&mut failure.internal, refusal.to) {
                    internal.push_str(&format!(" (to {to})"));
                }
                self.unavailable(env, failure, Again::Nowhere)
            }
        }
    }

    pub(super) fn unsatisfiable(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        if self.body.probe && body::unsatisfied_size(&parts.headers) == Some(0) {
            return self.described(&parts, Some(0));
        }
        if self.body.resumed && self.body.from > 0 {
            return self.restart(env);
        }
        if self.body.until.is_some() {
            return self.no_parts(env);
        }
        let sentence = format!("{} does not have these bytes", self.who());
        self.conclude(env, Reason::RangeInvalid, &sentence)
    }

    /// The target of a redirect refuses: the signed URL may have expired, so the registry is asked for another.
    pub(super) fn expired(&mut self, env: &mut Env<'_>, status: StatusCode) -> Step {
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
        let sentence = format!("the host that {} redirects to answered {}", self.who(), status.as_u16());
        self.conclude(env, reason, &sentence)
    }

    pub(super) fn may_probe(&self) -> bool {
        self.is_blob() && self.ask.method == Verb::Head && !self.body.probe
    }

    pub(super) fn probe(&mut self, env: &mut Env<'_>) -> Step {
        self.body.probe = true;
        self.approach(env)
    }

    /// The body of the answer says more than its status, where there is one.
    pub(super) fn read_first(&mut self, env: &mut Env<'_>, parts: Parts) -> Step {
        if self.ask.method == Verb::Head && !self.body.probe {
            return self.read(env, &parts, &[]);
        }
        self.phase = Phase::Reading(Box::new(parts));
        Step::ReadSmall { max: MAX_SMALL }
    }

    pub(super) fn read(&mut self, env: &mut Env<'_>, parts: &Parts, body: &[u8]) -> Step {
        if parts.status == StatusCode::TOO_MANY_REQUESTS {
            return self.limited(env, &parts.headers, body);
        }
        let sentence = format!("{} does not have it", self.who());
        self.conclude(env, refusal::absence(&self.ask.what, body), &sentence)
    }
}
