//! The host: lends the engine what the platform has. It decides nothing.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use entrepot_core::access::SigningKey;
use entrepot_core::config::{Auth, Config, Secret, Source};
use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit::{self, Bucket, LimitKey};
use entrepot_core::time::Now;
use entrepot_core::upstream::{Identity, SMALL_WITHIN, UpstreamState};
use entrepot_engine::errand::{self, Errand};
use entrepot_engine::ports::{Blobs, Host, Lead};
use entrepot_engine::{Engine, Job, Work};
use entrepot_oci::Digest;
use worker::{Delay, Env};

use crate::flight::Flights;
use crate::front::Front;
use crate::isolate::{self, Isolate};
use crate::ledger;
use crate::limits::Tally;
use crate::objects::{self, Objects};
use crate::outward::Outward;
use crate::records::{self, Own, Records};
use crate::refusals;
use crate::repository::Stubs;
use crate::spawn::Spawn;

/// The KV namespace of errors and of what may be a minute old.
pub(crate) const KV: &str = "ERRORS";
/// How much longer than upstream may take an errand may, before the work is done here.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that one conversation with upstream may come to, each with its time-outs: an errand that is only slow must not be
/// done twice.
const TRIES: u32 = 3;

/// Where this runs.
pub(crate) enum Site {
    /// In a client's request, or the cron's.
    Request,
    /// In a Durable Object: here work is done that others wait for.
    Object { own: Option<Own> },
}

/// The host of one invocation; in a Durable Object, of all of its invocations.
pub(crate) struct Edge {
    isolate: std::rc::Rc<Isolate>,
    env: Env,
    spawn: Spawn,
    is_object: bool,
    http: Outward,
    records: Records,
    objects: Objects,
    flights: Flights,
    stubs: Stubs,
    tally: Tally,
    this: OnceLock<Weak<Edge>>,
}

impl Edge {
    /// Errors: a binding is missing.
    #[expect(clippy::arc_with_non_send_sync, reason = "the engine's handle; a Worker has one thread")]
    pub(crate) fn new(
        isolate: std::rc::Rc<Isolate>,
        env: Env,
        spawn: Spawn,
        site: Site,
    ) -> worker::Result<Arc<Edge>> {
        let tally = Tally::default();
        let front = Front::new(&isolate.config.endpoint, &isolate.front, tally.clone());
        let stubs = Stubs::new(&env, tally.clone())?;
        let objects = Objects::new(objects::Parts {
            bucket: env.bucket("BLOBS")?,
            front: front.clone(),
            front_ttl: isolate.config.edge.front_ttl,
            limits: isolate.limits,
            tally: tally.clone(),
            spawn: spawn.clone(),
            used: Default::default(),
            filled: Default::default(),
        });
        let (is_object, own) = match site {
            Site::Request => (false, None),
            Site::Object { own } => (true, own),
        };
        let edge = Arc::new(Edge {
            records: Records { front, stubs: stubs.clone(), spawn: spawn.clone(), own },
            http: Outward(tally.clone()),
            flights: Flights::default(),
            this: OnceLock::new(),
            isolate,
            env,
            spawn,
            is_object,
            objects,
            stubs,
            tally,
        });
        let _ = edge.this.set(Arc::downgrade(&edge));
        Ok(edge)
    }

    pub(crate) fn isolate(&self) -> &Isolate {
        &self.isolate
    }

    pub(crate) fn configuration(&self) -> &Config {
        &self.isolate.config
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn spawn(&self) -> &Spawn {
        &self.spawn
    }

    pub(crate) async fn has(&self, digest: Digest) -> bool {
        self.objects.stored(digest).await.is_some()
    }

    /// Learns of refusals that other isolates met.
    pub(crate) async fn recall(&self) {
        refusals::recall(&self.isolate, &self.env, &self.tally).await;
    }

    /// What is done when an invocation has done its work: tells others of refusals, and the ledger of what was used.
    pub(crate) async fn remember(&self) {
        refusals::remember(&self.isolate, &self.env, &self.tally).await;
        ledger::note(self).await;
    }

    fn engine(&self) -> Option<Engine<Edge>> {
        self.this.get().and_then(Weak::upgrade).map(Engine::new)
    }

    /// What the repository's own object brings. `None` when it cannot be asked, or not in time: nobody waits for ever for
    /// work that somebody else does.
    async fn sent(&self, work: &Work) -> Option<Result<entrepot_engine::Landed, Failure>> {
        let errand = serde_json::to_vec(&Errand::of(work)?).ok()?;
        let place = work.place()?;
        let key = place.records();
        let timeouts = place.source.timeouts;
        let patience = TRIES * (timeouts.connect + timeouts.first_byte) + SMALL_WITHIN + PATIENCE;
        let owner = self.stubs.repository(records::repository(&key));
        let asked = owner.ask("fly", &errand);
        let spelt = match futures_util::future::select(std::pin::pin!(asked), Delay::from(patience)).await {
            futures_util::future::Either::Left((asked, _)) => {
                asked.inspect_err(|error| worker::console_error!("an errand failed: {error}")).ok()??
            }
            futures_util::future::Either::Right(_) => {
                worker::console_error!("an errand takes too long");
                return None;
            }
        };
        // What this place remembers of it is from before.
        if let Some(record) = work.record() {
            self.records.forget(&record).await;
        }
        errand::read(spelt)
    }

    async fn fill(&self, errand: &Errand, digest: Digest) {
        let Ok(errand) = serde_json::to_vec(errand) else { return };
        if let Err(error) = self.stubs.blob(&digest).ask("fill", &errand).await {
            worker::console_error!("{digest} is not stored: {error}");
        }
    }
}

impl Host for Edge {
    type Http = Outward;
    type Meta = Records;
    type Blobs = Objects;
    type Flight = Flights;

    fn http(&self) -> &Outward {
        &self.http
    }

    fn meta(&self) -> &Records {
        &self.records
    }

    fn blobs(&self) -> &Objects {
        &self.objects
    }

    fn flight(&self) -> &Flights {
        &self.flights
    }

    fn config(&self) -> impl Deref<Target = Config> {
        &*self.isolate.config
    }

    fn signing_key(&self) -> SigningKey {
        self.isolate.key.clone()
    }

    fn now(&self) -> Now {
        isolate::now()
    }

    fn random(&self) -> u64 {
        // Only jitter hangs on it.
        getrandom::u64().unwrap_or_default()
    }

    async fn sleep(&self, duration: Duration) {
        Delay::from(duration).await;
    }

    fn state<R>(&self, with: impl FnOnce(&mut UpstreamState) -> R) -> R {
        with(&mut self.isolate.upstreams.borrow_mut())
    }

    async fn charge(&self, key: LimitKey, _now: Now) -> limit::Verdict {
        let binding = match key.bucket {
            Bucket::Pulls => "PULLS",
            Bucket::Requests => "REQUESTS",
        };
        self.tally.note();
        let allowed = match self.env.rate_limiter(binding) {
            Ok(limiter) => limiter.limit(key.to_string()).await.map(|outcome| outcome.success),
            Err(error) => Err(error),
        };
        let allowed = allowed.unwrap_or_else(|error| {
            // The limit is soft by nature; that it cannot be asked is no reason to serve nobody.
            worker::console_error!("the limiter {binding} cannot be asked: {error}");
            true
        });
        limit::yes_or_no(self.isolate.config.rate_limit.as_ref(), key.bucket, allowed)
    }

    async fn identity(&self, source: &Source) -> Result<Identity, Failure> {
        match &source.auth {
            None => Ok(Identity::Anonymous),
            Some(Auth::Static { username, password }) => {
                Ok(Identity::Basic { username: username.clone(), password: password.clone() })
            }
            Some(Auth::Kv { username, key }) => {
                self.tally.note();
                let found = match self.env.kv(KV) {
                    Ok(kv) => kv.get(key).cache_ttl(60).text().await.ok().flatten(),
                    Err(_) => None,
                };
                let password = found.filter(|password| !password.is_empty()).ok_or_else(|| {
                    Failure::new(
                        Reason::Internal,
                        format!("the password of source `{}` is missing", source.name),
                    )
                    .internal(format!("the KV namespace holds nothing under `{key}`"))
                })?;
                Ok(Identity::Basic { username: username.clone(), password: Secret::new(password) })
            }
            Some(Auth::Helper(_)) => Err(Failure::new(
                Reason::Internal,
                format!("source `{}` has a helper, and there is none here", source.name),
            )),
        }
    }

    fn start(&self, job: Job<Self>) {
        let Some(engine) = self.engine() else { return };
        self.spawn.run(async move {
            let edge = engine.host();
            match job {
                Job::Fly { lead, work } if !edge.is_object => match edge.sent(&work).await {
                    Some(landed) => lead.land(landed),
                    None => {
                        edge.recall().await;
                        engine.run(Job::Fly { lead, work }).await;
                    }
                },
                Job::Fill { place, digest, .. } if !edge.is_object => {
                    edge.fill(&Errand::fill(&place, digest), digest).await;
                }
                job => engine.run(job).await,
            }
        });
    }

    fn observe(&self, event: Event) {
        self.isolate.notes.borrow_mut().event(&event);
    }
}
