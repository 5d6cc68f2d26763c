use std::fmt;
use std::sync::Arc;

use super::Upstream;
use super::reply::Reply;
use super::request::Request;

/// Which methods a rule or a count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    /// GET and HEAD.
    Read,
    Any,
}

impl Method {
    pub(crate) fn matches(self, method: &str) -> bool {
        match self {
            Method::Get => method == "GET",
            Method::Head => method == "HEAD",
            Method::Post => method == "POST",
            Method::Read => matches!(method, "GET" | "HEAD"),
            Method::Any => true,
        }
    }
}

/// Which paths a rule or a count means. A text that ends in `*` is a prefix, any other is the whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    Exact(String),
    Prefix(String),
    /// Any path that contains the text.
    Containing(String),
}

impl Paths {
    pub fn containing(part: impl Into<String>) -> Self {
        Self::Containing(part.into())
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Paths::Exact(whole) => path == whole,
            Paths::Prefix(start) => path.starts_with(start),
            Paths::Containing(part) => path.contains(part),
        }
    }
}

impl From<&str> for Paths {
    fn from(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Paths::Prefix(start.to_owned()),
            None => Paths::Exact(text.to_owned()),
        }
    }
}

impl From<String> for Paths {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Paths {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

type Predicate = Arc<dyn Fn(&Request) -> bool + Send + Sync>;
pub(crate) type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub(crate) struct Rule {
    method: Method,
    paths: Paths,
    predicate: Option<Predicate>,
    if_state: Option<String>,
    set_state: Option<String>,
    left: Option<usize>,
    handler: Handler,
}

impl Rule {
    pub(crate) fn matches(&self, request: &Request, state: &str) -> bool {
        self.left != Some(0)
            && self.method.matches(&request.method)
            && self.paths.matches(&request.path)
            && self.if_state.as_deref().is_none_or(|wanted| wanted == state)
            && self.predicate.as_ref().is_none_or(|holds| holds(request))
    }

    pub(crate) fn take(&mut self, state: &mut String) -> Handler {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        if let Some(next) = &self.set_state {
            next.clone_into(state);
        }
        self.handler.clone()
    }
}

/// A rule in the making.
#[must_use = "a rule counts only once its reply is given"]
pub struct RuleBuilder<'a> {
    upstream: &'a Upstream,
    method: Method,
    paths: Paths,
    predicate: Option<Predicate>,
    if_state: Option<String>,
    set_state: Option<String>,
    left: Option<usize>,
}

impl<'a> RuleBuilder<'a> {
    pub(crate) fn new(upstream: &'a Upstream, method: Method, paths: Paths) -> Self {
        Self { upstream, method, paths, predicate: None, if_state: None, set_state: None, left: None }
    }

    /// Only requests for which this holds.
    pub fn when(mut self, holds: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(holds));
        self
    }

    /// Only while the script is in this state. The first state is the empty text.
    pub fn if_state(mut self, state: &str) -> Self {
        self.if_state = Some(state.to_owned());
        self
    }

    /// The state of the script after this answer.
    pub fn set_state(mut self, state: &str) -> Self {
        self.set_state = Some(state.to_owned());
        self
    }

    /// Answers `n` requests; then older rules have their turn.
    pub fn times(mut self, n: usize) -> Self {
        self.left = Some(n);
        self
    }

    pub fn reply(self, reply: Reply) {
        self.reply_with(move |_| reply.clone());
    }

    pub fn reply_with(self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        let Self { upstream, method, paths, predicate, if_state, set_state, left } = self;
        let rule = Rule { method, paths, predicate, if_state, set_state, left, handler: Arc::new(handler) };
        upstream.lock().rules.push(rule);
    }
}

impl fmt::Debug for RuleBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleBuilder({:?} {:?})", self.method, self.paths)
    }
}
