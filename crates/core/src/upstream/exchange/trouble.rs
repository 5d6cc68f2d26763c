//! What to do when a request brought nothing: elsewhere, again, or no more.

use std::time::Duration;

use http::HeaderMap;
use http::response::Parts;

use super::super::failures::{self, Scene};
use super::super::health::Refused;
use super::super::state::Standing;
use super::super::{Fault, Origin, Step, backoff, refusal};
use super::{Again, Env, Exchange, MAX_ALTERNATES, MAX_TRIES, Phase};
use crate::failure::{Failure, Reason};

impl Exchange {
    pub(super) fn limited(&mut self, env: &mut Env<'_>, headers: &HeaderMap, body: &[u8]) -> Step {
        let after = backoff::retry_after(headers, env.now);
        if self.body.further {
            return self.crowded(env, headers);
        }
        let pulls = self.is_pull() && !self.hop.left && refusal::is_pull_limit(headers, body);
        let failure = if pulls {
            let standing = self.standing();
            let wait = env.state.spent(&self.ask.source, standing, env.now.mono, after);
            let failure = self.used_up(Reason::UpstreamRateLimited);
            wait.into_iter().fold(failure, Failure::retry_after)
        } else {
            let wait = env.state.origin(&Origin::of(&self.hop.url), env.now.mono).held(env.now.mono, after);
            self.scene().refused(Refused::Held(wait))
        };
        self.unavailable(env, failure, Again::Elsewhere)
    }

    /// Upstream refuses a connection beside others. That is no reason to leave it alone, but to do with fewer.
    pub(super) fn crowded(&mut self, env: &mut Env<'_>, headers: &HeaderMap) -> Step {
        let wait = backoff::retry_after(headers, env.now);
        let registry = Origin::of(self.registry());
        env.state.crowded(&registry, wait, env.now.mono);
        let failure = self.scene().refused(Refused::Held(wait.unwrap_or_default()));
        self.unavailable(env, failure, Again::Nowhere)
    }

    pub(super) fn used_up(&self, reason: Reason) -> Failure {
        let remedy = match self.standing() {
            Standing::Anonymous => "; the operator can configure an account for more",
            Standing::Credentialed => "",
        };
        self.scene().fail(reason, format!("the pulls that {} grants are used up for now{remedy}", self.who()))
    }

    pub(super) fn faltered(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
        let mut failure = self.scene().server_error(parts.status);
        failure.retry_after = backoff::retry_after(&parts.headers, env.now);
        let wait = failure.retry_after.unwrap_or_default();
        let twice = parts.status.as_u16() == 500 && std::mem::replace(&mut self.trouble.odd, true);
        let again = if twice || wait > backoff::PATIENCE { Again::Elsewhere } else { Again::Here(wait) };
        self.unavailable(env, failure, again)
    }

    pub(super) fn fault(&mut self, env: &mut Env<'_>, fault: Fault) -> Step {
        if fault != Fault::PrivateAddress && !self.body.further {
            env.state.origin(&Origin::of(&self.hop.url), env.now.mono).bad(env.now.mono);
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

    pub(super) fn refused(&mut self, env: &mut Env<'_>, refused: Refused) -> Step {
        let failure = self.scene().refused(refused);
        self.unavailable(env, failure, Again::Elsewhere)
    }

    /// The registry has spoken. An alternate's word only counts when it is a yes.
    pub(super) fn conclude(&mut self, env: &mut Env<'_>, reason: Reason, sentence: &str) -> Step {
        let failure = self.scene().fail(reason, sentence);
        let again = if reason == Reason::UpstreamBadAnswer { Again::Elsewhere } else { Again::Nowhere };
        self.unavailable(env, failure, again)
    }

    /// Tries the next origin at once, then the first one again after a wait, or fails with what was first said.
    pub(super) fn unavailable(&mut self, env: &mut Env<'_>, failure: Failure, again: Again) -> Step {
        if self.body.further {
            // Others bring this piece; many that try again and again are what upstream may have had enough of.
            self.phase = Phase::Over;
            return Step::Done(Err(failure));
        }
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
        } else {
            // Said already, but where a conversation was led straight to the alternate.
            trouble.first.get_or_insert(failure);
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

    pub(super) fn give_up(&mut self) -> Step {
        self.phase = Phase::Over;
        match self.trouble.first.take() {
            Some(failure) => Step::Done(Err(failure)),
            None => self.fail(Reason::Internal, "a conversation failed without a reason"),
        }
    }

    pub(super) fn wait(&mut self, env: &mut Env<'_>, least: Duration) -> Step {
        self.phase = Phase::Waiting;
        Step::Wait(backoff::jitter(env.random, self.trouble.tries + self.body.resumes).max(least))
    }

    pub(super) fn fail(&self, reason: Reason, sentence: &str) -> Step {
        Step::Done(Err(self.scene().fail(reason, sentence)))
    }

    pub(super) fn scene(&self) -> Scene<'_> {
        let method = if self.body.probe { http::Method::GET } else { self.ask.method.method() };
        Scene { object: failures::object(&self.ask), who: self.who(), method, url: &self.hop.url }
    }

    pub(super) fn who(&self) -> String {
        failures::host(&self.ask.source, self.registry())
    }
}
