//! The one Durable Object that knows what the bucket holds: how much, and what was used longest ago.

use worker::{DurableObject, Env, Method, Request, RequestInit, Response, State, durable_object};

use crate::host::Edge;
use crate::isolate;

const BINDING: &str = "LEDGER";
const NAME: &str = "ledger";

/// Tells the ledger what was used and stored, if it is time.
pub(crate) async fn note(edge: &Edge) {
    let isolate = edge.isolate();
    let notes = {
        let mut notes = isolate.notes.borrow_mut();
        notes.used.extend(edge.objects().used.take());
        notes.filled.append(&mut edge.objects().filled.borrow_mut());
        notes.take(isolate::now().wall)
    };
    let Some(notes) = notes else { return };
    let sent = serde_json::to_string(&notes).unwrap_or_default();
    if let Err(error) = ask(edge, "note", &sent).await {
        worker::console_error!("the ledger cannot be told: {error}");
        isolate.notes.borrow_mut().give_back(notes);
    }
}

/// Errors: the ledger could not be asked.
pub(crate) async fn ask(edge: &Edge, what: &str, sent: &str) -> worker::Result<String> {
    let _slot = edge.tally().slot().await;
    let stub = edge.env().durable_object(BINDING)?.get_by_name(NAME)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(sent.into()));
    let mut response =
        stub.fetch_with_request(Request::new_with_init(&format!("https://ledger/{what}"), &init)?).await?;
    match response.status_code() {
        200 => response.text().await,
        status => Err(worker::Error::RustError(format!("{what}: status {status}"))),
    }
}

/// See the module.
#[durable_object]
#[derive(Debug)]
pub struct Ledger {
    state: State,
}

impl DurableObject for Ledger {
    fn new(state: State, _env: Env) -> Self {
        Ledger { state }
    }

    async fn fetch(&self, _request: Request) -> worker::Result<Response> {
        let _ = self.state.storage();
        Response::ok("")
    }
}
