//! The transcripts through the Worker, in the runtime that runs it in production.

use std::time::Duration;

use entrepot_testkit::edge::Edge;
use entrepot_testkit::need;
use entrepot_testkit::transcript::{self, Fills, Sockets};

#[test]
fn transcripts_at_the_edge() {
    need!("transcripts_at_the_edge", "node");
    transcript::replay_all(Fills::Apart, |transcript| {
        let sockets = Sockets::start(transcript);
        let edge = Edge::builder(transcript.edge_config(&sockets.addresses))
            .secret("ENTREPOT_KEY", "07".repeat(32))
            .start();
        let mut over = sockets.before(edge.url(""), |stored| {
            let Some((_, hex)) = stored.and_then(|digest| digest.split_once(':')) else { return };
            edge.wait_until(Duration::from_secs(10), "the blob is in the bucket", |edge| {
                edge.r2_keys().iter().any(|key| key.contains(hex))
            });
        });
        let seen = transcript.replay(Fills::Apart, &mut over, &sockets.script);
        let log = edge.log();
        assert!(!log.contains("configuration is refused"), "{}: {log}", transcript.name);
        seen
    });
}
