//! The one Durable Object that knows what the bucket holds: how much, and what was used longest ago. It counts for
//! `/metrics` as well, and remembers how far the cron's work has come.

mod book;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use entrepot_core::time::Wall;
use entrepot_oci::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use worker::{DurableObject, Env, Method, Request, RequestInit, Response, State, durable_object};

use crate::host::Edge;
use crate::isolate;
use crate::notes::Notes;
use book::Book;

pub(crate) use book::Totals;

const BINDING: &str = "LEDGER";
const NAME: &str = "ledger";

/// What has to go: when it was last used, as far as the ledger knew, and its size in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Victim(pub(crate) Digest, pub(crate) Wall, pub(crate) u64);

/// Asks for the next victims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Bytes.
    pub(crate) max_size: u64,
    pub(crate) blob_ttl: Option<Duration>,
    /// Those that were removed before.
    pub(crate) removed: Vec<Victim>,
}

/// How far the cron's work has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Look {
    /// When the ledger was asked, by its own clock.
    pub(crate) since: Wall,
    /// The last object of the bucket that it was shown, as its digest; empty: none.
    pub(crate) after: String,
    /// How far warming has come, as that was told; empty: never.
    pub(crate) warm: String,
}

/// What the bucket holds between two digests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) since: Wall,
    /// Exclusive.
    pub(crate) after: String,
    /// Inclusive; `None`: to its end.
    pub(crate) until: Option<String>,
    pub(crate) found: Vec<Found>,
}

/// One object of the bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) stored: Wall,
    /// The bucket itself has compared the digest.
    pub(crate) verified: bool,
}

/// What is told for `/metrics`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) totals: Totals,
    /// By series.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// Tells the ledger what was used and stored, if it is time.
pub(crate) async fn note(edge: &Edge) {
    gather(edge);
    let notes = edge.isolate().notes.borrow_mut().take(isolate::now().wall);
    send(edge, notes).await;
}

/// Tells the ledger at once.
pub(crate) async fn flush(edge: &Edge) {
    gather(edge);
    let notes = edge.isolate().notes.borrow_mut().take_all(isolate::now().wall);
    send(edge, notes).await;
}

fn gather(edge: &Edge) {
    let mut notes = edge.isolate().notes.borrow_mut();
    notes.used.extend(edge.objects().used.take());
    notes.filled.append(&mut edge.objects().filled.borrow_mut());
}

async fn send(edge: &Edge, notes: Option<Notes>) {
    let Some(notes) = notes else { return };
    if let Err(error) = ask::<_, ()>(edge, "note", &notes).await {
        worker::console_error!("the ledger cannot be told: {error}");
        edge.isolate().notes.borrow_mut().give_back(notes);
    }
}

/// Asks the ledger to do `what`, one of the words in [`Ledger::answer`], with `sent`.
///
/// Errors: it could not be asked, or could not do it.
pub(crate) async fn ask<S: Serialize, R: DeserializeOwned>(
    edge: &Edge,
    what: &str,
    sent: &S,
) -> worker::Result<R> {
    let sent = serde_json::to_string(sent)?;
    let _slot = edge.tally().slot().await;
    let stub = edge.env().durable_object(BINDING)?.get_by_name(NAME)?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_body(Some(sent.into()));
    let mut response =
        stub.fetch_with_request(Request::new_with_init(&format!("https://ledger/{what}"), &init)?).await?;
    match response.status_code() {
        200 => response.json().await,
        status => Err(worker::Error::RustError(format!("{what}: status {status}"))),
    }
}

/// See the module.
#[durable_object]
pub struct Ledger {
    state: State,
    book: OnceCell<Book>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl DurableObject for Ledger {
    fn new(state: State, _env: Env) -> Self {
        Ledger { state, book: OnceCell::new() }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let sent = request.text().await?;
        self.answer(&request.path(), &sent)
    }
}

impl Ledger {
    fn answer(&self, path: &str, sent: &str) -> worker::Result<Response> {
        let book = self.book()?;
        let now = isolate::now().wall;
        match path {
            "/note" => Response::from_json(&book.note(&serde_json::from_str(sent)?, now)?),
            "/look" => Response::from_json(&book.look(now)?),
            "/slice" => Response::from_json(&book.slice(&serde_json::from_str(sent)?, now)?),
            "/listed" => Response::from_json(&book.listed(&serde_json::from_str(sent)?, now)?),
            "/warmed" => Response::from_json(&book.warmed(&serde_json::from_str::<String>(sent)?)?),
            "/metrics" => Response::from_json(&Told { totals: book.totals()?, counters: book.counters()? }),
            _ => Ok(Response::empty()?.with_status(404)),
        }
    }

    fn book(&self) -> worker::Result<&Book> {
        if let Some(book) = self.book.get() {
            return Ok(book);
        }
        let book = Book::open(self.state.storage().sql())?;
        Ok(self.book.get_or_init(|| book))
    }
}
