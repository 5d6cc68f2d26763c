//! The conversation with a token service (distribution's "token authentication", GET form).

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{Input, Outbound, UpstreamState};
use crate::config::{Secret, Source};
use crate::failure::{Failure, Reason};
use crate::time::{Mono, Now};

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

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct TokenAsk {
    pub key: TokenKey,
    pub(super) source: Arc<Source>,
    pub(super) realm: Url,
    pub(super) credentials: Option<(String, Secret)>,
}

/// Asks a token service.
#[derive(Debug)]
pub struct TokenExchange {
    ask: TokenAsk,
}

/// What the engine has to do next for a token.
#[derive(Debug)]
pub enum TokenStep {
    Send(Outbound),
    ReadSmall { max: usize },
    Wait(Duration),
    Done(Result<Token, Failure>),
}

impl TokenExchange {
    pub fn new(ask: TokenAsk) -> Self {
        TokenExchange { ask }
    }

    pub fn ask(&self) -> &TokenAsk {
        &self.ask
    }

    pub fn step(&mut self, _state: &mut UpstreamState, _now: Now, _random: u64, _input: Input) -> TokenStep {
        TokenStep::Done(Err(Failure::new(Reason::UpstreamUnauthorized, "no tokens yet")))
    }
}
