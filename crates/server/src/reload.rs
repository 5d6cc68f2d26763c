//! A new configuration without a restart: on SIGHUP, or when the file changes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use entrepot_core::config::Config;
use entrepot_core::event::Event;
use entrepot_engine::ports::Host;
use notify::event::{AccessKind, EventKind};
use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::Native;
use crate::tls::Acceptor;
use crate::{Start, limits};

/// Editors and mounts change a file in several steps.
const SETTLE: Duration = Duration::from_millis(300);

/// What tells that there may be a new configuration. It listens from when it is made: what comes while the rest still
/// starts is not missed.
pub(crate) struct Reload {
    start: Start,
    hangup: Signal,
    changes: mpsc::Receiver<()>,
    /// Dropping it ends it.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Reload {
    /// # Errors
    /// The process cannot be told of signals.
    pub(crate) fn new(start: Start) -> std::io::Result<Reload> {
        let hangup = signal(SignalKind::hangup())?;
        let (changed, changes) = mpsc::channel(1);
        let watcher = start.file.as_ref().and_then(|(path, text)| watcher(path, text, changed));
        Ok(Reload { start, hangup, changes, _watcher: watcher })
    }

    /// Reloads until `stop`. A configuration that is not valid changes nothing, and the log says why.
    pub(crate) async fn run(mut self, host: Arc<Native>, tls: Option<Acceptor>, stop: CancellationToken) {
        let mut current = self.start.config.clone();
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {}
                Some(()) = self.changes.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    while self.changes.try_recv().is_ok() {}
                }
                () = stop.cancelled() => return,
            }
            match (self.start.reload)() {
                Ok(config) => {
                    warn_of_fixed(&current, &config);
                    if let (Some(acceptor), Some(files)) = (&tls, &config.tls)
                        && let Err(error) = acceptor.reload(files)
                    {
                        tracing::error!(%error, "the certificate is not reloaded; the one in use stays");
                    }
                    host.store().set_limits(limits(&config));
                    current = config.clone();
                    host.reconfigure(config);
                    host.observe(Event::Reloaded { accepted: true });
                    tracing::info!("the configuration is reloaded");
                }
                Err(problems) => {
                    host.observe(Event::Reloaded { accepted: false });
                    tracing::error!(%problems, "the new configuration is not valid; the one in force stays");
                }
            }
        }
    }
}

/// Watches the folder, since mounted configurations are replaced by renaming a link (Kubernetes' ConfigMaps).
/// `text`: what has been read of the file.
fn watcher(path: &Path, text: &str, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let path = std::path::absolute(path).ok()?;
    let folder = path.parent()?.to_owned();
    let mut last = Some(text.as_bytes().to_vec());
    let mut before = None;
    let (file, sender) = (path.clone(), changed.clone());
    let told = move |event: notify::Result<notify::Event>| {
        // Opening the file is an event as well, and reading it here would be one after the other without end.
        let opened = |event: notify::Event| matches!(event.kind, EventKind::Access(AccessKind::Open(_)));
        if event.is_ok_and(opened) {
            return;
        }
        // Others may write beside it, as a log does with every line: that is no reason to read it.
        let now = seen(&file);
        if now == before {
            return;
        }
        before = now;
        let content = std::fs::read(&file).ok();
        if content.is_some() && content != last {
            last = content;
            // One waiting notice is enough.
            let _ = sender.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(told).ok()?;
    match watcher.watch(&folder, RecursiveMode::NonRecursive) {
        Ok(()) => {
            // It may have changed between being read and being watched.
            if std::fs::read(&path).is_ok_and(|now| now != text.as_bytes()) {
                let _ = changed.try_send(());
            }
            Some(watcher)
        }
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "changes of the configuration cannot be watched; send SIGHUP after one");
            None
        }
    }
}

/// What tells that a file may be another than before, without reading it: its device, inode and bytes, and the seconds and
/// nanoseconds of its last change.
fn seen(path: &Path) -> Option<(u64, u64, u64, i64, i64)> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
}

/// Some things are taken up at the start only.
fn warn_of_fixed(current: &Config, new: &Config) {
    let fixed = [
        ("listen", current.listen != new.listen),
        ("admin", current.admin != new.admin),
        ("cache.dir", current.cache.dir != new.cache.dir),
        ("tls", current.tls.is_some() != new.tls.is_some()),
    ];
    for (key, changed) in fixed {
        if changed {
            tracing::warn!(key, "changed, and takes effect at the next start");
        }
    }
}
