//! Where a conversation goes next, and what it says there.

use entrepot_oci::media;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::super::budget::Departure;
use super::super::state::{Scheme, Standing};
use super::super::{
    Fault, Identity, Origin, Outbound, Step, TokenAsk, TokenKey, Trust, USER_AGENT, Verb, What, origin, token,
};
use super::{Again, Env, Exchange, Hop, Phase, Presented};
use crate::config::{Secret, Source, SourceKind};
use crate::failure::Reason;
use crate::forward::{About, ENTREPOT_CLIENT, told};
use crate::time::Wall;

impl Exchange {
    /// Goes to the registry (or an alternate) from the start.
    pub(super) fn approach(&mut self, env: &mut Env<'_>) -> Step {
        let registry = self.registry().clone();
        let url = self.url(&registry);
        self.hop = Hop {
            url,
            hops: 0,
            left: false,
            presented: Presented::Nothing,
            challenges: 0,
            departure: Departure::default(),
            sent: env.now.mono,
        };
        let standing = self.standing();
        if self.is_pull()
            && let Some(wait) = env.state.exhausted(&self.ask.source, standing, env.now.mono)
        {
            let failure = self.used_up(Reason::BudgetExhausted).retry_after(wait);
            return self.unavailable(env, failure, Again::Elsewhere);
        }
        let origin = Origin::of(&registry);
        if let Err(refused) = env.state.check(&origin, env.now.mono) {
            return self.refused(env, refused);
        }
        match env.state.scheme(&origin, standing) {
            // A mirror of ours takes Basic everywhere, and serves the public unasked: it would not ask who we are.
            _ if self.is_home() && self.credentials().is_some() => self.authenticate(env, Scheme::Basic),
            Some(scheme) => self.authenticate(env, scheme),
            None => self.send(env),
        }
    }

    pub(super) fn authenticate(&mut self, env: &mut Env<'_>, scheme: Scheme) -> Step {
        let (realm, service) = match scheme {
            Scheme::Basic => {
                self.hop.presented = Presented::Basic;
                return self.send(env);
            }
            Scheme::Bearer { realm, service } => (realm, service),
        };
        let credentials = self.credentials().map(|(name, password)| (name.to_owned(), password.clone()));
        let key = TokenKey {
            source: self.ask.source.name.clone(),
            identity: credentials.as_ref().map(|(name, _)| name.clone()),
            realm: realm.to_string(),
            service,
            // Never what upstream suggests: a token that can do more is a better thing to steal.
            scope: format!("repository:{}:pull", self.ask.repository),
        };
        if let Some(token) = env.state.token(&key, env.now.mono) {
            self.hop.presented = Presented::Bearer { key, value: token.value, fresh: false };
            return self.send(env);
        }
        self.phase = Phase::Token(key.clone());
        Step::Token(TokenAsk { key, source: self.ask.source.clone(), realm, credentials })
    }

    pub(super) fn send(&mut self, env: &mut Env<'_>) -> Step {
        let url = self.hop.url.clone();
        if origin::is_private_literal(&self.ask.source, &url) {
            let failure = self.scene().fault(Fault::PrivateAddress, !self.hop.left);
            return self.unavailable(env, failure, Again::Nowhere);
        }
        let origin = Origin::of(&url);
        if let Err(refused) = env.state.origin(&origin, env.now.mono).admit(env.now.mono) {
            return self.refused(env, refused);
        }
        if !self.hop.left && self.trouble.place == 0 {
            let (source, standing) = (&self.ask.source, self.standing());
            self.hop.departure = env.state.depart(source, standing, self.is_pull());
        }
        self.hop.sent = env.now.mono;
        let source = &self.ask.source;
        let method = if self.body.probe { http::Method::GET } else { self.ask.method.method() };
        let mut headers = self.headers(&origin);
        if let Some(told) = self.told(&method, &url, env.now.wall) {
            headers.insert(ENTREPOT_CLIENT, told);
        }
        self.phase = Phase::Sent;
        Step::Send(Outbound {
            headers,
            body: None,
            trust: Trust {
                insecure: source.insecure && origin::is_declared(source, &url),
                allow_private: source.allow_private,
            },
            apart: self.is_blob() && method == http::Method::GET && (self.hop.left || self.body.further),
            connect: source.timeouts.connect,
            first_byte: source.timeouts.first_byte,
            stall: source.timeouts.stall,
            method,
            url,
        })
    }

    pub(super) fn headers(&self, origin: &Origin) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let accept = self.ask.accept.clone().or_else(|| default_accept(&self.ask.what));
        if let Some(accept) = accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
            headers.insert(header::ACCEPT, accept);
        }
        if let Some((first, last)) = self.range() {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            if let Ok(range) = HeaderValue::try_from(format!("bytes={first}-{last}")) {
                headers.insert(header::RANGE, range);
            }
            match &self.body.validator {
                // A validator means nothing to any but its author.
                Some((author, validator)) if self.body.resumed && author == origin => {
                    headers.insert(header::IF_RANGE, validator.clone());
                }
                _ => {}
            }
        }
        match (&self.hop.presented, self.credentials()) {
            (_, _) if self.hop.left => {}
            (Presented::Basic, Some((username, password))) => {
                headers.insert(header::AUTHORIZATION, token::basic(username, password));
            }
            (Presented::Bearer { value, .. }, _) => {
                headers.insert(header::AUTHORIZATION, token::bearer(value));
            }
            (Presented::Basic | Presented::Nothing, _) => {}
        }
        headers
    }

    pub(super) fn range(&self) -> Option<(u64, Option<u64>)> {
        if self.body.probe {
            return Some((0, Some(0)));
        }
        if !self.is_blob() || self.ask.method == Verb::Head {
            return None;
        }
        if let Some(until) = self.body.until {
            return Some((self.body.from, Some(until.saturating_sub(1))));
        }
        let last = if self.body.whole { None } else { self.ask.range.and_then(|(_, last)| last) };
        let asked = self.ask.range.is_some() && !self.body.whole;
        (asked || self.body.from > 0).then_some((self.body.from, last))
    }

    /// `<origin>/v2/<repository>/…` (distribution-spec, "Endpoints").
    pub(super) fn url(&self, registry: &Url) -> Url {
        let (tail, query) = match &self.ask.what {
            What::Manifest(reference) => (format!("manifests/{reference}"), ""),
            What::Blob(digest) => (format!("blobs/{digest}"), ""),
            What::Tags(query) => ("tags/list".to_owned(), query.as_str()),
            What::Referrers(digest, query) => (format!("referrers/{digest}"), query.as_str()),
        };
        let mut url = plain(registry);
        url.set_path(&format!("/v2/{}/{tail}", self.ask.repository));
        url.set_query((!query.is_empty()).then_some(query));
        if let Some(ns) = self.ns() {
            // A link of home's has one already.
            let others: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(key, _)| key != "ns")
                .map(|(key, value)| (key.into(), value.into()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(others).append_pair("ns", ns);
        }
        url
    }

    /// Whether a mirror of ours is asked now, and not a registry in its stead.
    fn is_home(&self) -> bool {
        self.ask.source.kind == SourceKind::Entrepot && self.trouble.place == 0
    }

    /// The registry that a mirror of ours is asked for.
    fn ns(&self) -> Option<&str> {
        self.ask.source.names.first().filter(|_| self.is_home()).map(String::as_str)
    }

    /// For whom we ask, said to a mirror of ours itself and to nothing that it names.
    fn told(&self, method: &http::Method, url: &Url, now: Wall) -> Option<HeaderValue> {
        let (_, password) = self.credentials().filter(|_| self.is_home() && self.hop.hops == 0)?;
        let key = Sha256::digest(password.expose()).into();
        let about = About { method, path: url.path(), ns: self.ns().unwrap_or_default() };
        told(&key, &about, self.ask.client?, now)
    }

    pub(super) fn is_blob(&self) -> bool {
        matches!(self.ask.what, What::Blob(_))
    }

    /// What the registry counts: a GET of a manifest (Docker Hub, "pulls"); HEAD is free.
    pub(super) fn is_pull(&self) -> bool {
        matches!(self.ask.what, What::Manifest(_)) && self.ask.method == Verb::Get && self.trouble.place == 0
    }

    /// What may be presented to the registry asked now: only its declared origin sees credentials, and plain http never
    /// does unless the source says so.
    pub(super) fn credentials(&self) -> Option<(&str, &Secret)> {
        let source = &self.ask.source;
        let registry = self.registry();
        let safe = registry.scheme() == "https" || source.insecure;
        match &self.ask.identity {
            Identity::Basic { username, password } if safe && origin::same(registry, &source.url) => {
                Some((username, password))
            }
            _ => None,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        if self.credentials().is_some() { Standing::Credentialed } else { Standing::Anonymous }
    }

    pub(super) fn registry(&self) -> &Url {
        registry(&self.ask.source, self.trouble.place)
    }

    pub(super) fn upstream(&self) -> Url {
        plain(self.registry())
    }
}

fn registry(source: &Source, place: usize) -> &Url {
    place.checked_sub(1).and_then(|index| source.alternates.get(index)).unwrap_or(&source.url)
}

/// Scheme, host and port.
fn plain(url: &Url) -> Url {
    url.join("/")
        .map(|mut url| {
            // Neither can fail: an http URL has a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url
        })
        .unwrap_or_else(|_| url.clone())
}

fn default_accept(what: &What) -> Option<String> {
    match what {
        What::Manifest(_) => Some(media::MANIFESTS.join(", ")),
        What::Referrers(..) => Some(media::OCI_INDEX.to_owned()),
        What::Tags(_) => Some(media::JSON.to_owned()),
        What::Blob(_) => None,
    }
}
