//! The one driver: performs what core answers, in order, through the ports that a host lends.
//!
//! [`Engine::serve`] takes a request to its answer; [`Engine::run`] does work that outlives one. Nothing here knows a
//! runtime, a socket or a disk, and nothing here decides policy: it asks core what, and the host with what.
#![forbid(unsafe_code)]

mod absence;
mod ahead;
mod blob;
mod converse;
pub mod errand;
mod fill;
mod job;
mod lists;
mod manifest;
mod place;
pub mod ports;
mod reply;
mod tag;
pub mod warm;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::access::{self, Client};
use entrepot_core::admit::{self, Admitted, Incoming, Request, Watcher};
use entrepot_core::answer::{self, Answer, FailureContext, Trace, Verdict};
use entrepot_core::config::{Config, Source};
use entrepot_core::event::{Event, Route};
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit::{self, Bucket, LimitKey};
use entrepot_core::list::ListAsk;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use job::{Ahead, Held, Job, Landed, Place, Work};
pub use reply::{Facts, Reply};

use ports::{Blobs, Flight, Host, Joined, Lead, Meta, Wait};

/// See the crate. Cloning shares the host.
#[derive(Debug)]
pub struct Engine<H> {
    host: Arc<H>,
}

impl<H> Clone for Engine<H> {
    fn clone(&self) -> Self {
        Engine { host: self.host.clone() }
    }
}

impl<H: Host> Engine<H> {
    pub fn new(host: Arc<H>) -> Engine<H> {
        Engine { host }
    }

    pub fn host(&self) -> &H {
        &self.host
    }

    /// Answers one request from `peer`. `form` is the body of a POST, at most [`access::MAX_TOKEN_BODY`] bytes of it;
    /// no other body is ever read.
    pub async fn serve(
        &self,
        head: &http::request::Parts,
        form: Option<Bytes>,
        peer: IpAddr,
    ) -> Reply<<H::Blobs as Blobs>::Body> {
        let config = self.host.config();
        let key = self.host.signing_key();
        match admit::admit(&config, head, peer, &key, self.host.now()) {
            Admitted::Answer { answer, route, client, reason } => {
                let mut facts = Facts::new(route, client.address).of(&client);
                facts.reason = reason;
                let context = FailureContext {
                    head_only: head.method == Method::HEAD,
                    close: answer.closes(),
                    ..FailureContext::new(&config)
                };
                let answer = self.limited(&config, &client, &mut facts, context).await.unwrap_or(answer);
                Reply { answer, body: None, facts }
            }
            Admitted::Token(request) => {
                let client = &request.authorized.client;
                let mut facts = Facts::new(Route::Token, client.address).of(client);
                let context = FailureContext { head_only: request.head_only, ..FailureContext::new(&config) };
                let answer = self.limited(&config, client, &mut facts, context).await.unwrap_or_else(|| {
                    access::token_answer(&config, &request, form.as_ref(), &key, self.host.now())
                });
                Reply { answer, body: None, facts }
            }
            Admitted::Call(call) => self.call(&config, &call).await,
        }
    }

    /// The answer to a request in whose work the host caught a panic.
    pub fn panicked(&self, peer: IpAddr) -> Reply<<H::Blobs as Blobs>::Body> {
        let failure = Self::unexpected("a panic");
        let mut facts = Facts::new(Route::Other, peer);
        facts.failed(&failure);
        let config = self.host.config();
        Reply { answer: answer::failure(&failure, &answer::FailureContext::new(&config)), body: None, facts }
    }

    /// See [`admit::watcher`].
    pub fn watcher(&self, head: &http::request::Parts, peer: IpAddr) -> Option<Watcher> {
        admit::watcher(&self.host.config(), head, peer, &self.host.signing_key(), self.host.now())
    }

    /// The answer to a watcher. `metrics`: the text, unless it cannot be had.
    pub fn told(&self, watcher: &Watcher, metrics: Option<String>) -> Reply<<H::Blobs as Blobs>::Body> {
        let Watcher { client, head_only } = watcher;
        let mut facts = Facts::new(Route::Metrics, client.address).of(client);
        let answer = metrics.map_or_else(
            || {
                let failure = Failure::new(Reason::StoreFailed, "the metrics cannot be read; try again");
                facts.failed(&failure);
                let config = self.host.config();
                let context = FailureContext { head_only: *head_only, ..FailureContext::new(&config) };
                answer::failure(&failure, &context)
            },
            |text| answer::metrics(text, *head_only),
        );
        Reply { answer, body: None, facts }
    }

    /// The answer where the store lost the object that was about to be sent.
    pub fn lost(&self) -> Answer {
        let public = "the mirror has just dropped this object; try again";
        let failure = Failure::new(Reason::StoreFailed, public).retry_after(Duration::from_secs(1));
        let config = self.host.config();
        answer::failure(&failure, &answer::FailureContext::new(&config))
    }

    /// The answer to a client for whose connection there is no room.
    pub fn overloaded(&self) -> Answer {
        let public = "this mirror has all the connections it can hold; try again";
        let failure = Failure::new(Reason::Overloaded, public).retry_after(Duration::from_secs(1));
        let config = self.host.config();
        answer::failure(
            &failure,
            &answer::FailureContext { close: true, ..answer::FailureContext::new(&config) },
        )
    }

    /// Does the work of a job, to its end.
    pub async fn run(&self, job: Job<H>) {
        match job {
            Job::Fill { place, digest, ticket } => self.fill(place, digest, ticket).await,
            Job::Fly { lead, work } => {
                let landed = self.work(work).await;
                lead.land(landed);
            }
            Job::Ahead { place, ahead } => self.go_ahead(&place, ahead).await,
        }
    }

    async fn call(&self, config: &Config, call: &Incoming) -> Reply<<H::Blobs as Blobs>::Body> {
        let mut facts = Facts::new(call.call.route(), call.client.address).of(&call.client);
        facts.source = Some(call.resolved.source.name.clone());
        match self.answer(config, call, &mut facts).await {
            Ok((answer, body)) => Reply { answer, body, facts },
            Err(failure) => {
                facts.failed(&failure);
                let trace =
                    Trace { stored: false, reason: Some(failure.reason), ..missed(&call.resolved.source) };
                let context =
                    FailureContext { trace: Some(trace), limit: facts.limit, ..call.failure_context(config) };
                Reply { answer: answer::failure(&failure, &context), body: None, facts }
            }
        }
    }

    async fn answer(
        &self,
        config: &Config,
        call: &Incoming,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<<H::Blobs as Blobs>::Body>), Failure> {
        self.charge(config, &call.client, Bucket::Requests, facts).await?;
        if call.is_pull() {
            self.charge(config, &call.client, Bucket::Pulls, facts).await?;
        }
        match &call.call {
            Request::Manifest(reference) => Ok((self.manifest(config, call, reference, facts).await?, None)),
            Request::Blob(digest) => self.blob(config, call, *digest, facts).await,
            Request::Tags { .. } | Request::Referrers { .. } => {
                let ask = ListAsk::of(&call.call).ok_or_else(|| Self::unexpected("a list"))?;
                Ok((self.list(config, call, ask, facts).await?, None))
            }
        }
    }

    /// Charges a request that asks for nothing upstream. The answer, if it is one too many.
    async fn limited(
        &self,
        config: &Config,
        client: &Client,
        facts: &mut Facts,
        context: FailureContext<'_>,
    ) -> Option<Answer> {
        let failure = self.charge(config, client, Bucket::Requests, facts).await.err()?;
        facts.failed(&failure);
        Some(answer::failure(&failure, &FailureContext { limit: facts.limit, ..context }))
    }

    /// Known clients are not limited: they were let in by name. What remains is told of pulls, and of whatever is refused.
    async fn charge(
        &self,
        config: &Config,
        client: &Client,
        bucket: Bucket,
        facts: &mut Facts,
    ) -> Result<(), Failure> {
        if config.rate_limit.is_none() || client.is_known() {
            return Ok(());
        }
        match self.host.charge(LimitKey::new(bucket, client.address), self.host.now()).await {
            limit::Verdict::Allowed { standing, .. } => {
                facts.limit = (bucket == Bucket::Pulls).then_some(standing);
                Ok(())
            }
            limit::Verdict::Passed => Ok(()),
            limit::Verdict::Refused { retry_after, standing } => {
                self.host.observe(Event::Limited { bucket });
                facts.limit = Some(standing);
                Err(Failure::new(Reason::RateLimited, "too many requests from this address; try again later")
                    .retry_after(retry_after))
            }
        }
    }

    /// Does work that another sent, once for all who send it at the same time.
    pub async fn errand(&self, work: Work) -> Result<Landed, Failure> {
        let flown = self.fly(work.clone()).await;
        match (flown.landed, &work) {
            // See `require_public`.
            (Err(failure), Work::Probe(place, what)) if flown.shared && failure.reason.is_absence() => {
                self.probe(place.clone(), what.clone()).await
            }
            (landed, _) => landed,
        }
    }

    async fn work(&self, work: Work) -> Result<Landed, Failure> {
        match work {
            Work::Fetch(place, reference) => match self.meanwhile(&place, &reference, false).await {
                Some(landed) => landed,
                None => self.fetch(&place, &reference).await.map(Landed::Manifest),
            },
            Work::Look(place, reference) => match self.meanwhile(&place, &reference, true).await {
                Some(landed) => landed,
                None => self.look(&place, &reference).await,
            },
            Work::Show(place, digest) => self.show(&place, digest).await.map(Landed::Shown),
            Work::Revalidate(place, tag, record) => self.revalidate(&place, &tag, record).await,
            Work::Token(ask) => self.fetch_token(ask).await.map(Landed::Token),
            Work::Probe(place, what) => self.probe(place, what).await,
            Work::List(place, ask) => match self.listed(&place, &ask).await {
                Some(landed) => landed,
                None => self.fetch_list(&place, &ask).await,
            },
        }
    }

    /// Does `work` once, however many ask for it at the same time. The work goes on when nobody waits for it any more.
    pub(crate) async fn fly(&self, work: Work) -> Flown {
        match self.host.flight().join(&work.key()) {
            Joined::Lead(lead, wait) => {
                self.host.start(Job::Fly { lead, work });
                Flown { landed: wait.landed().await, shared: false }
            }
            Joined::Wait(wait) => Flown { landed: wait.landed().await, shared: true },
        }
    }

    /// A record; one that cannot be read any more is as good as none.
    pub(crate) async fn load<T>(&self, key: &str) -> Option<T>
    where
        T: DeserializeOwned + Clone + Send + Sync + 'static,
    {
        self.host.meta().get(key).await?.read()
    }

    pub(crate) async fn save<T: Serialize>(&self, key: String, record: &T, keep: Option<Duration>) {
        if let Ok(bytes) = serde_json::to_vec(record) {
            self.host.meta().put(key, bytes.into(), keep).await;
        }
    }
}

/// What became of a flight.
pub(crate) struct Flown {
    pub(crate) landed: Result<Landed, Failure>,
    /// Another request had begun it.
    pub(crate) shared: bool,
}

/// How an answer that came from upstream is traced.
pub(crate) fn missed(source: &Source) -> Trace {
    if source.mirror {
        Trace { stored: true, ..Trace::new(Verdict::Miss) }
    } else {
        Trace::new(Verdict::Bypass)
    }
}
