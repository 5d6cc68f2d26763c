//! The mirror at home: sockets, a disk and tasks for the engine. No policy is decided here.
#![forbid(unsafe_code)]

mod admin;
mod client;
mod flight;
mod helper;
mod host;
mod listen;
pub mod log;
mod metrics;
mod reload;
mod replies;
mod store;
mod strict;
mod threads;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use entrepot_core::config::Config;
use entrepot_engine::Engine;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use host::Native;
use listen::Door;
use metrics::Metrics;
use reload::Reload;
use store::{Limits, Store};
use threads::Threads;

/// How long requests and fills under way may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(8);
/// Connections at once, if the limit on open files allows.
const CONNECTIONS: u64 = 20_000;

/// Threads that wait for the disk: so many for jobs, and about as many for all connections together. More of them make no disk
/// faster, and each holds memory of its own.
const DISK_THREADS: usize = 64;

/// What `serve` starts from.
pub struct Start {
    pub config: Config,
    /// The file it came from, if any, and what was read of it; a change of it is a reason to reload.
    pub file: Option<(PathBuf, String)>,
    /// Reads the configuration anew. The error is for the operator.
    pub reload: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start")
            .field("file", &self.file.as_ref().map(|(path, _)| path))
            .finish_non_exhaustive()
    }
}

/// Serves until SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// When an address cannot be listened on, the cache directory cannot be used, or a certificate cannot be read.
pub fn serve(start: Start) -> anyhow::Result<()> {
    log::init();
    #[cfg(feature = "failpoints")]
    let _scenario = failpoints();
    // Both ends of every connection use one provider; a second in the process would make the choice ambiguous.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .build()?;
    let served = runtime.block_on(run(start));
    runtime.shutdown_timeout(Duration::from_secs(1));
    log::flush();
    served
}

/// What `FAILPOINTS` asks for, for as long as the answer lives. Of a build for tests only.
#[cfg(feature = "failpoints")]
fn failpoints() -> fail::FailScenario<'static> {
    eprintln!("entrepot is built with failpoints: {:?}", std::env::var("FAILPOINTS").unwrap_or_default());
    fail::FailScenario::setup()
}

async fn run(start: Start) -> anyhow::Result<()> {
    let config = start.config.clone();
    let reload = Reload::new(start).context("signals cannot be listened to")?;
    let dir = cache_dir(&config)?;
    let limits = limits(&config);
    let opened = dir.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&opened, limits))
        .await?
        .context("the cache directory cannot be used")?;
    let signing_key =
        store.signing_key().context("the key for access tokens cannot be kept in the cache directory")?;
    let tls = config.tls.as_ref().map(tls::Acceptor::new).transpose()?;
    let listeners =
        config.listen.iter().map(|address| listen(*address)).collect::<anyhow::Result<Vec<_>>>()?;
    let admin = config.admin.map(listen).transpose()?;
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let (threads, ending) =
        Threads::start(DISK_THREADS, &stop).context("no threads for connections can be started")?;
    greet(&config, &dir);

    let host = Native::new(config, store.clone(), signing_key, Arc::new(Metrics::default()));
    let engine = Engine::new(host.clone());
    let door =
        Door { engine: engine.clone(), room: Arc::new(Semaphore::new(connections())), tls: tls.clone() };
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            tokio::spawn(listen::accept(listener, door.clone(), threads.clone(), draining.clone()))
        })
        .collect();
    if let Some(listener) = admin {
        tokio::spawn(admin::serve(listener, engine.clone(), draining.clone(), stop.clone()));
    }
    tokio::spawn(store.clone().upkeep(stop.clone()));
    tokio::spawn(reload.run(host.clone(), tls, stop.clone()));

    ended().await?;
    tracing::info!("draining: no new connections, and up to {} s for what is under way", DRAIN.as_secs());
    draining.cancel();
    let drained = async {
        for accepting in accepting {
            if let Ok(graceful) = accepting.await {
                graceful.shutdown().await;
            }
        }
        host.jobs().close();
        host.jobs().wait().await;
    };
    tokio::select! {
        done = tokio::time::timeout(DRAIN, drained) => match done {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!("not everything ended in time; it is cut off"),
        },
        _ = ended() => tracing::warn!("told twice: ending at once"),
    }
    stop.cancel();
    tokio::task::spawn_blocking(move || {
        ending.join();
        store.flush();
    })
    .await?;
    Ok(())
}

fn limits(config: &Config) -> Limits {
    Limits { max_size: config.cache.max_size, keep: config.cache.blob_ttl }
}

/// The configured directory, else one under the user's data directory.
fn cache_dir(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &config.cache.dir {
        return Ok(PathBuf::from(dir));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    let data = data.context("there is no home directory to keep the cache in: set `proxy.cache.dir`")?;
    Ok(data.join("entrepot"))
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| {
        format!(
            "cannot listen on {address}; is something else there? `listen` and `admin` name other addresses"
        )
    })
}

/// A connection takes one descriptor, a file being served another, an upstream connection a third.
fn connections() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files / 4).clamp(16, CONNECTIONS)).unwrap_or(16)
}

async fn ended() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    Ok(())
}

/// What someone who has just started it wants to know.
fn greet(config: &Config, dir: &Path) {
    let endpoint = config.endpoint.as_str().trim_end_matches('/');
    let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    eprintln!("entrepot {} mirrors {} registries", env!("CARGO_PKG_VERSION"), config.sources.len());
    eprintln!("  listening on  {}", addresses.join(", "));
    if let Some(admin) = config.admin {
        eprintln!("  admin         http://{admin}/metrics");
    }
    eprintln!("  storing in    {}", dir.display());
    eprintln!(
        "  for Docker    add to /etc/docker/daemon.json:  {{ \"registry-mirrors\": [\"{endpoint}\"] }}"
    );
    for source in &config.sources {
        if source.auth.is_some() && config.access.anonymous {
            eprintln!(
                "  NOTE          source `{}` has credentials and anonymous clients are let in: they get what upstream shows to anyone{}; everything else needs a token (`access.tokens`)",
                source.name,
                if source.public.is_empty() { "" } else { " and what its `public` patterns name" }
            );
            tracing::warn!(source = %source.name, "credentialed source with anonymous clients: only public content is served to them");
        }
    }
}
