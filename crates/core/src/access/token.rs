//! Our token endpoint, in the two forms that clients use (wire behaviour of Docker, podman, containerd and BuildKit):
//! GET with Basic, and the OAuth 2 POST form.

use bytes::Bytes;
use serde::Serialize;

use super::bearer::{MAX_TOKEN_AGE, SigningKey, sign};
use super::client::{Authorized, Identity, by_password, wrong};
use crate::answer::{self, Answer};
use crate::config::Config;
use crate::failure::{Failure, Reason};
use crate::time::{Now, Wall};

/// Bytes of a POST form at most; a host stops reading there and answers as for an unreadable form.
pub const MAX_TOKEN_BODY: usize = 16 * 1024;

/// A request for a token, for [`token_answer`].
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// POST: the body must be read, at most [`MAX_TOKEN_BODY`] bytes of it.
    pub has_form: bool,
    /// HEAD: an answer without its body.
    pub head_only: bool,
    /// By the `Authorization` header, or the network.
    pub authorized: Authorized,
}

#[derive(Serialize)]
struct Issued<'a> {
    token: &'a str,
    access_token: &'a str,
    /// Seconds. containerd keeps a token for the whole session when this is absent or 0.
    expires_in: u64,
    issued_at: String,
}

/// Answers a request for a token. `service`, `scope`, `account`, `client_id` and `offline_token` are taken and do not
/// matter: a token says who asks, and what they may have is decided per request. `form` is the body of a POST, `None`
/// if it could not be read.
///
/// A password that is wrong is 401. A grant we do not know is 400, upon which containerd tries GET.
pub fn token_answer(
    config: &Config,
    request: &TokenRequest,
    form: Option<&Bytes>,
    key: &SigningKey,
    now: Now,
) -> Answer {
    let subject = if request.has_form { by_form(config, request, form) } else { by_header(config, request) };
    match subject {
        Ok(subject) => issue(config, &subject, key, now.wall, request.head_only),
        Err(failure) => answer::failure(
            &failure,
            &answer::FailureContext { head_only: request.head_only, ..answer::FailureContext::new(config) },
        ),
    }
}

/// Anyone gets a token for anyone, as at Docker Hub, where anyone may pull. A client known by its network gets one for
/// anyone as well: its network goes on to be known.
fn by_header(config: &Config, request: &TokenRequest) -> Result<String, Failure> {
    match &request.authorized.client.identity {
        Identity::Known { name } if config.access.tokens.iter().any(|token| *token.name == **name) => {
            Ok(name.to_string())
        }
        Identity::Known { .. } => Ok(String::new()),
        Identity::Anonymous if config.access.anonymous => Ok(String::new()),
        Identity::Anonymous => Err(wrong()),
    }
}

fn by_form(config: &Config, request: &TokenRequest, form: Option<&Bytes>) -> Result<String, Failure> {
    let form = form.filter(|form| form.len() <= MAX_TOKEN_BODY).ok_or_else(|| {
        Failure::new(
            Reason::RequestInvalid,
            format!("the form is unreadable or above {MAX_TOKEN_BODY} bytes"),
        )
    })?;
    let field = |name: &str| {
        let mut values =
            url::form_urlencoded::parse(form).filter(|(key, _)| key == name).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none())
    };
    if field("grant_type").as_deref() != Some("password") {
        return Err(Failure::new(
            Reason::RequestInvalid,
            "the only grant_type here is `password`; ask by GET with Basic authentication instead",
        ));
    }
    match field("password") {
        Some(password) => match by_password(config, &password) {
            Some(Identity::Known { name }) => Ok(name.to_string()),
            _ => Err(wrong()),
        },
        None => by_header(config, request),
    }
}

fn issue(config: &Config, subject: &str, key: &SigningKey, now: Wall, head_only: bool) -> Answer {
    let token = sign(key, config.endpoint.as_str(), subject, now);
    let issued = Issued {
        token: &token,
        access_token: &token,
        expires_in: MAX_TOKEN_AGE.as_secs(),
        issued_at: now.rfc3339(),
    };
    answer::token(&serde_json::to_vec(&issued).unwrap_or_default(), head_only)
}
