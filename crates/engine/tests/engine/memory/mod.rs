//! An engine's host in memory: one thread, virtual time, a scripted upstream. Nothing here is slower than its test.

mod client;
mod clock;
mod flights;
mod store;
mod upstream;

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use entrepot_core::access::SigningKey;
use entrepot_core::config::{self, Auth, Config, Source};
use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit::{Bucket, Buckets, Gcra, LimitKey, Verdict};
use entrepot_core::time::Now;
use entrepot_core::upstream::{Identity, UpstreamState};
use entrepot_engine::ports::Host;
use entrepot_engine::{Engine, Job};

pub(crate) use client::{Answered, Ask, Asked};
pub(crate) use clock::Clock;
pub(crate) use flights::Flights;
pub(crate) use store::{HELD_BACK, Store};
pub(crate) use upstream::{Said, Upstream, get, head};

/// See the module.
pub(crate) struct Memory {
    pub(crate) clock: Clock,
    pub(crate) upstream: Upstream,
    pub(crate) store: Store,
    pub(crate) flights: Flights,
    /// The credential helper's answer, where a source has one; `None`: it fails.
    pub(crate) helper: Cell<Option<&'static str>>,
    config: Arc<Config>,
    state: RefCell<UpstreamState>,
    buckets: RefCell<Buckets>,
    events: RefCell<Vec<Event>>,
    this: OnceLock<Weak<Memory>>,
}

impl Host for Memory {
    type Http = Upstream;
    type Meta = Store;
    type Blobs = Store;
    type Flight = Flights;

    fn http(&self) -> &Upstream {
        &self.upstream
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
        &*self.config
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey::new([7; 32])
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    /// No jitter: waits between retries are as short as they may be.
    fn random(&self) -> u64 {
        0
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn state<R>(&self, with: impl FnOnce(&mut UpstreamState) -> R) -> R {
        with(&mut self.state.borrow_mut())
    }

    async fn charge(&self, key: LimitKey, now: Now) -> Verdict {
        let limit = self.config.rate_limit.expect("the engine charges only where there is a limit");
        let gcra = match key.bucket {
            Bucket::Pulls => Gcra::pulls(&limit),
            Bucket::Requests => Gcra::requests(&limit),
        };
        self.buckets.borrow_mut().charge(&gcra, key, now.mono, 1)
    }

    async fn identity(&self, source: &Source) -> Result<Identity, Failure> {
        let basic = |username: &str, password| Identity::Basic { username: username.to_owned(), password };
        match &source.auth {
            None => Ok(Identity::Anonymous),
            Some(Auth::Static { username, password }) => Ok(basic(username, password.clone())),
            Some(Auth::Kv { .. }) => Err(Failure::new(Reason::Internal, "there is no KV namespace")),
            Some(Auth::Helper(_)) => match self.helper.get() {
                Some(password) => Ok(basic("helped", config::Secret::new(password))),
                None => Err(Failure::new(Reason::Internal, "the credential helper failed")),
            },
        }
    }

    fn start(&self, job: Job<Memory>) {
        let engine = self.engine();
        self.clock.spawn(async move { engine.run(job).await });
    }

    fn observe(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }
}

impl Memory {
    pub(crate) fn engine(&self) -> Engine<Memory> {
        Engine::new(self.this.get().and_then(Weak::upgrade).expect("whoever runs a job holds the host"))
    }
}

/// A host, and the test's hold on it. When it goes, every request that the test expected must have come.
pub(crate) struct World(Arc<Memory>);

impl std::ops::Deref for World {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.0
    }
}

impl World {
    /// A host for the configuration in `yaml`, everything below `proxy:` but the endpoint.
    pub(crate) fn new(yaml: &str) -> World {
        let text = format!("proxy:\n  endpoint: \"https://mirror.example.com\"\n{yaml}");
        let loaded = config::parse(&text, "config.yml", &mut |_| Err("no secrets here".into()));
        let clock = Clock::default();
        #[expect(
            clippy::arc_with_non_send_sync,
            reason = "the engine shares its host by Arc; here there is one thread"
        )]
        let host = Arc::new(Memory {
            upstream: Upstream::new(clock.clone()),
            store: Store::new(clock.clone()),
            flights: Flights::default(),
            helper: Cell::new(Some("helped")),
            config: Arc::new(loaded.unwrap().config),
            state: RefCell::default(),
            buckets: RefCell::default(),
            events: RefCell::default(),
            this: OnceLock::new(),
            clock,
        });
        let _ = host.this.set(Arc::downgrade(&host));
        World(host)
    }

    pub(crate) fn expect(&self, said: Said) -> &World {
        self.upstream.expect(said);
        self
    }

    /// Sends a request and goes as far as the present allows.
    pub(crate) fn ask(&self, ask: Ask) -> Asked {
        let asked = ask.send(self.engine());
        self.clock.settle();
        asked
    }

    /// Sends a request and waits, for as long as it takes, until the whole answer is there.
    pub(crate) fn answer(&self, ask: Ask) -> Answered {
        let asked = self.ask(ask);
        loop {
            if let Some(answered) = asked.take() {
                return answered;
            }
            assert!(self.clock.skip(), "the request waits for nothing: {asked:?}");
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answered {
        self.answer(Ask::get(path))
    }

    pub(crate) fn head(&self, path: &str) -> Answered {
        self.answer(Ask::head(path))
    }

    /// Lets time pass; everything that falls due happens at its own instant.
    pub(crate) fn advance(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
    }

    /// Events whose `Debug` text contains `word`.
    pub(crate) fn events(&self, word: &str) -> usize {
        self.events.borrow().iter().filter(|event| format!("{event:?}").contains(word)).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.clock.abandon();
        if !std::thread::panicking() {
            self.upstream.assert_done();
        }
    }
}
