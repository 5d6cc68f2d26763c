//! The Durable Object in which work is done once: one for each repository, which holds its records and asks upstream for
//! it, and one for each blob that is being stored.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use entrepot_engine::errand::{self, Asked, Errand};
use entrepot_engine::{Engine, Job};
use entrepot_oci::Digest;
use js_sys::Uint8Array;
use worker::{
    DurableObject, Env, Method, ObjectNamespace, Request, RequestInit, Response, State, durable_object,
};

use crate::host::{Edge, Site};
use crate::isolate;
use crate::limits::Tally;
use crate::records::{self, Own, Put, Table};
use crate::spawn::Spawn;
use crate::ticket::Ticket;

/// The binding of these objects.
const BINDING: &str = "FLIGHTS";
/// The key under which a blob's errand is kept until it is stored.
const ERRAND: &str = "errand";
/// How long after a record was written that expires the table is swept.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(600);
const REPOSITORY: &str = "repository ";
const BLOB: &str = "blob ";

/// Reaches them.
#[derive(Clone)]
pub(crate) struct Stubs {
    namespace: Rc<ObjectNamespace>,
    tally: Tally,
}

/// One of them.
pub(crate) struct Stub {
    stubs: Stubs,
    name: String,
}

impl Stubs {
    pub(crate) fn new(env: &Env, tally: Tally) -> worker::Result<Stubs> {
        Ok(Stubs { namespace: Rc::new(env.durable_object(BINDING)?), tally })
    }

    pub(crate) fn repository(&self, name: &str) -> Stub {
        Stub { stubs: self.clone(), name: format!("{REPOSITORY}{name}") }
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Stub {
        Stub { stubs: self.clone(), name: format!("{BLOB}{digest}") }
    }
}

impl Stub {
    /// Asks it to do `what` with `sent`. `None`: there is nothing.
    ///
    /// Errors: it could not be asked, or could not do it.
    pub(crate) async fn ask(&self, what: &str, sent: &[u8]) -> worker::Result<Option<Bytes>> {
        let _slot = self.stubs.tally.slot().await;
        let stub = self.stubs.namespace.get_by_name(&self.name)?;
        let mut init = RequestInit::new();
        init.with_method(Method::Post).with_body(Some(Uint8Array::from(sent).into()));
        let request = Request::new_with_init(&format!("https://flights/{what}"), &init)?;
        let mut response = stub.fetch_with_request(request).await?;
        match response.status_code() {
            200 => Ok(Some(response.bytes().await?.into())),
            204 => Ok(None),
            status => Err(worker::Error::RustError(format!("{what}: status {status}"))),
        }
    }
}

/// See the module.
#[durable_object(alarm)]
pub struct Flights {
    state: Rc<State>,
    env: Env,
    edge: OnceCell<Arc<Edge>>,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl DurableObject for Flights {
    fn new(state: State, env: Env) -> Self {
        Flights { state: Rc::new(state), env, edge: OnceCell::new() }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let sent = Bytes::from(request.bytes().await?);
        let done = match request.path().as_str() {
            "/get" => self.table()?.get(&text(&sent)?),
            "/put" => {
                self.put(&sent).await?;
                None
            }
            "/remove" => {
                self.table()?.remove(&text(&sent)?);
                None
            }
            "/fly" => return self.fly(&sent).await,
            "/fill" => {
                self.remember(&text(&sent)?).await?;
                None
            }
            _ => return Ok(Response::empty()?.with_status(404)),
        };
        match done {
            Some(bytes) => Response::from_bytes(bytes.to_vec()),
            None => Ok(Response::empty()?.with_status(204)),
        }
    }

    /// Fifteen minutes at the most, which no request has.
    async fn alarm(&self) -> worker::Result<Response> {
        if let Some(errand) = self.state.storage().get::<String>(ERRAND).await? {
            self.fill(&errand).await;
            self.state.storage().delete_all().await?;
        } else {
            self.sweep().await?;
        }
        Response::empty()
    }
}

impl Flights {
    /// The host that does this object's work, made once: its flights are shared by all who ask.
    fn edge(&self, own: Option<Own>) -> worker::Result<Arc<Edge>> {
        if let Some(edge) = self.edge.get() {
            return Ok(edge.clone());
        }
        let isolate = isolate::enter(&self.env).map_err(worker::Error::RustError)?;
        let edge =
            Edge::new(isolate, self.env.clone(), Spawn::Object(self.state.clone()), Site::Object { own })?;
        Ok(self.edge.get_or_init(|| edge).clone())
    }

    fn table(&self) -> worker::Result<Table> {
        Table::open(self.state.storage().sql())
    }

    async fn put(&self, sent: &[u8]) -> worker::Result<()> {
        let (head, value) = split(sent)?;
        let Put { key, keep_ms } = serde_json::from_slice(head)?;
        self.table()?.put(&key, value, keep_ms);
        if keep_ms.is_some() {
            self.sweep_later().await?;
        }
        Ok(())
    }

    async fn fly(&self, sent: &[u8]) -> worker::Result<Response> {
        let errand: Errand = serde_json::from_slice(sent)?;
        let isolate = isolate::enter(&self.env).map_err(worker::Error::RustError)?;
        let Some(Asked::Work(work)) = errand.asked(&isolate.config) else {
            return Ok(Response::empty()?.with_status(409));
        };
        let own = work.place().map(|place| records::repository(&place.records()).into());
        let own = match own {
            Some(repository) => Some(Own { repository, table: Rc::new(self.table()?) }),
            None => None,
        };
        let edge = self.edge(own)?;
        edge.recall().await;
        let landed = Engine::new(edge.clone()).errand(work).await;
        edge.remember().await;
        self.sweep_later().await?;
        Response::from_bytes(errand::spell(&landed))
    }

    /// A fill begins with an alarm, so that it outlives whoever asked for it.
    async fn remember(&self, errand: &str) -> worker::Result<()> {
        let storage = self.state.storage();
        if storage.get::<String>(ERRAND).await?.is_none() {
            storage.put(ERRAND, errand).await?;
            storage.set_alarm(std::time::Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn fill(&self, errand: &str) {
        let Ok(edge) = self.edge(None) else { return };
        let asked =
            serde_json::from_str::<Errand>(errand).ok().and_then(|errand| errand.asked(edge.configuration()));
        let Some(Asked::Fill(place, digest)) = asked else { return };
        edge.recall().await;
        if !edge.has(digest).await {
            let ticket = Ticket::new(edge.objects().clone(), digest);
            Engine::new(edge.clone()).run(Job::Fill { place, digest, ticket }).await;
        }
        edge.remember().await;
    }

    async fn sweep_later(&self) -> worker::Result<()> {
        let storage = self.state.storage();
        if storage.get_alarm().await?.is_none() {
            storage.set_alarm(SWEEP).await?;
        }
        Ok(())
    }

    /// An object without records takes no room.
    async fn sweep(&self) -> worker::Result<()> {
        match self.table()?.purge() {
            Some((_, 0)) => self.state.storage().delete_all().await,
            Some((0, _)) => Ok(()),
            _ => self.sweep_later().await,
        }
    }
}

fn text(sent: &[u8]) -> worker::Result<String> {
    String::from_utf8(sent.to_vec()).map_err(|_| worker::Error::RustError("not a text".into()))
}

fn split(sent: &[u8]) -> worker::Result<(&[u8], &[u8])> {
    let end = sent.iter().position(|&byte| byte == b'\n');
    let end = end.ok_or_else(|| worker::Error::RustError("not a record".into()))?;
    Ok((&sent[..end], &sent[end + 1..]))
}
