//! An upstream registry that follows a script.
//!
//! Every request must be expected by a rule; the newest rule that matches answers, so that a test can lay a fault over
//! content that is served well. What no rule expects is answered 418 and fails the test when the upstream is dropped.
//! Everything is recorded.

mod body;
mod content;
mod reply;
mod request;
mod rule;
mod token;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub(crate) use body::hex_digest;
pub use body::{Body, Pattern, sha256, sha512};
pub use content::{Image, media};
pub use reply::{Gate, Reply};
pub use request::Request;
pub use rule::{Method, Paths, RuleBuilder};
pub use token::Tokens;

use rule::Rule;
use wire::{After, Received, Wire};

/// A scripted upstream on a loopback address, with a runtime of its own: it may be used from any kind of test.
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    /// True while the listener shall be up.
    running: watch::Sender<bool>,
}

struct Shared {
    inner: Mutex<Inner>,
}

type Guard = Arc<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct Inner {
    rules: Vec<Rule>,
    guards: Vec<Guard>,
    state: String,
    lenient: bool,
    requests: Vec<Request>,
    unexpected: Vec<String>,
    connections: usize,
    active: BTreeMap<String, usize>,
    peak: BTreeMap<String, usize>,
}

impl Upstream {
    /// On 127.0.0.1, on a free port.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// On another loopback address (`127.0.0.2`, …), to stand for another host.
    pub fn start_on(address: impl Into<Ipv4Addr>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the scripted upstream");
        let address = SocketAddr::new(address.into().into(), 0);
        let listener = bind(address).expect("a free port on a loopback address");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared { inner: Mutex::default() });
        let running = watch::Sender::new(true);
        runtime.spawn(run(listener, address, shared.clone(), running.subscribe()));
        Self { shared, address, runtime: Some(runtime), running }
    }

    /// Does not mind requests that no rule expects: they are answered 404 in the registry's words.
    pub fn lenient(self) -> Self {
        self.lock().lenient = true;
        self
    }

    /// `http://<address>:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `<address>:<port>`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a rule. It counts once one of its `reply` methods is called.
    pub fn on(&self, method: Method, paths: impl Into<Paths>) -> RuleBuilder<'_> {
        RuleBuilder::new(self, method, paths.into())
    }

    /// Asked before the rules; the first answer wins. For access control over everything.
    pub fn guard(&self, guard: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) {
        self.lock().guards.push(Arc::new(guard));
    }

    pub fn state(&self) -> String {
        self.lock().state.clone()
    }

    pub fn set_state(&self, state: &str) {
        state.clone_into(&mut self.lock().state);
    }

    /// Forgets all rules and guards; the record stays.
    pub fn clear_rules(&self) {
        let mut inner = self.lock();
        inner.rules.clear();
        inner.guards.clear();
    }

    /// Forgets the record; the rules stay.
    pub fn clear_requests(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        inner.peak.clear();
        inner.connections = 0;
    }

    /// Everything that was asked, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// How many requests there were with this method and path.
    pub fn count(&self, method: Method, paths: impl Into<Paths>) -> usize {
        let paths = paths.into();
        self.lock()
            .requests
            .iter()
            .filter(|request| method.matches(&request.method) && paths.matches(&request.path))
            .count()
    }

    /// Body bytes sent in answer to GETs of these paths.
    pub fn bytes_sent(&self, paths: impl Into<Paths>) -> u64 {
        let paths = paths.into();
        self.lock().requests.iter().filter(|request| paths.matches(&request.path)).map(Request::sent).sum()
    }

    /// The most requests of one path that were being answered at one time.
    pub fn peak(&self, path: &str) -> usize {
        self.lock().peak.get(path).copied().unwrap_or(0)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// True if any request carried a header that can hold a credential.
    pub fn saw_authorization(&self) -> bool {
        self.lock().requests.iter().any(|request| !request.credentials().is_empty())
    }

    /// Waits (at most `limit`) until the record satisfies a condition; panics if it never does.
    pub async fn wait_until(&self, limit: Duration, what: &str, condition: impl Fn(&[Request]) -> bool) {
        let start = std::time::Instant::now();
        while !condition(&self.lock().requests) {
            assert!(start.elapsed() < limit, "not within {limit:?}: {what}; record: {:#?}", self.summary());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Method and target of each request, for messages.
    pub fn summary(&self) -> Vec<String> {
        self.lock().requests.iter().map(|request| format!("{} {}", request.method, request.target)).collect()
    }

    /// Breaks every connection and refuses new ones, as a host whose server has gone.
    pub fn stop(&self) {
        self.running.send_replace(false);
        self.wait_listening(false);
    }

    /// Listens again, on the same port.
    pub fn resume(&self) {
        self.running.send_replace(true);
        self.wait_listening(true);
    }

    /// Fails if a request came that no rule expected.
    pub fn assert_clean(&self) {
        let unexpected = self.lock().unexpected.clone();
        assert!(
            unexpected.is_empty(),
            "requests that the script of {} does not expect: {unexpected:#?}",
            self.address
        );
    }

    /// What `assert_clean` would complain about; taken, so that it no longer does.
    pub fn take_unexpected(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().unexpected)
    }

    fn wait_listening(&self, up: bool) {
        for _ in 0..400 {
            if std::net::TcpStream::connect(self.address).is_ok() == up {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the scripted upstream at {} did not {}", self.address, if up { "resume" } else { "stop" });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).field("requests", &self.summary()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records a request and says how to answer it. The handler runs without the lock, so that it may look at the
    /// record itself.
    fn expect(&self, request: &Request) -> Reply {
        let guards = {
            let mut inner = self.lock();
            inner.requests.push(request.clone());
            inner.guards.clone()
        };
        if let Some(reply) = guards.iter().find_map(|guard| guard(request)) {
            return reply;
        }
        let mut inner = self.lock();
        let Inner { rules, state, .. } = &mut *inner;
        if let Some(rule) = rules.iter_mut().rev().find(|rule| rule.matches(request, state)) {
            let handler = rule.take(state);
            drop(inner);
            return handler(request);
        }
        if inner.lenient {
            let code = if request.path.contains("/blobs/") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
            return Reply::oci_error(404, code);
        }
        inner.unexpected.push(format!("{} {}", request.method, request.target));
        Reply::status(418).body("the script does not expect this request")
    }

    fn began(&self, path: &str) {
        let mut inner = self.lock();
        let active = inner.active.entry(path.to_owned()).or_default();
        *active += 1;
        let active = *active;
        let peak = inner.peak.entry(path.to_owned()).or_default();
        *peak = active.max(*peak);
    }

    fn ended(&self, path: &str) {
        if let Some(active) = self.lock().active.get_mut(path) {
            *active -= 1;
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

async fn run(
    first: std::net::TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut running: watch::Receiver<bool>,
) {
    let mut listener = Some(first);
    loop {
        if !*running.borrow() {
            // Stopped before the first accept: the port must close nevertheless.
            listener = None;
        }
        if running.wait_for(|up| *up).await.is_err() {
            return;
        }
        let std_listener = match listener.take().map_or_else(|| bind(address), Ok) {
            Ok(listener) => listener,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let accepting = TcpListener::from_std(std_listener).expect("a listener that does not block");
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = accepting.accept() => {
                    let Ok((stream, peer)) = accepted else { continue };
                    shared.lock().connections += 1;
                    connections.spawn(serve(Wire::new(stream, peer), shared.clone()));
                }
                Some(_) = connections.join_next() => {}
                down = running.wait_for(|up| !*up) => {
                    if down.is_err() { return; }
                    break;
                }
            }
        }
        drop(accepting);
        connections.shutdown().await;
    }
}

async fn serve(mut wire: Wire, shared: Arc<Shared>) {
    loop {
        let request = match wire.receive().await {
            Ok(Received::Request(request)) => request,
            Ok(Received::Nonsense(what)) => {
                shared.lock().unexpected.push(what);
                return;
            }
            Ok(Received::Closed) | Err(_) => return,
        };
        let reply = shared.expect(&request);
        let active = Active::new(&shared, &request.path);
        let after = wire.answer(&request, &reply).await;
        drop(active);
        if !matches!(after, Ok(After::KeepAlive)) {
            return;
        }
    }
}

/// Counts an answer in progress for as long as it lives.
struct Active<'a> {
    shared: &'a Shared,
    path: &'a str,
}

impl<'a> Active<'a> {
    fn new(shared: &'a Shared, path: &'a str) -> Self {
        shared.began(path);
        Self { shared, path }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.shared.ended(self.path);
    }
}

#[cfg(test)]
mod tests;
