//! The edge: a Cloudflare Worker around the same engine as at home.
//!
//! [`door`] answers requests, [`host`] lends the engine what the platform has, [`repository`] is the Durable Object in which
//! work is done once for all who wait for it, [`ledger`] the one that knows what the bucket holds. Blobs are streams of
//! the runtime; their bytes never enter this module's memory.

mod cron;
mod door;
mod flight;
mod front;
mod host;
mod isolate;
mod ledger;
mod limits;
mod log;
mod metrics;
mod notes;
mod objects;
mod outward;
mod records;
mod refusals;
mod repository;
mod spawn;
mod ticket;
mod warm;

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use worker::{Context, Env, Request, Response, ScheduleContext, ScheduledEvent, event};

pub use ledger::Ledger;
pub use repository::Flights;

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> worker::Result<Response> {
    door::answer(request, env, context).await
}

/// The answer to a request in whose work the instance before this one trapped.
#[wasm_bindgen]
pub async fn panicked(
    request: web_sys::Request,
    env: Env,
    context: worker::worker_sys::Context,
) -> Result<web_sys::Response, JsValue> {
    Ok(door::panicked(&request.into(), env, Context::new(context))?.into())
}

#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, context: ScheduleContext) {
    cron::wake(env, context).await;
}
