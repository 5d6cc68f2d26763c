//! Conversations with scripted registries, on a virtual clock.

mod auth;
mod body;
mod graph;
mod home;
mod limits;
mod parts;
mod redirect;
mod retry;
mod token;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use url::Url;

use super::{
    Ask, Exchange, Fault, Identity, Input, Outbound, Reply, Step, Suspended, Suspension, Token, TokenAsk,
    TokenExchange, TokenStep, UpstreamState, Verb, What,
};
use crate::config::{Auth, OnGone, Secret, Source, Timeouts};
use crate::failure::Failure;
use crate::time::{Mono, Now, Wall};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const PASSWORD: &str = "canary-password";

/// What a scripted host says to one request.
#[derive(Clone, Debug)]
enum Said {
    Http(u16, Vec<(&'static str, String)>, String),
    Fault(Fault),
}

fn http(status: u16, headers: &[(&'static str, &str)]) -> Said {
    Said::Http(
        status,
        headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        String::new(),
    )
}

impl Said {
    fn body(self, text: &str) -> Said {
        match self {
            Said::Http(status, headers, _) => Said::Http(status, headers, text.to_owned()),
            fault => fault,
        }
    }
}

/// A network of scripted hosts and what was sent into it.
struct World<F> {
    script: F,
    state: UpstreamState,
    now: Now,
    sent: Vec<Outbound>,
    waits: Vec<Duration>,
    seed: u64,
    steps: usize,
}

impl<F: FnMut(&Outbound) -> Said> World<F> {
    fn new(script: F) -> Self {
        let now = Now { wall: Wall(1_800_000_000_000), mono: Mono(1_000_000) };
        World { script, state: UpstreamState::new(), now, sent: vec![], waits: vec![], seed: 1, steps: 0 }
    }

    fn ask(&mut self, ask: Ask) -> Result<Reply, Failure> {
        self.run(&mut Exchange::new(ask))
    }

    fn run(&mut self, exchange: &mut Exchange) -> Result<Reply, Failure> {
        let random = self.random();
        let step = exchange.step(&mut self.state, self.now, random, Input::Start);
        self.go_on(exchange, step)
    }

    fn broken(&mut self, exchange: &mut Exchange, received: u64) -> Result<Reply, Failure> {
        let random = self.random();
        let step = exchange.broken(&mut self.state, self.now, random, received, Fault::Reset);
        self.go_on(exchange, step)
    }

    fn go_on(&mut self, exchange: &mut Exchange, mut step: Step) -> Result<Reply, Failure> {
        let mut body = String::new();
        loop {
            self.steps += 1;
            assert!(self.steps < 100_000, "a conversation without an end");
            let input = match step {
                Step::Done(result) => return result,
                Step::Send(request) => self.send(request, &mut body),
                Step::ReadSmall { max } => small(&body, max),
                Step::Wait(wait) => self.wait(wait),
                Step::Token(ask) => Input::Token(self.token(ask)),
            };
            let random = self.random();
            step = exchange.step(&mut self.state, self.now, random, input);
        }
    }

    fn token(&mut self, ask: TokenAsk) -> Result<Token, Failure> {
        let mut exchange = TokenExchange::new(ask);
        let (mut input, mut body) = (Input::Start, String::new());
        loop {
            self.steps += 1;
            assert!(self.steps < 100_000, "a conversation without an end");
            let random = self.random();
            input = match exchange.step(&mut self.state, self.now, random, input) {
                TokenStep::Done(result) => return result,
                TokenStep::Send(request) => self.send(request, &mut body),
                TokenStep::ReadSmall { max } => small(&body, max),
                TokenStep::Wait(wait) => self.wait(wait),
            };
        }
    }

    fn send(&mut self, request: Outbound, body: &mut String) -> Input {
        let said = (self.script)(&request);
        self.sent.push(request);
        match said {
            Said::Fault(fault) => Input::Fault(fault),
            Said::Http(status, headers, text) => {
                *body = text;
                let mut response = Response::new(());
                *response.status_mut() = status.try_into().unwrap();
                for (name, value) in headers {
                    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                    response.headers_mut().append(HeaderName::from_static(name), value);
                }
                Input::Head(response.into_parts().0)
            }
        }
    }

    fn wait(&mut self, wait: Duration) -> Input {
        self.waits.push(wait);
        self.pass(wait);
        Input::Waited
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { wall: self.now.wall.plus(time), mono: self.now.mono.plus(time) };
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 16
    }

    /// `GET https://host/path?query` of everything sent.
    fn lines(&self) -> Vec<String> {
        self.sent.iter().map(|request| format!("{} {}", request.method, request.url)).collect()
    }

    fn tokens_asked(&self) -> usize {
        self.sent.iter().filter(|request| is_token(request)).count()
    }

    /// Everything sent to hosts but those named carries nothing that is secret or made for another.
    fn assert_clean_except(&self, trusted: &[&str]) {
        for request in &self.sent {
            let origin = request.url.origin().ascii_serialization();
            if !trusted.contains(&origin.as_str()) {
                assert!(is_clean(request), "{origin} saw {:?}", request.headers);
            }
        }
    }
}

fn small(body: &str, max: usize) -> Input {
    Input::Small(if body.len() > max {
        Err(super::SmallFault::TooLarge)
    } else {
        Ok(Bytes::copy_from_slice(body.as_bytes()))
    })
}

fn is_token(request: &Outbound) -> bool {
    request.url.path().ends_with("/token")
}

fn is_clean(request: &Outbound) -> bool {
    let plain =
        [header::USER_AGENT, header::ACCEPT, header::ACCEPT_ENCODING, header::RANGE, header::IF_RANGE];
    request.headers.keys().all(|name| plain.contains(name))
        && request.url.username().is_empty()
        && request.url.password().is_none()
        && !request.url.as_str().contains(PASSWORD)
}

fn authorization(headers: &HeaderMap) -> &str {
    headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// Docker Hub without credentials.
pub(super) fn hub() -> Source {
    Source {
        name: "hub".into(),
        kind: crate::config::SourceKind::Registry,
        url: url("https://registry-1.docker.io"),
        alternates: vec![],
        names: vec!["docker.io".into()],
        hosts: vec![],
        images: vec![],
        mirror: true,
        auth: None,
        public: vec![],
        token_hosts: vec!["auth.docker.io".parse().unwrap()],
        blob_hosts: None,
        insecure: false,
        allow_private: false,
        on_gone: OnGone::Keep,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            stall: Duration::from_secs(15),
        },
        library: true,
    }
}

/// Docker Hub with an account.
fn account() -> Source {
    Source { auth: Some(Auth::Static { username: "robot".into(), password: Secret::new(PASSWORD) }), ..hub() }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// The request that a source's own credentials stand behind.
fn ask(source: Source, method: Verb, what: What) -> Ask {
    let identity = match &source.auth {
        Some(Auth::Static { username, password }) => {
            Identity::Basic { username: username.clone(), password: password.clone() }
        }
        _ => Identity::Anonymous,
    };
    Ask {
        source: Arc::new(source),
        repository: "library/nginx".parse().unwrap(),
        what,
        method,
        accept: None,
        range: None,
        identity,
        client: None,
    }
}

fn tag(source: Source, method: Verb) -> Ask {
    ask(source, method, What::Manifest("latest".parse().unwrap()))
}

fn blob(source: Source, method: Verb) -> Ask {
    ask(source, method, What::Blob(DIGEST.parse().unwrap()))
}

fn ranged(source: Source, first: u64, last: Option<u64>) -> Ask {
    Ask { range: Some((first, last)), ..blob(source, Verb::Get) }
}

const CHALLENGE: &str =
    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="*:*:*""#;
const MANIFEST: [(&str, &str); 2] =
    [("content-type", "application/vnd.oci.image.index.v1+json"), ("content-length", "3")];

/// A registry that wants the token `t<n>` and a token service that gives it out, for `answer` to say the rest.
fn bearer(mut answer: impl FnMut(&Outbound) -> Said) -> impl FnMut(&Outbound) -> Said {
    move |request| {
        if is_token(request) {
            return http(200, &[]).body(r#"{"token":"t1","expires_in":300}"#);
        }
        match authorization(&request.headers) {
            "Bearer t1" => answer(request),
            _ => http(401, &[("www-authenticate", CHALLENGE)]),
        }
    }
}
