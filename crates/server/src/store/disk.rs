//! Waiting for the disk, but not for ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use super::Shared;

/// How long one operation may take before its pull goes on without the disk.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// With so many operations overdue the disk is left alone until one of them comes back: each holds a thread.
const STUCK: usize = 4;

impl Shared {
    /// Runs `work` on a thread that may block. `None` when the disk is too slow for it, or `work` panicked (the runtime
    /// logs that).
    pub(super) async fn on_disk<T: Send + 'static>(
        self: &Arc<Shared>,
        work: impl FnOnce(&Arc<Shared>) -> T + Send + 'static,
    ) -> Option<T> {
        if self.overdue.load(Ordering::Relaxed) >= STUCK {
            return None;
        }
        let shared = self.clone();
        self.in_time(spawn_blocking(move || work(&shared))).await?.ok()
    }

    /// What `task` brings, unless it is overdue.
    pub(super) async fn in_time<T: Send + 'static>(
        self: &Arc<Shared>,
        mut task: JoinHandle<T>,
    ) -> Option<Result<T, tokio::task::JoinError>> {
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut task).await {
            return Some(done);
        }
        if self.overdue.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(dir = %self.layout.root().display(), "the disk is slow; pulls do not wait for it");
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let _ = task.await;
            shared.overdue.fetch_sub(1, Ordering::Relaxed);
        });
        None
    }
}
