use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Upstream;
use super::reply::Reply;
use super::request::Request;
use super::rule::Method;

/// Tokens that one scripted host issues and another demands. Clones share what was issued.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    issued: BTreeMap<String, (String, Instant)>,
    counts: BTreeMap<String, usize>,
    expires_in: Option<i64>,
    lifetime: Option<Duration>,
    password: Option<String>,
    field: Option<String>,
    delay: Duration,
}

impl Tokens {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the answer says in `expires_in`; by default it says nothing.
    pub fn expires_in(self, seconds: i64) -> Self {
        self.lock().expires_in = Some(seconds);
        self
    }

    /// How long a token is really accepted; by default for ever.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.lock().lifetime = Some(lifetime);
        self
    }

    /// Demands `Authorization: Basic <value>` (already encoded) at the token endpoint.
    pub fn basic(self, encoded: &str) -> Self {
        self.lock().password = Some(encoded.to_owned());
        self
    }

    /// The field of the answer that holds the token; by default `token`.
    pub fn field(self, name: &str) -> Self {
        self.lock().field = Some(name.to_owned());
        self
    }

    /// Waits so long before each answer.
    pub fn delay(self, delay: Duration) -> Self {
        self.lock().delay = delay;
        self
    }

    /// How many tokens were issued for this scope.
    pub fn issued(&self, scope: &str) -> usize {
        self.lock().counts.get(scope).copied().unwrap_or(0)
    }

    /// How many tokens were issued in all.
    pub fn issued_in_all(&self) -> usize {
        self.lock().counts.values().sum()
    }

    /// Accepts none of the tokens issued so far any more.
    pub fn revoke_all(&self) {
        self.lock().issued.clear();
    }

    fn issue(&self, request: &Request) -> Reply {
        let mut inner = self.lock();
        let wanted = inner.password.as_ref().map(|password| format!("Basic {password}"));
        if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
            return Reply::oci_error(401, "UNAUTHORIZED");
        }
        let mut scopes = if request.method == "POST" {
            request.form_params("scope")
        } else {
            request.query_params("scope")
        };
        scopes.sort();
        let scope = scopes.join(" ");
        let count = inner.counts.entry(scope.clone()).or_default();
        *count += 1;
        let token = format!(
            "tok{}.{}",
            *count,
            super::body::hex_digest("", scope.as_bytes()).trim_start_matches(':')
        );
        inner.issued.insert(token.clone(), (scope, Instant::now()));
        let mut answer = json!({});
        answer[inner.field.as_deref().unwrap_or("token")] = json!(token);
        if let Some(seconds) = inner.expires_in {
            answer["expires_in"] = json!(seconds);
        }
        Reply::json(200, &answer).delay(inner.delay)
    }

    fn accepts(&self, request: &Request, scope: &str) -> bool {
        let inner = self.lock();
        let Some(token) = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "))
        else {
            return false;
        };
        inner.issued.get(token).is_some_and(|(granted, at)| {
            inner.lifetime.is_none_or(|lifetime| at.elapsed() < lifetime)
                && (scope.is_empty() || granted.split(' ').any(|one| one == scope))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Upstream {
    /// A token endpoint, for GET and POST.
    pub fn serve_tokens(&self, path: &str, tokens: &Tokens) {
        let tokens = tokens.clone();
        self.on(Method::Any, path).reply_with(move |request| tokens.issue(request));
    }

    /// Demands a token for everything under `/v2/`, with the scope `repository:<repository>:pull`.
    pub fn require_tokens(&self, tokens: &Tokens, realm: &str, service: &str) {
        let (tokens, realm, service) = (tokens.clone(), realm.to_owned(), service.to_owned());
        self.guard(move |request| {
            if !request.path.starts_with("/v2/") {
                return None;
            }
            let scope = request.repository().map_or(String::new(), |name| format!("repository:{name}:pull"));
            (!tokens.accepts(request, &scope)).then(|| Reply::challenge(&realm, &service, &scope))
        });
    }

    /// Demands `Authorization: Basic <encoded>` for everything under `/v2/`.
    pub fn require_basic(&self, encoded: &str) {
        let wanted = format!("Basic {encoded}");
        self.guard(move |request| {
            let good = !request.path.starts_with("/v2/") || request.header("authorization") == Some(&wanted);
            (!good).then(|| {
                Reply::oci_error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=\"scripted\"")
            })
        });
    }
}
