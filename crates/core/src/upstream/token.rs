//! The conversation with a token service (distribution's "token authentication", GET form).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use url::Url;

use super::failures::{self, Scene};
use super::health::Refused;
use super::{Fault, Input, MAX_SMALL, Origin, Outbound, Trust, USER_AGENT, UpstreamState, backoff, origin};
use crate::config::{Secret, Source};
use crate::failure::{Failure, Reason};
use crate::time::{Mono, Now};

/// Requests at most, of one conversation.
const MAX_TRIES: u32 = 3;
/// What "no lifetime" means (distribution's token specification: 60 seconds).
const UNSAID: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long before its end a token is renewed, or a tenth of its life, whichever is less.
const MARGIN: Duration = Duration::from_secs(30);

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub value: Secret,
    /// When to ask for another one: somewhat before the token service stops honouring this one.
    pub expires: Mono,
}

/// What a token is for. Conversations with equal keys may share one token, and no others may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// The source's name: its credentials are its own.
    pub source: Arc<str>,
    /// The user name; `None` for anonymous.
    pub identity: Option<String>,
    pub realm: String,
    pub service: String,
    pub scope: String,
}

/// A token that is wanted. Only a conversation makes one, after it has judged the realm.
#[derive(Clone, Debug)]
pub struct TokenAsk {
    pub key: TokenKey,
    pub(super) source: Arc<Source>,
    pub(super) realm: Url,
    pub(super) credentials: Option<(String, Secret)>,
}

/// Asks a token service: begin with `Input::Start`, perform each step, and hand back what came of it. What it is granted
/// is kept in the state for others.
#[derive(Debug)]
pub struct TokenExchange {
    ask: TokenAsk,
    url: Url,
    phase: Phase,
    tries: u32,
}

/// What the engine has to do next for a token.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a step lives for one turn of a loop, and most of them send")]
pub enum TokenStep {
    Send(Outbound),
    /// As for an exchange.
    ReadSmall {
        max: usize,
    },
    Wait(Duration),
    Done(Result<Token, Failure>),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Fresh,
    Sent,
    Reading,
    Waiting,
    Over,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl TokenExchange {
    pub fn new(ask: TokenAsk) -> Self {
        let mut url = ask.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if !ask.key.service.is_empty() {
                query.append_pair("service", &ask.key.service);
            }
            query.append_pair("scope", &ask.key.scope);
        }
        TokenExchange { ask, url, phase: Phase::Fresh, tries: 0 }
    }

    pub fn ask(&self) -> &TokenAsk {
        &self.ask
    }

    /// What to do after `input`. An input that does not answer the last step ends in `Reason::Internal`.
    pub fn step(&mut self, state: &mut UpstreamState, now: Now, random: u64, input: Input) -> TokenStep {
        match (std::mem::replace(&mut self.phase, Phase::Over), input) {
            (Phase::Fresh, Input::Start) => match state.token(&self.ask.key, now.mono) {
                // Another conversation got it while this one was being set up.
                Some(token) => TokenStep::Done(Ok(token)),
                None => self.send(state, now),
            },
            (Phase::Waiting, Input::Waited) => self.send(state, now),
            (Phase::Sent, Input::Head(parts)) => self.head(state, now, random, &parts),
            (Phase::Sent, Input::Fault(fault)) => self.fault(state, now, random, fault),
            (Phase::Reading, Input::Small(Ok(body))) => match granted(&body, now) {
                Ok(token) => {
                    state.keep_token(self.ask.key.clone(), token.clone(), now.mono);
                    TokenStep::Done(Ok(token))
                }
                Err(why) => self.fail(Reason::UpstreamBadAnswer, &format!("it answered with {why}")),
            },
            (Phase::Reading, Input::Small(Err(_)) | Input::Fault(_)) => {
                self.fail(Reason::UpstreamBadAnswer, "its answer broke off or was too long")
            }
            _ => self.fail(Reason::Internal, "a step was answered out of turn"),
        }
    }

    fn send(&mut self, state: &mut UpstreamState, now: Now) -> TokenStep {
        if origin::is_private_literal(&self.ask.source, &self.url) {
            return self.fail(Reason::UpstreamRedirectRefused, "it has no public address");
        }
        if let Err(refused) = state.origin(&Origin::of(&self.url), now.mono).admit(now.mono) {
            return TokenStep::Done(Err(self.scene().refused(refused)));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((username, password)) = &self.ask.credentials {
            headers.insert(header::AUTHORIZATION, basic(username, password));
        }
        let source = &self.ask.source;
        self.phase = Phase::Sent;
        TokenStep::Send(Outbound {
            method: Method::GET,
            url: self.url.clone(),
            headers,
            body: None,
            apart: false,
            trust: Trust {
                insecure: source.insecure && origin::is_declared(source, &self.url),
                allow_private: source.allow_private,
            },
            connect: source.timeouts.connect,
            first_byte: source.timeouts.first_byte,
            stall: source.timeouts.stall,
        })
    }

    fn head(&mut self, state: &mut UpstreamState, now: Now, random: u64, parts: &Parts) -> TokenStep {
        let status = parts.status;
        let health = state.origin(&Origin::of(&self.url), now.mono);
        if matches!(status.as_u16(), 500 | 502..=504) {
            health.bad(now.mono)
        } else {
            health.good()
        }
        let after = backoff::retry_after(&parts.headers, now);
        match status.as_u16() {
            200 if encoded(&parts.headers) => {
                self.fail(Reason::UpstreamBadAnswer, "it answered with an encoded body")
            }
            200 => {
                self.phase = Phase::Reading;
                TokenStep::ReadSmall { max: MAX_SMALL }
            }
            401 => self.fail(Reason::UpstreamUnauthorized, &self.refusal()),
            403 => self.fail(Reason::UpstreamDenied, &self.refusal()),
            429 => {
                let wait = health.held(now.mono, after);
                let failure = self.scene().refused(Refused::Held(wait));
                TokenStep::Done(Err(failure))
            }
            // A token endpoint that moves is a token endpoint that was taken over (CVE-2026-49478).
            300..=399 => self.fail(Reason::UpstreamRedirectRefused, "it redirects, which is not followed"),
            408 | 425 | 500..=599 => {
                let mut failure = self.scene().server_error(status);
                failure.retry_after = after;
                let once = matches!(status.as_u16(), 408 | 425 | 502..=504) || self.tries == 0;
                self.again(
                    state,
                    now,
                    random,
                    failure,
                    once && after.is_none_or(|wait| wait <= backoff::PATIENCE),
                )
            }
            code => self.fail(Reason::UpstreamBadAnswer, &format!("it answered {code}")),
        }
    }

    fn fault(&mut self, state: &mut UpstreamState, now: Now, random: u64, fault: Fault) -> TokenStep {
        let health = state.origin(&Origin::of(&self.url), now.mono);
        if fault != Fault::PrivateAddress {
            health.bad(now.mono);
        }
        let failure = self.scene().fault(fault, true);
        self.again(state, now, random, failure, !matches!(fault, Fault::PrivateAddress | Fault::Tls))
    }

    fn again(
        &mut self,
        state: &mut UpstreamState,
        now: Now,
        random: u64,
        failure: Failure,
        may: bool,
    ) -> TokenStep {
        self.tries += 1;
        if may && self.tries < MAX_TRIES && state.may_retry(&Origin::of(&self.url), now.mono) {
            self.phase = Phase::Waiting;
            let least = failure.retry_after.unwrap_or_default();
            return TokenStep::Wait(backoff::jitter(random, self.tries).max(least));
        }
        TokenStep::Done(Err(failure))
    }

    fn refusal(&self) -> String {
        let why = match self.ask.credentials {
            Some(_) => "refuses the configured credentials; the operator should check them",
            None => "gives nothing to anonymous clients; the operator can configure credentials",
        };
        format!("it {why}")
    }

    fn fail(&self, reason: Reason, sentence: &str) -> TokenStep {
        let scene = self.scene();
        TokenStep::Done(Err(scene.fail(reason, format!("{}: {sentence}", scene.who))))
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            object: format!("token for {}", self.ask.key.scope),
            who: format!("the token service {}", failures::host(&self.ask.source, &self.url)),
            method: Method::GET,
            url: &self.url,
        }
    }
}

/// `Authorization: Basic`, marked so that nothing prints it.
pub(super) fn basic(username: &str, password: &Secret) -> HeaderValue {
    authorization("Basic", &BASE64_STANDARD.encode(format!("{username}:{}", password.expose())))
}

pub(super) fn bearer(token: &Secret) -> HeaderValue {
    authorization("Bearer", token.expose())
}

/// Both kinds are visible ASCII: base64 by its alphabet, tokens because no other is accepted.
fn authorization(scheme: &str, value: &str) -> HeaderValue {
    let mut value =
        HeaderValue::from_str(&format!("{scheme} {value}")).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn granted(body: &[u8], now: Now) -> Result<Token, &'static str> {
    let granted: Granted = serde_json::from_slice(body).map_err(|_| "what is not a token")?;
    let nonempty = |token: &String| !token.is_empty();
    let value = granted.token.filter(nonempty).or(granted.access_token.filter(nonempty)).ok_or("no token")?;
    if !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token of characters that no token has");
    }
    let seconds =
        granted.expires_in.as_ref().and_then(serde_json::Value::as_u64).filter(|seconds| *seconds > 0);
    let life = seconds.map_or(UNSAID, Duration::from_secs).min(LONGEST);
    let margin = MARGIN.min(life / 10);
    Ok(Token { value: Secret::new(value), expires: now.mono.plus(life - margin) })
}
