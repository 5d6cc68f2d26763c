//! Meeting a registry's challenge.

use http::response::Parts;

use super::super::auth::{self, Unmet};
use super::super::state::Scheme;
use super::super::{Identity, Origin, Step};
use super::{Again, Env, Exchange, MAX_CHALLENGES, Presented};
use crate::failure::{Failure, Reason};

impl Exchange {
    pub(super) fn challenged(&mut self, env: &mut Env<'_>, parts: &Parts) -> Step {
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
        env.state.keep_scheme(Origin::of(&registry), standing, scheme.clone());
        self.hop.presented = Presented::Nothing;
        self.hop.url = self.url(&registry);
        self.authenticate(env, scheme)
    }

    pub(super) fn unmet(&mut self, env: &mut Env<'_>, unmet: &Unmet) -> Step {
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

    /// The registry may have moved its token service since it last sent us there, so it is asked anew next time.
    pub(super) fn no_token(&mut self, env: &mut Env<'_>, failure: Failure) -> Step {
        let registry = Origin::of(self.registry());
        env.state.forget_scheme(&registry, self.standing());
        let again = if failure.reason.is_refusal() { Again::Nowhere } else { Again::Elsewhere };
        self.unavailable(env, failure, again)
    }

    pub(super) fn refusal(&self) -> &'static str {
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
}
