//! One object's conversation with a registry.

use http::{HeaderMap, StatusCode, header};

use super::{Ask, Fault, Input, Outbound, Reply, Step, Trust, USER_AGENT, UpstreamState, What};
use crate::failure::{Failure, Reason};
use crate::time::Now;

/// Asks for one object: begin with `Input::Start`, perform each step, and hand back what came of it.
#[derive(Debug)]
pub struct Exchange {
    ask: Ask,
}

impl Exchange {
    pub fn new(ask: Ask) -> Self {
        Exchange { ask }
    }

    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What to do after `input`. An input that does not answer the last step ends in `Reason::Internal`.
    pub fn step(&mut self, _state: &mut UpstreamState, _now: Now, _random: u64, input: Input) -> Step {
        match input {
            Input::Start | Input::Waited => Step::Send(self.request()),
            Input::Head(parts) if parts.status == StatusCode::OK => {
                let size = parts
                    .headers
                    .get(header::CONTENT_LENGTH)
                    .and_then(|v| v.to_str().ok()?.parse().ok());
                let upstream = self.ask.source.url.clone();
                Step::Done(Ok(Reply {
                    status: parts.status,
                    headers: parts.headers,
                    offset: 0,
                    length: size,
                    size,
                    upstream,
                }))
            }
            Input::Head(parts) => {
                let text = format!("upstream answered {}", parts.status);
                Step::Done(Err(Failure::new(Reason::UpstreamServerError, text)))
            }
            Input::Token(Err(failure)) => Step::Done(Err(failure)),
            Input::Fault(_) | Input::Small(_) | Input::Token(Ok(_)) => Step::Done(Err(Failure::new(
                Reason::UpstreamUnreachable,
                "upstream cannot be reached",
            ))),
        }
    }

    /// The body of a blob broke after `received` bytes, counted from the start of the blob: goes on from there.
    pub fn broken(
        &mut self,
        state: &mut UpstreamState,
        now: Now,
        random: u64,
        received: u64,
        _fault: Fault,
    ) -> Step {
        self.ask.range = Some((received, self.ask.range.and_then(|(_, last)| last)));
        self.step(state, now, random, Input::Start)
    }

    fn request(&self) -> Outbound {
        let ask = &self.ask;
        let mut url = ask.source.url.clone();
        let tail = match &ask.what {
            What::Manifest(reference) => format!("manifests/{reference}"),
            What::Blob(digest) => format!("blobs/{digest}"),
            What::Tags(_) => "tags/list".to_owned(),
            What::Referrers(digest, _) => format!("referrers/{digest}"),
        };
        url.set_path(&format!("/v2/{}/{tail}", ask.repository));
        if let What::Tags(query) | What::Referrers(_, query) = &ask.what {
            url.set_query((!query.is_empty()).then_some(query));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT));
        headers.insert(
            header::ACCEPT_ENCODING,
            http::HeaderValue::from_static("identity"),
        );
        Outbound {
            method: ask.method.method(),
            url,
            headers,
            body: None,
            trust: Trust {
                insecure: ask.source.insecure,
                allow_private: ask.source.allow_private,
            },
            connect: ask.source.timeouts.connect,
            first_byte: ask.source.timeouts.first_byte,
        }
    }
}
