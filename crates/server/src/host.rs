//! The native host: lends the engine sockets, a disk, clocks and tasks. It decides nothing.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use entrepot_core::access::SigningKey;
use entrepot_core::config::{Auth, Config, Source};
use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit::{Bucket, Buckets, Gcra, LimitKey, Verdict};
use entrepot_core::time::{Mono, Now, Wall};
use entrepot_core::upstream::{Identity, UpstreamState};
use entrepot_engine::ports::Host;
use entrepot_engine::{Engine, Job};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::flight::Flights;
use crate::helper::Helpers;
use crate::metrics::Metrics;
use crate::replies::Replies;
use crate::store::Store;

/// See the module.
pub(crate) struct Native {
    http: Client,
    store: Store,
    flights: Flights,
    in_force: ArcSwap<InForce>,
    signing_key: SigningKey,
    started: Instant,
    upstreams: Mutex<UpstreamState>,
    buckets: Mutex<Buckets>,
    helpers: Helpers,
    metrics: Arc<Metrics>,
    jobs: TaskTracker,
    /// Where jobs run, whoever starts them.
    runtime: Handle,
    /// Itself, for the jobs it starts.
    this: OnceLock<Weak<Native>>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Native {
    pub(crate) fn new(
        config: Config,
        store: Store,
        signing_key: [u8; 32],
        metrics: Arc<Metrics>,
    ) -> Arc<Native> {
        let host = Arc::new(Native {
            http: Client::default(),
            store,
            flights: Flights::default(),
            in_force: ArcSwap::from_pointee(InForce::new(config)),
            signing_key: SigningKey::new(signing_key),
            started: Instant::now(),
            upstreams: Mutex::new(UpstreamState::new()),
            buckets: Mutex::new(Buckets::default()),
            helpers: Helpers::default(),
            metrics,
            jobs: TaskTracker::new(),
            runtime: Handle::current(),
            this: OnceLock::new(),
        });
        let _ = host.this.set(Arc::downgrade(&host));
        host
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Jobs under way; at the end of the process they are waited for, for a while.
    pub(crate) fn jobs(&self) -> &TaskTracker {
        &self.jobs
    }

    /// Puts another configuration in force for the requests to come. A changed limit starts from full buckets.
    pub(crate) fn reconfigure(&self, config: Config) {
        if self.config().rate_limit != config.rate_limit {
            *self.buckets.lock() = Buckets::default();
        }
        self.in_force.store(Arc::new(InForce::new(config)));
    }

    /// What the requests that come now find.
    pub(crate) fn in_force(&self) -> Snapshot {
        // Counted by nobody: a count of holders would be written by every request.
        Snapshot(self.in_force.load())
    }
}

impl Host for Native {
    type Http = Client;
    type Meta = Store;
    type Blobs = Store;
    type Flight = Flights;

    fn http(&self) -> &Client {
        &self.http
    }

    fn meta(&self) -> &Store {
        &self.store
    }

    fn blobs(&self) -> &Store {
        &self.store
    }

    fn flight(&self) -> &Flights {
        &self.flights
    }

    fn config(&self) -> impl Deref<Target = Config> {
        self.in_force()
    }

    fn signing_key(&self) -> SigningKey {
        self.signing_key.clone()
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        // Later than zero, so that core can look back from the first request on.
        let mono = millis(self.started.elapsed()).saturating_add(millis(Duration::from_secs(24 * 3600)));
        Now { wall: Wall(wall), mono: Mono(mono) }
    }

    fn random(&self) -> u64 {
        // Only jitter hangs on it.
        getrandom::u64().unwrap_or_default()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn state<R>(&self, with: impl FnOnce(&mut UpstreamState) -> R) -> R {
        with(&mut self.upstreams.lock())
    }

    async fn charge(&self, key: LimitKey, now: Now) -> Verdict {
        let config = self.config();
        let Some(limit) = &config.rate_limit else {
            return Gcra::new(1, Duration::from_secs(1), 1).check(None, now.mono, 1);
        };
        let gcra = match key.bucket {
            Bucket::Pulls => Gcra::pulls(limit),
            Bucket::Requests => Gcra::requests(limit),
        };
        self.buckets.lock().charge(&gcra, key, now.mono, 1)
    }

    async fn identity(&self, source: &Source) -> Result<Identity, Failure> {
        match &source.auth {
            None => Ok(Identity::Anonymous),
            Some(Auth::Static { username, password }) => {
                Ok(Identity::Basic { username: username.clone(), password: password.clone() })
            }
            Some(Auth::Kv { .. }) => {
                let public =
                    format!("source `{}` has its password where only the edge can read it", source.name);
                Err(Failure::new(Reason::Internal, public))
            }
            Some(Auth::Helper(name)) => self.helpers.ask(name, &source.url).await.map_err(|error| {
                Failure::new(
                    Reason::Internal,
                    format!(
                        "the credential helper for source `{}` failed; the mirror's log says why",
                        source.name
                    ),
                )
                .internal(format!("docker-credential-{name}: {error}"))
            }),
        }
    }

    fn start(&self, job: Job<Self>) {
        let Some(host) = self.this.get().and_then(Weak::upgrade) else {
            return;
        };
        self.jobs.spawn_on(run(Engine::new(host), job), &self.runtime);
    }

    fn observe(&self, event: Event) {
        self.metrics.observe(&event);
    }
}

/// A configuration, and what was answered under it.
struct InForce {
    config: Config,
    replies: Replies,
}

impl InForce {
    fn new(config: Config) -> InForce {
        InForce { config, replies: Replies::default() }
    }
}

/// The configuration as a request found it.
pub(crate) struct Snapshot(arc_swap::Guard<Arc<InForce>>);

impl Snapshot {
    /// What was answered under it.
    pub(crate) fn replies(&self) -> &Replies {
        &self.0.replies
    }
}

impl Deref for Snapshot {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0.config
    }
}

/// Spawned by name, so that a future that is not `Send` shows here.
#[expect(clippy::manual_async_fn, reason = "the signature says `Send`")]
fn run(engine: Engine<Native>, job: Job<Native>) -> impl Future<Output = ()> + Send {
    async move {
        fail::fail_point!("server::job");
        engine.run(job).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
