//! What the Worker does by itself, woken by the clock.

use std::rc::Rc;

use worker::{Env, ScheduleContext};

use crate::host::{Edge, Site};
use crate::isolate;
use crate::ledger;
use crate::spawn::Spawn;

/// Does what is due, as far as one invocation may go.
pub(crate) async fn wake(env: Env, context: ScheduleContext) {
    let isolate = match isolate::enter(&env) {
        Ok(isolate) => isolate,
        Err(problems) => return worker::console_error!("the configuration is refused:\n{problems}"),
    };
    match Edge::new(isolate, env, Spawn::Schedule(Rc::new(context)), Site::Request) {
        Ok(edge) => ledger::note(&edge).await,
        Err(error) => worker::console_error!("a binding is missing: {error}"),
    }
}
