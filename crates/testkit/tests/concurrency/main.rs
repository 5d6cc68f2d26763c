//! Many clients at once: T-CC1 to T-CC5, T-OL1, T-OL2.

#[path = "../common/mod.rs"]
mod common;

mod collapse;
mod flips;
mod join;
mod leader;
mod overload;
mod pieces;
mod slow;
mod verify;

use std::time::Duration;

use entrepot_testkit::script::{Body, Pattern, Upstream};

use crate::common::Bench;

/// A blob with its digest and its path in `team/app`.
#[derive(Debug)]
pub struct Blob {
    pub body: Body,
    pub digest: String,
    pub path: String,
    pub size: u64,
}

impl Blob {
    pub fn new(seed: u64, size: u64) -> Self {
        let body = Body::from(Pattern::new(seed, size));
        let digest = body.sha256();
        let path = format!("/v2/team/app/blobs/{digest}");
        Self { body, digest, path, size }
    }
}

/// Requests of any kind for one path.
pub fn asked(upstream: &Upstream, path: &str) -> Vec<String> {
    upstream
        .requests()
        .iter()
        .filter(|request| request.path == path)
        .map(|request| request.method.clone())
        .collect()
}

/// Waits until the mirror has exactly so many connections from clients.
pub async fn connected(bench: &Bench, n: usize) {
    let start = std::time::Instant::now();
    loop {
        let now = bench.mirror.metric("entrepot_connections", &[]);
        if now == n as f64 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{now} connections instead of {n}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
