//! Failures of a conversation: what the client may read, and what the operator should.

use std::fmt::Display;

use http::{Method, StatusCode};
use url::Url;

use super::health::Refused;
use super::{Ask, Fault, What, origin};
use crate::config::Source;
use crate::failure::{Failure, Reason};

/// What was being done when something failed.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// The object, in the client's words.
    pub(super) object: String,
    /// Who is asked, in words.
    pub(super) who: String,
    pub(super) method: Method,
    /// Where the last request went, or would have gone.
    pub(super) url: &'a Url,
}

impl Scene<'_> {
    pub(super) fn fail(&self, reason: Reason, sentence: impl Display) -> Failure {
        let internal = format!("{} {}: {sentence}", self.method, origin::redacted(self.url));
        Failure::new(reason, format!("{}: {sentence}", self.object)).internal(internal)
    }

    /// `own`: the request went to the registry itself, and not to where it redirects.
    pub(super) fn fault(&self, fault: Fault, own: bool) -> Failure {
        let who = if own { self.who.clone() } else { format!("the host that {} redirects to", self.who) };
        let (reason, sentence) = match fault {
            Fault::Connect => {
                (Reason::UpstreamUnreachable, format!("{who} cannot be reached; try again later"))
            }
            Fault::Reset => {
                (Reason::UpstreamUnreachable, format!("{who} closed the connection; try again later"))
            }
            Fault::Dns => (Reason::UpstreamNameUnresolved, format!("the name of {who} cannot be resolved")),
            Fault::PrivateAddress if own => (
                Reason::UpstreamUnreachable,
                format!("{who} has no public address; the operator can set `allow_private` for this source"),
            ),
            Fault::PrivateAddress => {
                (Reason::UpstreamRedirectRefused, format!("{who} has no public address, and is not asked"))
            }
            Fault::Tls => (Reason::UpstreamTls, format!("{who} does not prove its identity by TLS")),
            Fault::Timeout => {
                (Reason::UpstreamTimeout, format!("{who} did not answer in time; try again later"))
            }
            Fault::Stalled => (Reason::UpstreamTimeout, format!("{who} stopped sending; try again later")),
            Fault::BadFraming => {
                (Reason::UpstreamBadAnswer, format!("{who} sent what is not an HTTP answer"))
            }
        };
        let mut failure = self.fail(reason, sentence);
        failure.internal = failure.internal.map(|text| format!("{text} ({})", fault.label()));
        failure
    }

    pub(super) fn server_error(&self, status: StatusCode) -> Failure {
        let reason = match status.as_u16() {
            408 | 504 => Reason::UpstreamTimeout,
            _ => Reason::UpstreamServerError,
        };
        self.fail(reason, format!("{} answered {}; try again later", self.who, status.as_u16()))
    }

    pub(super) fn refused(&self, refused: Refused) -> Failure {
        match refused {
            Refused::Suspended(wait) => self
                .fail(
                    Reason::UpstreamSuspended,
                    format!("{} has been failing, and is left alone for a while", self.who),
                )
                .retry_after(wait),
            Refused::Held(wait) => self
                .fail(
                    Reason::UpstreamRateLimited,
                    format!("{} asked for fewer requests; try again later", self.who),
                )
                .retry_after(wait),
        }
    }
}

/// The host of `url`, or the source's name where the host is an address, which is nobody's business.
pub(super) fn host(source: &Source, url: &Url) -> String {
    match url.host() {
        Some(url::Host::Domain(host)) => host.to_owned(),
        _ => source.name.to_string(),
    }
}

/// `manifest library/nginx:latest`, `blob library/nginx@sha256:…`
pub(super) fn object(ask: &Ask) -> String {
    let repository = &ask.repository;
    match &ask.what {
        What::Manifest(entrepot_oci::name::Reference::Tag(tag)) => format!("manifest {repository}:{tag}"),
        What::Manifest(reference) => format!("manifest {repository}@{reference}"),
        What::Blob(digest) => format!("blob {repository}@{digest}"),
        What::Tags(_) => format!("tags of {repository}"),
        What::Referrers(digest, _) => format!("referrers of {repository}@{digest}"),
    }
}
