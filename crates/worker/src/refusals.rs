//! What one isolate is told of a registry's limits, all should know: a registry that has refused a pull is not asked again
//! before its time. KV carries it; that it may be a minute old costs a question too many, and nothing else.

use entrepot_core::upstream::Suspension;
use worker::Env;

use crate::host::KV;
use crate::isolate::{self, Isolate};
use crate::limits::Tally;

const KEY: &str = "refusals";
/// Milliseconds between two looks of one isolate.
const EVERY: u64 = 10_000;
/// Seconds that KV keeps a value at the least.
const SHORTEST: u64 = 60;

/// Learns what others were told, at most once in ten seconds.
pub(crate) async fn recall(isolate: &Isolate, env: &Env, tally: &Tally) {
    let now = isolate::now();
    if now.wall.since(isolate.recalled.get()).as_millis() < u128::from(EVERY) {
        return;
    }
    isolate.recalled.set(now.wall);
    let Ok(kv) = env.kv(KV) else { return };
    tally.note();
    let Ok(Some(text)) = kv.get(KEY).text().await else { return };
    for told in serde_json::from_str::<Vec<Suspension>>(&text).unwrap_or_default() {
        isolate.upstreams.borrow_mut().suspend(&told, now);
    }
    isolate.refusals.replace(text);
}

/// Tells others, if there is anything new.
pub(crate) async fn remember(isolate: &Isolate, env: &Env, tally: &Tally) {
    let now = isolate::now();
    let suspensions = isolate.upstreams.borrow().suspensions(now);
    let Some(last) = suspensions.iter().map(|suspension| suspension.until).max() else { return };
    let known: Vec<Suspension> = serde_json::from_str(&isolate.refusals.borrow()).unwrap_or_default();
    let is_known = |new: &Suspension| known.iter().any(|old| old.of == new.of && old.until >= new.until);
    if suspensions.iter().all(is_known) {
        return;
    }
    let Ok(text) = serde_json::to_string(&suspensions) else { return };
    let keep = last.since(now.wall).as_secs().max(SHORTEST);
    tally.note();
    let put = match env.kv(KV).and_then(|kv| Ok(kv.put(KEY, &text)?)) {
        Ok(put) => put.expiration_ttl(keep).execute().await,
        Err(_) => return,
    };
    match put {
        Ok(()) => drop(isolate.refusals.replace(text)),
        // One write a second is all that KV takes of a key: somebody else has told it then.
        Err(error) => worker::console_error!("a refusal cannot be told: {error}"),
    }
}
