//! Registries as the test scripts them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::upstream::{Fault, Outbound, SmallFault};
use entrepot_engine::ports::Http;
use entrepot_oci::Digest;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::clock::Clock;

/// What registries are asked for, in the order in which the test expects it; a request that nothing expects fails it.
pub(crate) struct Upstream {
    clock: Clock,
    expected: RefCell<Vec<Said>>,
    seen: RefCell<Vec<String>>,
    script: RefCell<Option<Script>>,
}

type Script = Box<dyn Fn(&Outbound) -> Said>;

/// A request that is expected once, and what is said to it: 200 and nothing, unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    method: Method,
    url: String,
    authorization: Option<String>,
    range: Option<String>,
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    delay: Duration,
    fault: Option<Fault>,
    cut: Option<usize>,
    pauses: Vec<(usize, Duration)>,
}

/// A GET; `path` is what follows `/v2/` at `up.example.com`, or a whole URL.
pub(crate) fn get(path: &str) -> Said {
    Said::new(Method::GET, path)
}

pub(crate) fn head(path: &str) -> Said {
    Said::new(Method::HEAD, path)
}

impl Said {
    fn new(method: Method, path: &str) -> Said {
        let url =
            if path.contains("://") { path.to_owned() } else { format!("https://up.example.com/v2/{path}") };
        Said {
            method,
            url,
            authorization: None,
            range: None,
            status: 200,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            fault: None,
            cut: None,
            pauses: Vec::new(),
        }
    }

    /// The request must carry this `Authorization`; otherwise it must carry none.
    pub(crate) fn with(mut self, authorization: &str) -> Said {
        self.authorization = Some(authorization.to_owned());
        self
    }

    /// The request must ask for this range; otherwise for none.
    pub(crate) fn wants(mut self, first: usize, last: Option<usize>) -> Said {
        let end = last.map(|last| last.to_string()).unwrap_or_default();
        self.range = Some(format!("bytes={first}-{end}"));
        self
    }

    /// As [`Said::wants`], and gets it. The body given so far is the whole object.
    pub(crate) fn range(self, first: usize, last: Option<usize>) -> Said {
        let size = self.body.len();
        let end = last.unwrap_or(size - 1);
        let part = self.body.slice(first..=end);
        self.wants(first, last)
            .status(206)
            .header(CONTENT_RANGE, &format!("bytes {first}-{end}/{size}"))
            .bytes(part)
    }

    pub(crate) fn status(mut self, status: u16) -> Said {
        self.status = status;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Said {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn without(mut self, name: HeaderName) -> Said {
        self.headers.remove(name);
        self
    }

    /// A manifest with its digest and type; to HEAD without its bytes.
    pub(crate) fn manifest(self, text: &str) -> Said {
        let digest = Digest::sha256(text.as_bytes()).to_string();
        let media_type = crate::samples::media_type(text);
        self.header(HeaderName::from_static("docker-content-digest"), &digest)
            .header(CONTENT_TYPE, media_type)
            .bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// A blob with a strong validator.
    pub(crate) fn blob(self, bytes: &[u8]) -> Said {
        self.header(ETAG, "\"v1\"").bytes(Bytes::copy_from_slice(bytes))
    }

    pub(crate) fn json(self, text: &str) -> Said {
        self.header(CONTENT_TYPE, "application/json").bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// A body with its length; to HEAD without its bytes.
    pub(crate) fn bytes(mut self, bytes: Bytes) -> Said {
        self.headers.insert(CONTENT_LENGTH, bytes.len().into());
        self.body = bytes;
        self
    }

    /// The head does not say how long the body is.
    pub(crate) fn unsized_body(mut self) -> Said {
        self.headers.remove(CONTENT_LENGTH);
        self
    }

    /// The head takes so long.
    pub(crate) fn after(mut self, seconds: f64) -> Said {
        self.delay = Duration::from_secs_f64(seconds);
        self
    }

    /// There is no answer.
    pub(crate) fn fails(mut self, fault: Fault) -> Said {
        self.fault = Some(fault);
        self
    }

    /// The connection breaks after so many bytes of the body.
    pub(crate) fn cut(mut self, bytes: usize) -> Said {
        self.cut = Some(bytes);
        self
    }

    /// After so many bytes the body pauses; pauses come in the order of their bytes.
    pub(crate) fn pause(mut self, bytes: usize, seconds: f64) -> Said {
        self.pauses.push((bytes, Duration::from_secs_f64(seconds)));
        self
    }

    fn matches(&self, request: &Outbound) -> bool {
        let text = |name| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.method == request.method
            && self.url == request.url.as_str()
            && self.authorization == text(AUTHORIZATION)
            && self.range == text(RANGE)
    }

    fn arriving(&self, clock: Clock) -> Arriving {
        let body = if self.method == Method::HEAD { Bytes::new() } else { self.body.clone() };
        let end = self.cut.unwrap_or(body.len()).min(body.len());
        let mut pieces = VecDeque::new();
        let (mut from, mut pause) = (0, Duration::ZERO);
        for (at, next) in self.pauses.iter().copied().filter(|(at, _)| *at <= end) {
            pieces.push_back((pause, Ok(body.slice(from..at))));
            (from, pause) = (at, next);
        }
        pieces.push_back((pause, Ok(body.slice(from..end))));
        if self.cut.is_some() {
            pieces.push_back((Duration::ZERO, Err(Fault::Reset)));
        }
        Arriving { pieces, clock }
    }
}

impl Upstream {
    pub(crate) fn new(clock: Clock) -> Upstream {
        Upstream { clock, expected: RefCell::default(), seen: RefCell::default(), script: RefCell::default() }
    }

    /// Answers every request as `script` says, instead of what is expected.
    pub(crate) fn follow(&self, script: impl Fn(&Outbound) -> Said + 'static) {
        *self.script.borrow_mut() = Some(Box::new(script));
    }

    pub(crate) fn expect(&self, said: Said) {
        self.expected.borrow_mut().push(said);
    }

    /// The requests so far: `GET https://…`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    /// How many requests so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    pub(crate) fn assert_done(&self) {
        let left = self.expected.borrow();
        assert!(left.is_empty(), "expected, but never asked: {left:#?}\nasked: {:#?}", self.seen.borrow());
    }
}

impl Http for Upstream {
    type Body = Arriving;

    async fn send(&self, request: Outbound) -> Result<(http::response::Parts, Arriving), Fault> {
        self.seen.borrow_mut().push(format!("{} {}", request.method, request.url));
        let scripted = self.script.borrow().as_ref().map(|script| script(&request));
        let said = scripted.unwrap_or_else(|| {
            let mut expected = self.expected.borrow_mut();
            let Some(index) = expected.iter().position(|said| said.matches(&request)) else {
                panic!(
                    "an unexpected request: {request:#?}\nexpected: {expected:#?}\nasked: {:#?}",
                    self.seen.borrow()
                );
            };
            expected.remove(index)
        });
        self.clock.sleep(said.delay.min(request.first_byte)).await;
        if said.delay > request.first_byte {
            return Err(Fault::Timeout);
        }
        if let Some(fault) = said.fault {
            return Err(fault);
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = said.status.try_into().unwrap();
        parts.headers.clone_from(&said.headers);
        Ok((parts, said.arriving(self.clock.clone())))
    }

    async fn read_small(&self, mut body: Arriving, max: usize) -> Result<Bytes, SmallFault> {
        let mut whole = Vec::new();
        while let Some(piece) = body.next(Duration::from_secs(15)).await {
            whole.extend_from_slice(&piece.map_err(|_| SmallFault::Broken)?);
            if whole.len() > max {
                return Err(SmallFault::TooLarge);
            }
        }
        Ok(whole.into())
    }
}

/// A body on its way in.
pub(crate) struct Arriving {
    pieces: VecDeque<(Duration, Result<Bytes, Fault>)>,
    clock: Clock,
}

impl Arriving {
    /// The next piece; a pause beyond `stall` ends the body.
    pub(crate) async fn next(&mut self, stall: Duration) -> Option<Result<Bytes, Fault>> {
        let (pause, piece) = self.pieces.pop_front()?;
        self.clock.sleep(pause.min(stall)).await;
        Some(if pause > stall { Err(Fault::Stalled) } else { piece })
    }
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("pieces", &self.pieces.len()).finish()
    }
}
