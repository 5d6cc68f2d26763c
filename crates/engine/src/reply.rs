//! What the host gets for a request: the answer, its body, and what the log should say of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use entrepot_core::access::{self, Client};
use entrepot_core::answer::{Answer, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::event::{Method, RequestLog, Route, Text};
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::limit;
use http::StatusCode;
use http::header::USER_AGENT;
use http::request::Parts;

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
    /// How long the answer may be given again to the same question.
    pub again: Option<Duration>,
    pub(crate) limit: Option<limit::Standing>,
}

impl Facts {
    /// Of a request of which nothing else is known.
    pub fn new(route: Route, address: IpAddr) -> Facts {
        Facts {
            route,
            client: None,
            address,
            source: None,
            verdict: None,
            fetched: false,
            reason: None,
            internal: None,
            again: None,
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

    /// The line of the request that `head` began, when it is answered with `status`. How many bytes went out, and when, is the
    /// host's to fill in.
    pub fn log(self, config: &Config, head: &Parts, status: StatusCode) -> RequestLog {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        RequestLog {
            client: self.client,
            address: self.address,
            method: Method::of(&head.method),
            route: self.route,
            target: Text::new(&access::loggable(config, target)),
            user_agent: head.headers.get(USER_AGENT).map(|agent| Text::from_bytes(agent.as_bytes())),
            source: self.source,
            status: status.as_u16(),
            verdict: self.verdict,
            reason: self.reason,
            internal: self.internal.map(|internal| Text::new(&internal)),
            bytes: 0,
            upstream_bytes: 0,
            first_byte: Duration::ZERO,
            total: Duration::ZERO,
            aborted: false,
        }
    }
}
