//! The transcripts through the binary, over a socket.

use std::time::Duration;

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::transcript::{self, Fills, Sockets};

#[test]
fn transcripts_natively() {
    transcript::replay_all(Fills::Followed, |transcript| {
        let sockets = Sockets::start(transcript);
        let mirror = Mirror::start(transcript.whole_config(&sockets.addresses));
        let mut over = sockets.before(mirror.url(), |_| {
            mirror.wait_until(Duration::from_secs(10), "no fill is under way", |mirror| {
                mirror.metric("entrepot_filling", &[]) == 0.0
            });
        });
        transcript.replay(Fills::Followed, &mut over, &sockets.script)
    });
}
