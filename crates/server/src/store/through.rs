//! A body that is stored nowhere: from upstream to one client.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Digest, Hasher};
use futures_util::stream;

use super::body::{Body, BodyBroken};
use super::fill::HELD_BACK;
use crate::client::Incoming;

/// Passes `body` on. When it is the whole object of `whole` bytes, the last of them wait for the digest.
pub(super) fn body(digest: Digest, whole: Option<u64>, stall: Duration, body: Incoming) -> Body {
    let check = whole.map(|size| Check { digest, size, hasher: Hasher::new(digest.algorithm()), seen: 0 });
    let state = Passing { body, stall, check, held: VecDeque::new(), held_bytes: 0, verified: false };
    Body::new(stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|chunk| (chunk, state)))
    }))
}

struct Passing {
    body: Incoming,
    stall: Duration,
    check: Option<Check>,
    /// What may not be passed on yet.
    held: VecDeque<Bytes>,
    held_bytes: u64,
    /// The body has ended, and its digest matches.
    verified: bool,
}

struct Check {
    digest: Digest,
    size: u64,
    hasher: Hasher,
    seen: u64,
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyBroken> {
        loop {
            let Some(check) = &mut self.check else {
                if let Some(chunk) = self.held.pop_front() {
                    return Ok(Some(chunk));
                }
                return if self.verified { Ok(None) } else { read(&mut self.body, self.stall).await };
            };
            let first = self.held.front().map_or(0, |first| first.len() as u64);
            if self.held_bytes >= first + HELD_BACK
                && let Some(chunk) = self.held.pop_front()
            {
                self.held_bytes -= first;
                return Ok(Some(chunk));
            }
            match read(&mut self.body, self.stall).await? {
                Some(chunk) => {
                    check.hasher.update(&chunk);
                    check.seen += chunk.len() as u64;
                    self.held_bytes += chunk.len() as u64;
                    self.held.push_back(chunk);
                }
                None if check.seen == check.size && check.hasher.clone().finish() == check.digest => {
                    self.verified = true;
                    self.check = None;
                }
                None => {
                    return Err(BodyBroken(format!("upstream's bytes do not hash to {}", check.digest)));
                }
            }
        }
    }
}

async fn read(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, BodyBroken> {
    match tokio::time::timeout(stall, body.next()).await {
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(fault))) => Err(BodyBroken(format!("upstream broke off: {fault:?}"))),
        Ok(None) => Ok(None),
        Err(_) => Err(BodyBroken("upstream stalled".into())),
    }
}
