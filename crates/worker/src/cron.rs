//! What the Worker does by itself, woken by the clock: it makes room, compares the ledger with the bucket, and keeps images
//! warm. Each part is bounded, so that together they stay below what one invocation may ask.

use std::rc::Rc;
use std::sync::Arc;

use entrepot_core::evict::PAGE;
use entrepot_core::time::Wall;
use entrepot_oci::Digest;
use serde_json::json;
use worker::{Env, ScheduleContext};

use crate::host::{Edge, Site};
use crate::isolate;
use crate::ledger::{self, Found, Listed, Look, Slice, Victim};
use crate::objects::{self, OBJECTS};
use crate::spawn::Spawn;
use crate::warm;

/// Slices that one invocation removes. Each is one call of the bucket, which takes a thousand keys.
const SLICES: usize = 4;

/// Does what is due, as far as one invocation may go.
pub(crate) async fn wake(env: Env, context: ScheduleContext) {
    let isolate = match isolate::enter(&env) {
        Ok(isolate) => isolate,
        Err(problems) => return worker::console_error!("the configuration is refused:\n{problems}"),
    };
    let edge = match Edge::new(isolate, env, Spawn::Schedule(Rc::new(context)), Site::Request) {
        Ok(edge) => edge,
        Err(error) => return worker::console_error!("a binding is missing: {error}"),
    };
    edge.recall().await;
    ledger::flush(&edge).await;
    work(&edge).await;
    edge.remember().await;
}

/// What fails keeps nothing else from being done; it is tried again the next time.
async fn work(edge: &Arc<Edge>) {
    let evicted = said("no room is made", make_room(edge).await).unwrap_or_default();
    let look = said("nothing is known of the last time", ledger::ask::<_, Look>(edge, "look", &()).await);
    let Some(look) = look else { return };
    let compared = said("the bucket is not compared", compare(edge, &look).await);
    let (learnt, forgotten) = compared.unwrap_or_default();
    let warmed = warm::warm(edge, &look.warm).await;
    let line = json!({
        "message": "cron",
        "evicted": evicted.len(),
        "freed_bytes": evicted.iter().map(|victim| victim.2).sum::<u64>(),
        "learnt": learnt,
        "forgotten": forgotten,
        "warm_steps": warmed.steps,
        "fills": warmed.fills,
        "failures": warmed.failures,
        "config": edge.isolate().stamp,
        "subrequests": edge.tally().used(),
    });
    worker::console_log!("{line}");
}

fn said<T>(what: &str, outcome: worker::Result<T>) -> Option<T> {
    outcome.inspect_err(|error| worker::console_error!("{what}: {error}")).ok()
}

/// Removes what has to go. An object that is served while it goes is served to its end; one that is being stored is not in
/// the ledger yet.
async fn make_room(edge: &Edge) -> worker::Result<Vec<Victim>> {
    let cache = &edge.configuration().cache;
    let mut slice = Slice { max_size: cache.max_size, blob_ttl: cache.blob_ttl, removed: Vec::new() };
    let mut gone = Vec::new();
    for turn in 0..=SLICES {
        let victims: Vec<Victim> = ledger::ask(edge, "slice", &slice).await?;
        gone.append(&mut slice.removed);
        if victims.is_empty() || turn == SLICES {
            break;
        }
        let keys =
            victims.iter().flat_map(|Victim(digest, ..)| [objects::key(digest), objects::marker(digest)]);
        edge.tally().note();
        edge.objects().bucket.delete_multiple(keys.collect()).await?;
        slice.removed = victims;
    }
    if !gone.is_empty() {
        edge.isolate().notes.borrow_mut().evicted(gone.len() as u64);
    }
    Ok(gone)
}

/// Shows the ledger the next page of the bucket: so one that was lost, or missed something, learns it again. How many objects
/// it learnt, and how many it forgot.
async fn compare(edge: &Edge, look: &Look) -> worker::Result<(u64, u64)> {
    edge.tally().note();
    let mut list = edge.objects().bucket.list().prefix(OBJECTS).limit(PAGE as u32);
    if !look.after.is_empty() {
        list = list.start_after(key_of(&look.after));
    }
    let page = list.execute().await?;
    let listed = page.objects();
    let until = listed.last().filter(|_| page.truncated()).map(|last| digest_of(&last.key()));
    let found = listed.iter().filter_map(|object| {
        let digest: Digest = digest_of(&object.key()).parse().ok()?;
        let verified = objects::has_sum(object, &digest);
        Some(Found { digest, size: object.size(), stored: Wall(object.uploaded().as_millis()), verified })
    });
    let found = found.collect();
    ledger::ask(edge, "listed", &Listed { since: look.since, after: look.after.clone(), until, found }).await
}

/// Where an object with such a digest would lie in the bucket. Digests and their keys have one order.
fn key_of(digest: &str) -> String {
    format!("{OBJECTS}{}", digest.replacen(':', "/", 1))
}

fn digest_of(key: &str) -> String {
    key.strip_prefix(OBJECTS).unwrap_or(key).replacen('/', ":", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_their_keys_have_one_order() {
        let digests = [Digest::sha256(b"a"), Digest::sha256(b"b")];
        for digest in &digests {
            assert_eq!(key_of(&digest.to_string()), objects::key(digest));
            assert_eq!(digest_of(&objects::key(digest)), digest.to_string());
        }
        let [a, b] = digests.map(|digest| digest.to_string());
        assert_eq!(a < b, key_of(&a) < key_of(&b));
        assert!(key_of(&a) < key_of("sha512:00"));
    }
}
