//! Our own bearer tokens: `base64url(payload).base64url(HMAC-SHA256)`. There is one algorithm and no header to name
//! another, so nothing in a token can choose how it is checked.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::time::Wall;

/// A bearer token lives this long, so a client that is struck off stays in no longer (T-AZ8).
pub const MAX_TOKEN_AGE: Duration = Duration::from_secs(300);

/// Two nodes that share a key may disagree on the time by this much.
const SKEW_SECONDS: u64 = 60;

/// Longer than any token we sign: a client's name is at most a configuration line.
const MAX_TOKEN: usize = 4096;

/// The secret that signs bearer tokens. Nodes behind one endpoint share it.
#[derive(Clone)]
pub struct SigningKey(Zeroizing<[u8; 32]>);

impl SigningKey {
    pub fn new(bytes: [u8; 32]) -> SigningKey {
        SigningKey(Zeroizing::new(bytes))
    }

    fn mac(&self, payload: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("any length of key");
        mac.update(payload);
        mac
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// The endpoint that issued it; a token of another deployment is worthless here.
    aud: String,
    /// The client token's name; empty for anyone.
    sub: String,
    /// Seconds since the epoch.
    exp: u64,
    iat: u64,
}

/// A token for `subject` (empty: anyone) at `audience`, valid for [`MAX_TOKEN_AGE`] from `now`.
pub fn sign(key: &SigningKey, audience: &str, subject: &str, now: Wall) -> String {
    let iat = now.0 / 1000;
    let payload = Payload {
        aud: audience.to_owned(),
        sub: subject.to_owned(),
        exp: iat + MAX_TOKEN_AGE.as_secs(),
        iat,
    };
    // A struct of strings and numbers always serialises; an empty payload would verify as nothing.
    let payload = serde_json::to_vec(&payload).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let mac = key.mac(payload.as_bytes()).finalize().into_bytes();
    format!("{payload}.{}", URL_SAFE_NO_PAD.encode(mac))
}

/// The subject of a token that is ours, whole, for this audience and not expired; `None` for every other cause, which
/// the client is not told.
pub(super) fn verify(key: &SigningKey, audience: &str, token: &str, now: Wall) -> Option<String> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let (payload, mac) = token.split_once('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    // The signature is checked, in constant time, before anything in the payload is looked at.
    key.mac(payload.as_bytes()).verify_slice(&mac).ok()?;
    let payload: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let now = now.0 / 1000;
    let lives = payload.exp > now
        && payload.iat <= now.saturating_add(SKEW_SECONDS)
        && payload.exp.saturating_sub(payload.iat) <= MAX_TOKEN_AGE.as_secs();
    (payload.aud == audience && lives).then_some(payload.sub)
}
