//! Keeps the configured images warm, as far as one invocation may go.

use std::sync::Arc;

use entrepot_engine::Engine;
use entrepot_engine::warm::{Progress, Round};

use crate::host::Edge;
use crate::ledger;
use crate::limits::SUBREQUESTS;

/// Subrequests of one step at the most: the records of a repository and of a tag, a question upstream, a manifest.
const STEP: u32 = 18;
/// What remains for telling of it.
const END: u32 = 4;

/// Goes on from where `before` says, as the ledger keeps it.
pub(crate) async fn warm(edge: &Arc<Edge>, before: &str) -> Round {
    let mut done = Round::default();
    if edge.configuration().edge.warm.is_empty() {
        return done;
    }
    // What cannot be read is of another version: it begins anew.
    let mut progress: Progress = serde_json::from_str(before).unwrap_or_default();
    let began = progress.clone();
    let engine = Engine::new(edge.clone());
    while edge.tally().used() + STEP + END <= SUBREQUESTS {
        let mut round = engine.warm(&mut progress, 1).await;
        done.steps += round.steps;
        done.fills += round.fills;
        done.failures.append(&mut round.failures);
        if round.steps == 0 {
            break;
        }
    }
    if progress != began {
        let told = serde_json::to_string(&progress).unwrap_or_default();
        if let Err(error) = ledger::ask::<_, ()>(edge, "warmed", &told).await {
            worker::console_error!("how far warming has come cannot be told: {error}");
        }
    }
    done
}
