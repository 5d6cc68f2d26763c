//! Performs core's step machines: sends what they say, and tells them what came back.

use std::pin::pin;
use std::time::Duration;

use entrepot_core::config::Source;
use entrepot_core::event::{Event, Route};
use entrepot_core::failure::Failure;
use entrepot_core::upstream::{
    Ask, Exchange, Fault, Identity, Input, Outbound, Reply, SmallFault, Step, Token, TokenAsk, TokenExchange,
    TokenStep, Verb, What,
};
use futures_util::future::{Either, select};

use crate::Engine;
use crate::job::{Landed, Place, Work};
use crate::ports::{Blobs, Host, Http};

/// A body on its way in.
pub(crate) type Upstream<H> = <<H as Host>::Blobs as Blobs>::Upstream;

impl<H: Host> Engine<H> {
    /// Asks upstream. The body is there when GET was asked.
    pub(crate) async fn ask(
        &self,
        place: &Place,
        what: What,
        method: Verb,
    ) -> Result<(Reply, Option<Upstream<H>>), Failure> {
        let mut exchange = self.exchange(place, what, method, None).await?;
        self.begin(&mut exchange).await
    }

    /// A conversation that has not begun. What we present is found out only now: what is held is served without it.
    pub(crate) async fn exchange(
        &self,
        place: &Place,
        what: What,
        method: Verb,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<Exchange, Failure> {
        self.wording(place, what, method, range).await.map(Exchange::new)
    }

    pub(crate) async fn wording(
        &self,
        place: &Place,
        what: What,
        method: Verb,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<Ask, Failure> {
        let identity =
            if place.trusted { self.host.identity(&place.source).await? } else { Identity::Anonymous };
        let (source, repository) = (place.source.clone(), place.repository.clone());
        let client = place.client;
        Ok(Ask { source, repository, what, method, accept: None, range, identity, client })
    }

    pub(crate) async fn begin(
        &self,
        exchange: &mut Exchange,
    ) -> Result<(Reply, Option<Upstream<H>>), Failure> {
        let step = self.state(|state, now, random| exchange.step(state, now, random, Input::Start));
        self.perform(exchange, step).await
    }

    /// Goes on after a body broke.
    pub(crate) async fn resume(
        &self,
        exchange: &mut Exchange,
        received: u64,
        fault: Fault,
    ) -> Result<(Reply, Option<Upstream<H>>), Failure> {
        let step = self.state(|state, now, random| exchange.broken(state, now, random, received, fault));
        self.perform(exchange, step).await
    }

    async fn perform(
        &self,
        exchange: &mut Exchange,
        mut step: Step,
    ) -> Result<(Reply, Option<Upstream<H>>), Failure> {
        let mut body = None;
        loop {
            let input = match step {
                Step::Done(done) => {
                    let (source, route) = (&exchange.ask().source, route(&exchange.ask().what));
                    self.observe_answer(source, route, &done);
                    return done.map(|reply| (reply, body));
                }
                Step::Send(outbound) => {
                    // Gives the last answer's connection up.
                    drop(body.take());
                    let (input, arrived) = self.send(outbound).await;
                    body = arrived;
                    input
                }
                Step::ReadSmall { max } => Input::Small(self.read_small(body.take(), max).await),
                Step::Token(ask) => Input::Token(self.token(ask).await),
                Step::Wait(duration) => {
                    self.host.sleep(duration).await;
                    Input::Waited
                }
            };
            step = self.state(|state, now, random| exchange.step(state, now, random, input));
        }
    }

    /// A token: asked for once, however many wait for it.
    async fn token(&self, ask: TokenAsk) -> Result<Token, Failure> {
        match self.fly(Work::Token(ask)).await.landed? {
            Landed::Token(token) => Ok(token),
            _ => Err(Self::unexpected("a token service")),
        }
    }

    pub(crate) async fn fetch_token(&self, ask: TokenAsk) -> Result<Token, Failure> {
        let mut exchange = TokenExchange::new(ask);
        let mut body = None;
        let mut input = Input::Start;
        loop {
            let step = self.state(|state, now, random| exchange.step(state, now, random, input));
            input = match step {
                TokenStep::Done(done) => return done,
                TokenStep::Send(outbound) => {
                    let (input, arrived) = self.send(outbound).await;
                    body = arrived;
                    input
                }
                TokenStep::ReadSmall { max } => Input::Small(self.read_small(body.take(), max).await),
                TokenStep::Wait(duration) => {
                    self.host.sleep(duration).await;
                    Input::Waited
                }
            };
        }
    }

    async fn send(&self, outbound: Outbound) -> (Input, Option<Upstream<H>>) {
        match self.host.http().send(outbound).await {
            Ok((head, body)) => (Input::Head(head), Some(body)),
            Err(fault) => (Input::Fault(fault), None),
        }
    }

    async fn read_small(&self, body: Option<Upstream<H>>, max: usize) -> Result<bytes::Bytes, SmallFault> {
        match body {
            Some(body) => self.host.http().read_small(body, max).await,
            None => Err(SmallFault::Broken),
        }
    }

    fn state<R>(
        &self,
        step: impl FnOnce(&mut entrepot_core::upstream::UpstreamState, entrepot_core::time::Now, u64) -> R,
    ) -> R {
        let (now, random) = (self.host.now(), self.host.random());
        self.host.state(|state| step(state, now, random))
    }

    fn observe_answer(&self, source: &Source, route: Route, done: &Result<Reply, Failure>) {
        let (status, reason) = match done {
            Ok(reply) => (Some(reply.status.as_u16()), None),
            Err(failure) => (None, Some(failure.reason)),
        };
        self.host.observe(Event::Upstream { source: source.name.clone(), route, status, reason });
    }

    /// What `work` brings, if it is there within `patience`.
    pub(crate) async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(work), pin!(self.host.sleep(patience))).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

fn route(what: &What) -> Route {
    match what {
        What::Manifest(_) => Route::Manifest,
        What::Blob(_) => Route::Blob,
        What::Tags(_) => Route::Tags,
        What::Referrers(..) => Route::Referrers,
    }
}
