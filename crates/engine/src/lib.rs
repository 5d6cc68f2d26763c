//! The one driver: performs what core answers, in order, through the ports that a host lends.
//!
//! [`Engine::serve`] takes a request to its answer; [`Engine::run`] does work that outlives one. Nothing here knows a
//! runtime, a socket or a disk, and nothing here decides policy: it asks core what, and the host with what.
#![forbid(unsafe_code)]

mod blob;
mod converse;
mod job;
mod lists;
mod manifest;
mod place;
pub mod ports;
mod reply;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::access;
use entrepot_core::admit::{self, Admitted, Incoming, Request};
use entrepot_core::answer::{self, Answer, Trace, Verdict};
use entrepot_core::config::{Config, Source};
use entrepot_core::event::{Event, Route};
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit::{self, Bucket, LimitKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use job::{Held, Job, Landed, Place, Work};
pub use lists::{ListAsk, ListRecord};
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
                let mut facts = Facts::new(route, peer);
                if let Some(client) = &client {
                    facts = facts.of(client);
                }
                facts.reason = reason;
                let limited = client.and_then(|client| self.charge(&config, &client, Bucket::Requests).err());
                match limited {
                    Some((failure, standing)) => {
                        let context = answer::FailureContext { limit: Some(standing), ..answer::FailureContext::new(&config) };
                        facts.failed(&failure);
                        Reply { answer: answer::failure(&failure, &context), body: None, facts }
                    }
                    None => Reply { answer, body: None, facts },
                }
            }
            Admitted::Token(request) => {
                let facts = Facts::new(Route::Token, peer).of(&request.authorized.client);
                let answer = match self.charge(&config, &request.authorized.client, Bucket::Requests) {
                    Ok(_) => access::token_answer(&config, &request, form.as_ref(), &key, self.host.now()),
                    Err((failure, standing)) => {
                        let context = answer::FailureContext { limit: Some(standing), ..answer::FailureContext::new(&config) };
                        answer::failure(&failure, &context)
                    }
                };
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

    /// Does the work of a job, to its end.
    pub async fn run(&self, job: Job<H>) {
        match job {
            Job::Fill { ask, credentialed, ticket } => self.fill(ask, credentialed, ticket).await,
            Job::Fly { lead, work } => {
                let landed = self.work(work).await;
                lead.land(landed);
            }
        }
    }

    async fn call(&self, config: &Config, call: &Incoming) -> Reply<<H::Blobs as Blobs>::Body> {
        let mut facts = Facts::new(call.call.route(), call.client.address).of(&call.client);
        facts.source = Some(call.resolved.source.name.clone());
        match self.answer(config, call, &mut facts).await {
            Ok((answer, body)) => Reply { answer, body, facts },
            Err(failure) => {
                facts.failed(&failure);
                let context = answer::FailureContext {
                    trace: Some(Trace { reason: Some(failure.reason), ..missed(&call.resolved.source) }),
                    limit: facts.limit,
                    ..call.failure_context(config)
                };
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
        let bucket = if call.is_pull() { Bucket::Pulls } else { Bucket::Requests };
        for bucket in [Some(Bucket::Requests), (bucket == Bucket::Pulls).then_some(Bucket::Pulls)].into_iter().flatten() {
            let standing = self.charge(config, &call.client, bucket).map_err(|(failure, standing)| {
                facts.limit = Some(standing);
                failure
            })?;
            facts.limit = standing.filter(|_| bucket == Bucket::Pulls);
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

    /// Known clients are not limited: they were let in by name.
    fn charge(
        &self,
        config: &Config,
        client: &access::Client,
        bucket: Bucket,
    ) -> Result<Option<limit::Standing>, (Failure, limit::Standing)> {
        if config.rate_limit.is_none() || client.is_known() {
            return Ok(None);
        }
        match self.host.charge(LimitKey::new(bucket, client.address), self.host.now()) {
            limit::Verdict::Allowed { standing, .. } => Ok(Some(standing)),
            limit::Verdict::Refused { retry_after, standing } => {
                self.host.observe(Event::Limited { bucket });
                let failure = Failure::new(Reason::RateLimited, "too many requests from this address; try again later")
                    .retry_after(retry_after);
                Err((failure, standing))
            }
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
            Work::List(place, ask) => self.fetch_list(&place, &ask).await,
        }
    }

    /// Does `work` once, however many ask for it at the same time.
    pub(crate) async fn fly(&self, work: Work) -> Result<Landed, Failure> {
        match self.join(work.clone()).await {
            Some(landed) => landed,
            None => self.work(work).await,
        }
    }

    /// Joins or starts the flight; `None` where the host has none.
    pub(crate) async fn join(&self, work: Work) -> Option<Result<Landed, Failure>> {
        match self.host.flight().join(&work.key()) {
            Joined::Lead(lead, wait) => {
                self.host.start(Job::Fly { lead, work });
                Some(wait.landed().await)
            }
            Joined::Wait(wait) => Some(wait.landed().await),
            Joined::Alone => None,
        }
    }

    /// A record; one that cannot be read any more is as good as none.
    pub(crate) async fn load<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_slice(&self.host.meta().get(key).await?).ok()
    }

    pub(crate) async fn save<T: Serialize>(&self, key: String, record: &T, keep: Option<Duration>) {
        if let Ok(bytes) = serde_json::to_vec(record) {
            self.host.meta().put(key, bytes.into(), keep).await;
        }
    }
}

/// How an answer that came from upstream is traced.
pub(crate) fn missed(source: &Source) -> Trace {
    if source.mirror { Trace { stored: true, ..Trace::new(Verdict::Miss) } } else { Trace::new(Verdict::Bypass) }
}
