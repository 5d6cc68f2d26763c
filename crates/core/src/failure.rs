//! Why a pull could not be served: one closed list, whose labels are the log field and the metric label.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Mirror,
    Upstream,
}

/// A failed pull. `public` may be shown to clients; `internal` goes to the host's log, once, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: Reason,
    /// What to tell the client: names the object and the remedy, never a secret, a signed URL or a private address.
    pub public: String,
    /// What to tell the operator. Secrets are masked before they come here.
    pub internal: Option<String>,
    /// When trying again may help; becomes `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// Every reason there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    // The client's side.
    /// Upstream says 404 for a manifest or tag.
    ManifestUnknown,
    /// Upstream says 404 for a blob.
    BlobUnknown,
    /// No such repository, or a registry that is not configured.
    NameUnknown,
    NameInvalid,
    DigestInvalid,
    TagInvalid,
    RequestInvalid,
    RangeInvalid,
    PaginationInvalid,
    MethodUnsupported,
    /// We want to know who asks: 401 with our own challenge.
    Unauthorized,
    /// We know who asks, and the answer is no: 403.
    Denied,
    /// The client's own rate limit: 429.
    RateLimited,
    // Upstream's side.
    /// Upstream refused our credentials, or wants some and we have none.
    UpstreamUnauthorized,
    UpstreamDenied,
    /// Upstream's pull limit or abuse limit: passed on as 429.
    UpstreamRateLimited,
    /// Our own budget upstream is used up: not sent, 429.
    BudgetExhausted,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamTls,
    UpstreamNameUnresolved,
    /// The circuit breaker is open: not sent.
    UpstreamSuspended,
    /// A redirect or realm that leads where we do not go.
    UpstreamRedirectRefused,
    /// An answer that makes no sense: wrong status, type, framing or encoding.
    UpstreamBadAnswer,
    UpstreamManifestInvalid,
    DigestMismatch,
    SizeMismatch,
    TooLarge,
    UpstreamUnsupported,
    // Our side.
    /// The local disk cannot take or give the object.
    StoreFailed,
    /// No room for another connection.
    Overloaded,
    Internal,
}

impl Failure {
    pub fn new(reason: Reason, public: impl Into<String>) -> Failure {
        Failure { reason, public: public.into(), internal: None, retry_after: None }
    }

    #[must_use]
    pub fn internal(mut self, internal: impl Into<String>) -> Failure {
        self.internal = Some(internal.into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Failure {
        self.retry_after = Some(after);
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.label(), self.public)
    }
}

impl std::error::Error for Failure {}

impl Reason {
    /// Every reason, in order of declaration; tests and metrics iterate it.
    pub const ALL: &'static [Reason] = &[
        Reason::ManifestUnknown,
        Reason::BlobUnknown,
        Reason::NameUnknown,
        Reason::NameInvalid,
        Reason::DigestInvalid,
        Reason::TagInvalid,
        Reason::RequestInvalid,
        Reason::RangeInvalid,
        Reason::PaginationInvalid,
        Reason::MethodUnsupported,
        Reason::Unauthorized,
        Reason::Denied,
        Reason::RateLimited,
        Reason::UpstreamUnauthorized,
        Reason::UpstreamDenied,
        Reason::UpstreamRateLimited,
        Reason::BudgetExhausted,
        Reason::UpstreamServerError,
        Reason::UpstreamTimeout,
        Reason::UpstreamUnreachable,
        Reason::UpstreamTls,
        Reason::UpstreamNameUnresolved,
        Reason::UpstreamSuspended,
        Reason::UpstreamRedirectRefused,
        Reason::UpstreamBadAnswer,
        Reason::UpstreamManifestInvalid,
        Reason::DigestMismatch,
        Reason::SizeMismatch,
        Reason::TooLarge,
        Reason::UpstreamUnsupported,
        Reason::StoreFailed,
        Reason::Overloaded,
        Reason::Internal,
    ];

    /// The stable name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::ManifestUnknown => "manifest_unknown",
            Reason::BlobUnknown => "blob_unknown",
            Reason::NameUnknown => "name_unknown",
            Reason::NameInvalid => "name_invalid",
            Reason::DigestInvalid => "digest_invalid",
            Reason::TagInvalid => "tag_invalid",
            Reason::RequestInvalid => "request_invalid",
            Reason::RangeInvalid => "range_invalid",
            Reason::PaginationInvalid => "pagination_invalid",
            Reason::MethodUnsupported => "method_unsupported",
            Reason::Unauthorized => "unauthorized",
            Reason::Denied => "denied",
            Reason::RateLimited => "rate_limited",
            Reason::UpstreamUnauthorized => "upstream_unauthorized",
            Reason::UpstreamDenied => "upstream_denied",
            Reason::UpstreamRateLimited => "upstream_rate_limited",
            Reason::BudgetExhausted => "budget_exhausted",
            Reason::UpstreamServerError => "upstream_server_error",
            Reason::UpstreamTimeout => "upstream_timeout",
            Reason::UpstreamUnreachable => "upstream_unreachable",
            Reason::UpstreamTls => "upstream_tls",
            Reason::UpstreamNameUnresolved => "upstream_name_unresolved",
            Reason::UpstreamSuspended => "upstream_suspended",
            Reason::UpstreamRedirectRefused => "upstream_redirect_refused",
            Reason::UpstreamBadAnswer => "upstream_bad_answer",
            Reason::UpstreamManifestInvalid => "upstream_manifest_invalid",
            Reason::DigestMismatch => "digest_mismatch",
            Reason::SizeMismatch => "size_mismatch",
            Reason::TooLarge => "too_large",
            Reason::UpstreamUnsupported => "upstream_unsupported",
            Reason::StoreFailed => "store_failed",
            Reason::Overloaded => "overloaded",
            Reason::Internal => "internal",
        }
    }

    /// Whether upstream said, in so many words, that the object is not there. Nothing else may be remembered as absent.
    pub fn is_absence(self) -> bool {
        matches!(self, Reason::ManifestUnknown | Reason::BlobUnknown | Reason::NameUnknown)
    }

    /// Whether upstream refused access: public content may then be served stale, content that rests on credentials may not.
    pub fn is_refusal(self) -> bool {
        matches!(self, Reason::UpstreamUnauthorized | Reason::UpstreamDenied)
    }

    pub fn side(self) -> Side {
        match self {
            Reason::ManifestUnknown
            | Reason::BlobUnknown
            | Reason::NameUnknown
            | Reason::NameInvalid
            | Reason::DigestInvalid
            | Reason::TagInvalid
            | Reason::RequestInvalid
            | Reason::RangeInvalid
            | Reason::PaginationInvalid
            | Reason::MethodUnsupported
            | Reason::Unauthorized
            | Reason::Denied
            | Reason::RateLimited => Side::Client,
            Reason::UpstreamUnauthorized
            | Reason::UpstreamDenied
            | Reason::UpstreamRateLimited
            | Reason::BudgetExhausted
            | Reason::UpstreamServerError
            | Reason::UpstreamTimeout
            | Reason::UpstreamUnreachable
            | Reason::UpstreamTls
            | Reason::UpstreamNameUnresolved
            | Reason::UpstreamSuspended
            | Reason::UpstreamRedirectRefused
            | Reason::UpstreamBadAnswer
            | Reason::UpstreamManifestInvalid
            | Reason::DigestMismatch
            | Reason::SizeMismatch
            | Reason::TooLarge
            | Reason::UpstreamUnsupported => Side::Upstream,
            Reason::StoreFailed | Reason::Overloaded | Reason::Internal => Side::Mirror,
        }
    }
}
