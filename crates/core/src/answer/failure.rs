//! Failures as clients hear them: one table from reason to status and code, and the JSON of the distribution-spec.

use entrepot_oci::error::{self, ErrorCode};
use http::StatusCode;
use http::header;

use super::trace::{Trace, seconds_up, write_limit, write_namespace, write_trace};
use super::{Answer, NO_STORE};
use crate::access;
use crate::config::Config;
use crate::failure::{Failure, Reason};
use crate::limit;

/// What a failed request's answer depends on besides its failure.
#[derive(Clone, Debug)]
pub struct FailureContext<'a> {
    pub config: &'a Config,
    pub head_only: bool,
    /// The repository as the client spells it, for the scope of a challenge.
    pub scope: Option<&'a str>,
    /// The client showed a valid token, but one that names nobody.
    pub insufficient: bool,
    /// The `?ns=` that was used.
    pub ns: Option<&'a str>,
    pub allow: Allow,
    /// The request's framing cannot be trusted, or a body was not read: close the connection (HTTP/1 only; HTTP/2 has no
    /// such header).
    pub close: bool,
    pub trace: Option<Trace>,
    pub limit: Option<limit::Standing>,
}

/// The methods of the route, for 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    Pull,
    Token,
    /// Upload paths, which exist only to be refused.
    Nothing,
}

impl<'a> FailureContext<'a> {
    pub fn new(config: &'a Config) -> FailureContext<'a> {
        FailureContext {
            config,
            head_only: false,
            scope: None,
            insufficient: false,
            ns: None,
            allow: Allow::Pull,
            close: false,
            trace: None,
            limit: None,
        }
    }
}

/// The status and code of a reason. Only what upstream said is not there is 404, so that no outage looks like an absence
/// (T-UF1).
pub fn status_and_code(reason: Reason) -> (StatusCode, ErrorCode) {
    match reason {
        Reason::ManifestUnknown => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Reason::BlobUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        Reason::NameUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        Reason::NameInvalid => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        Reason::DigestInvalid => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        // The spec has no code for it, and its conformance suite asks for such a tag as one that is not there.
        Reason::TagInvalid => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Reason::RequestInvalid => (StatusCode::BAD_REQUEST, ErrorCode::Unknown),
        Reason::RangeInvalid => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid),
        Reason::PaginationInvalid => (StatusCode::BAD_REQUEST, ErrorCode::PaginationNumberInvalid),
        Reason::MethodUnsupported => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Reason::Unauthorized | Reason::UpstreamUnauthorized => {
            (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized)
        }
        Reason::Denied | Reason::UpstreamDenied => (StatusCode::FORBIDDEN, ErrorCode::Denied),
        Reason::RateLimited | Reason::UpstreamRateLimited | Reason::BudgetExhausted => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
        }
        Reason::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable),
        Reason::UpstreamServerError
        | Reason::UpstreamUnreachable
        | Reason::UpstreamTls
        | Reason::UpstreamNameUnresolved => (StatusCode::BAD_GATEWAY, ErrorCode::Unavailable),
        Reason::UpstreamRedirectRefused | Reason::UpstreamBadAnswer | Reason::TooLarge => {
            (StatusCode::BAD_GATEWAY, ErrorCode::Unknown)
        }
        Reason::UpstreamManifestInvalid => (StatusCode::BAD_GATEWAY, ErrorCode::ManifestInvalid),
        Reason::DigestMismatch => (StatusCode::BAD_GATEWAY, ErrorCode::DigestInvalid),
        Reason::SizeMismatch => (StatusCode::BAD_GATEWAY, ErrorCode::SizeInvalid),
        Reason::UpstreamUnsupported => (StatusCode::BAD_GATEWAY, ErrorCode::Unsupported),
        Reason::UpstreamSuspended | Reason::StoreFailed | Reason::Overloaded => {
            (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable)
        }
        Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    }
}

/// Answers a failure: always the spec's JSON, never a word of its internal half.
pub fn failure(failure: &Failure, context: &FailureContext<'_>) -> Answer {
    let (status, code) = status_and_code(failure.reason);
    let body = error::body(&[(code, &failure.public, None)]);
    let mut answer = Answer::new(status).json(body, context.head_only);
    answer.put(header::CACHE_CONTROL, NO_STORE);
    if let Some(seconds) = retry_after(failure, status) {
        answer.set(header::RETRY_AFTER, seconds.to_string());
    }
    if challenges(failure.reason, context.config) {
        let challenge = access::challenge(context.config, context.scope, context.insufficient);
        answer.set(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.set(header::ALLOW, context.allow.methods());
    }
    if context.close {
        answer.set(header::CONNECTION, "close");
    }
    if let Some(trace) = &context.trace {
        write_trace(&mut answer, trace);
    }
    if let Some(limit) = &context.limit {
        write_limit(&mut answer, limit);
    }
    write_namespace(&mut answer, context.ns);
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        answer.open_to_scripts();
    }
    answer
}

/// Our own 401 names our token endpoint. Upstream's does so only where logging in here could change anything.
fn challenges(reason: Reason, config: &Config) -> bool {
    match reason {
        Reason::Unauthorized => true,
        Reason::UpstreamUnauthorized => !config.access.tokens.is_empty(),
        _ => false,
    }
}

/// Whole seconds, rounded up, at least one. 429 and 503 always carry it; elsewhere only when there is something to say.
fn retry_after(failure: &Failure, status: StatusCode) -> Option<u64> {
    let told = failure.retry_after.map(|after| seconds_up(after).max(1));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(told.unwrap_or(60)),
        StatusCode::SERVICE_UNAVAILABLE => Some(told.unwrap_or(5)),
        _ => told,
    }
}

impl Allow {
    fn methods(self) -> &'static str {
        match self {
            Allow::Pull => "GET, HEAD, OPTIONS",
            Allow::Token => "GET, HEAD, POST",
            Allow::Nothing => "OPTIONS",
        }
    }
}
