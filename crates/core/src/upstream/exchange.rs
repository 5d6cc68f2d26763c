//! One object's conversation with a registry.

mod answer;
mod challenge;
mod request;
mod trouble;

use std::ops::Range;
use std::time::Duration;

use http::HeaderValue;
use http::response::Parts;
use url::Url;

use super::budget::Departure;
use super::{Ask, Fault, Input, Origin, Step, TokenKey, UpstreamState, Verb};
use crate::config::Secret;
use crate::failure::{Failure, Reason};
use crate::time::{Mono, Now};

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
    /// To be sent where another conversation was led.
    Led,
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
#[derive(Clone, Debug)]
struct Hop {
    url: Url,
    hops: u32,
    /// The registry's origin has been left; whatever comes later gets nothing, not even the registry itself.
    left: bool,
    presented: Presented,
    challenges: u32,
    departure: Departure,
    /// When the last request was sent.
    sent: Mono,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Presented {
    Nothing,
    Basic,
    Bearer { key: TokenKey, value: Secret, fresh: bool },
}

/// The bytes that are wanted, and how their transfer goes.
#[derive(Debug, Default)]
struct Body {
    /// HEAD was refused: the first byte is asked for instead, and tells the size.
    probe: bool,
    /// The first byte still wanted.
    from: u64,
    /// One past the last byte of the piece that is fetched; `None`: to the end of what was asked.
    until: Option<u64>,
    /// Others fetch what comes before the piece: it is this piece of this object, or nothing.
    further: bool,
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
            departure: Departure::default(),
            sent: Mono::default(),
        };
        let body = Body { from, mark: from, ..Body::default() };
        Exchange { ask, phase: Phase::Fresh, trouble: Trouble::default(), hop, body }
    }

    /// Asks for the first `bytes` of a blob only, if its registry serves parts; see [`Exchange::until`].
    pub fn opening(ask: Ask, bytes: u64) -> Self {
        let mut exchange = Exchange::new(ask);
        exchange.body.until = Some(bytes);
        exchange
    }

    /// As [`Exchange::opening`], the way that this conversation went.
    pub fn reopening(&self, bytes: u64) -> Self {
        let mut exchange = self.rest(0);
        exchange.body.until = Some(bytes);
        exchange
    }

    /// Asks for another piece of the blob that this conversation has begun to bring, the way that this one went: what the
    /// registry wanted to be shown, and where it led. Fails with `Reason::RangeInvalid` when it is not to be had as a piece
    /// of this same object.
    pub fn piece(&self, piece: Range<u64>) -> Self {
        let mut exchange = self.rest(piece.start);
        exchange.body.until = Some(piece.end);
        exchange.body.further = true;
        exchange.body.resumed = true;
        exchange
    }

    /// Asks for all of the blob that comes after its first `received` bytes, as after a break.
    pub fn rest(&self, received: u64) -> Self {
        let mut exchange = Exchange::new(self.ask.clone());
        exchange.phase = Phase::Led;
        exchange.trouble.place = self.trouble.place;
        exchange.hop = Hop { challenges: 0, departure: Departure::default(), ..self.hop.clone() };
        if let Presented::Bearer { fresh, .. } = &mut exchange.hop.presented {
            *fresh = false;
        }
        let (validator, size) = (self.body.validator.clone(), self.body.size);
        let resumed = received > 0;
        exchange.body = Body { from: received, mark: received, resumed, validator, size, ..Body::default() };
        exchange
    }

    /// One past the last byte that the body of the last reply brings; `None`: the object's last.
    pub fn until(&self) -> Option<u64> {
        self.body.until
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
            (Phase::Led, Input::Start) => self.send(env),
            (Phase::Fresh, Input::Start) | (Phase::Waiting, Input::Waited) => self.approach(env),
            (Phase::Token(key), Input::Token(Ok(token))) => {
                self.hop.presented = Presented::Bearer { key, value: token.value, fresh: true };
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
        let start = if body.whole { 0 } else { self.ask.range.map_or(0, |(first, _)| first) };
        body.from = received.max(start);
        body.resumed = true;
        self.trouble = Trouble::default();
        let mut env = Env { state, now, random };
        self.wait(&mut env, Duration::ZERO)
    }
}
