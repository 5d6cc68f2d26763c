//! A client's requests, and what it gets for them.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use entrepot_engine::{Engine, Facts};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::Memory;

/// A request, from `192.0.2.1` and to `mirror.example.com` unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    target: String,
    headers: HeaderMap,
    form: Option<Bytes>,
    peer: IpAddr,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Asked {
    answer: Rc<RefCell<Option<Answered>>>,
    task: u64,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body ended where its head said.
    pub(crate) whole: bool,
    pub(crate) facts: Facts,
    /// Milliseconds from the request to the answer's head.
    pub(crate) took: u64,
}

impl Ask {
    /// `path` is what follows `/v2/`.
    pub(crate) fn new(method: Method, path: &str) -> Ask {
        Ask::whole(method, &format!("/v2/{path}"))
    }

    /// `target` is all that the request line says.
    pub(crate) fn whole(method: Method, target: &str) -> Ask {
        Ask {
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            form: None,
            peer: "192.0.2.1".parse().unwrap(),
        }
    }

    pub(crate) fn get(path: &str) -> Ask {
        Ask::new(Method::GET, path)
    }

    pub(crate) fn head(path: &str) -> Ask {
        Ask::new(Method::HEAD, path)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Ask {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn form(mut self, form: &str) -> Ask {
        self.form = Some(Bytes::copy_from_slice(form.as_bytes()));
        self
    }

    pub(crate) fn from(mut self, peer: &str) -> Ask {
        self.peer = peer.parse().unwrap();
        self
    }

    pub(super) fn send(self, engine: Engine<Memory>) -> Asked {
        let answer = Rc::<RefCell<Option<Answered>>>::default();
        let slot = answer.clone();
        let clock = engine.host().clock.clone();
        let task = clock.clone().spawn(async move {
            let since = clock.millis();
            let mut request = http::Request::new(());
            *request.method_mut() = self.method.clone();
            *request.uri_mut() = self.target.parse().unwrap();
            *request.headers_mut() = self.headers;
            let host = request.headers_mut().entry(http::header::HOST);
            host.or_insert_with(|| "mirror.example.com".parse().unwrap());
            let reply = engine.serve(&request.into_parts().0, self.form, self.peer).await;
            let took = clock.millis() - since;
            let (body, whole) = match reply.body {
                Some(body) => body.read().await,
                None => (reply.answer.body.to_vec(), true),
            };
            if self.method == Method::HEAD {
                assert!(body.is_empty(), "HEAD has no body");
            }
            let (status, headers, facts) = (reply.answer.status, reply.answer.headers, reply.facts);
            *slot.borrow_mut() = Some(Answered { status, headers, body: body.into(), whole, facts, took });
        });
        Asked { answer, task }
    }
}

impl Asked {
    /// The answer, if it is all there.
    pub(crate) fn take(&self) -> Option<Answered> {
        self.answer.borrow_mut().take()
    }

    /// The client goes away.
    pub(crate) fn leave(self, world: &super::World) {
        world.clock.stop(self.task);
    }
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `200 MISS`, `404 MANIFEST_UNKNOWN`: enough for most.
    pub(crate) fn brief(&self) -> String {
        let code = serde_json::from_slice::<serde_json::Value>(&self.body)
            .ok()
            .and_then(|body| body["errors"][0]["code"].as_str().map(str::to_owned));
        let word = match (self.status.as_u16(), code) {
            (200..=399, _) => self.header("x-cache").unwrap_or("-").to_owned(),
            (_, code) => code.unwrap_or_else(|| "-".to_owned()),
        };
        format!("{} {word}", self.status.as_u16())
    }
}
