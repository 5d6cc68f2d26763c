//! What the host gets for a request: the answer, its body, and what the log should say of it.

use std::net::IpAddr;
use std::sync::Arc;

use entrepot_core::access::Client;
use entrepot_core::answer::{Answer, Trace, Verdict};
use entrepot_core::event::Route;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit;

/// An answer. Where `body` is there, it follows the head in place of the answer's own (empty) bytes.
#[derive(Debug)]
pub struct Reply<B> {
    pub answer: Answer,
    pub body: Option<B>,
    pub facts: Facts,
}

/// What the log line and the metrics say of a request.
#[derive(Clone, Debug)]
pub struct Facts {
    pub route: Route,
    /// The known client's name.
    pub client: Option<Arc<str>>,
    pub address: IpAddr,
    pub source: Option<Arc<str>>,
    pub verdict: Option<Verdict>,
    /// This request started the fetch of what it was answered with; those that joined it did not.
    pub fetched: bool,
    pub reason: Option<Reason>,
    /// The failure's internal half.
    pub internal: Option<String>,
    pub(crate) limit: Option<limit::Standing>,
}

impl Facts {
    pub(crate) fn new(route: Route, address: IpAddr) -> Facts {
        Facts {
            route,
            client: None,
            address,
            source: None,
            verdict: None,
            fetched: false,
            reason: None,
            internal: None,
            limit: None,
        }
    }

    pub(crate) fn of(mut self, client: &Client) -> Facts {
        self.address = client.address;
        if let entrepot_core::access::Identity::Known { name } = &client.identity {
            self.client = Some(name.clone());
        }
        self
    }

    pub(crate) fn served(&mut self, trace: &Trace) {
        self.verdict = Some(trace.verdict);
        self.fetched = matches!(trace.verdict, Verdict::Miss | Verdict::Bypass) && !trace.collapsed;
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
        self.internal.clone_from(&failure.internal);
    }
}
