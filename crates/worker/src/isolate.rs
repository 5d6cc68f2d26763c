//! What lives as long as the isolate: the configuration in force, and what is remembered between requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use entrepot_core::access::SigningKey;
use entrepot_core::config::{self, Config, SecretRef};
use entrepot_core::time::{Mono, Now, Wall};
use entrepot_core::upstream::UpstreamState;
use sha2::{Digest as _, Sha256};
use worker::Env;

use crate::limits::Limits;
use crate::notes::Notes;

/// The variable that holds the configuration.
const CONFIG: &str = "ENTREPOT_CONFIG";
/// The secret that holds the key which signs tokens: 64 hexadecimal digits.
const KEY: &str = "ENTREPOT_KEY";

thread_local! {
    static ISOLATE: RefCell<Option<Rc<Isolate>>> = const { RefCell::new(None) };
}

/// See the module.
pub(crate) struct Isolate {
    pub(crate) config: Arc<Config>,
    /// The beginning of the SHA-256 of the configuration's text, in hexadecimal: answers and log lines carry it.
    pub(crate) stamp: String,
    pub(crate) key: SigningKey,
    /// What only we know of the keys in the cache in front.
    pub(crate) front: String,
    pub(crate) limits: Limits,
    pub(crate) upstreams: RefCell<UpstreamState>,
    pub(crate) notes: RefCell<Notes>,
    /// When the memory of refusals was last read, and what it said.
    pub(crate) recalled: Cell<Wall>,
    pub(crate) refusals: RefCell<String>,
    /// When an error was last kept.
    pub(crate) error_kept: Cell<Wall>,
}

/// The isolate's one [`Isolate`]; the first request makes it.
///
/// Errors: all that is wrong with what was deployed, for the log. They quote no secret.
pub(crate) fn enter(env: &Env) -> Result<Rc<Isolate>, String> {
    if let Some(isolate) = ISOLATE.with_borrow(Clone::clone) {
        return Ok(isolate);
    }
    let isolate = Rc::new(make(env)?);
    ISOLATE.set(Some(isolate.clone()));
    Ok(isolate)
}

/// Both clocks are one here: the platform's, which stands still while nothing is waited for.
pub(crate) fn now() -> Now {
    let millis = js_sys::Date::now() as u64;
    Now { wall: Wall(millis), mono: Mono(millis) }
}

fn make(env: &Env) -> Result<Isolate, String> {
    let text = env.var(CONFIG).map_err(|_| format!("the variable {CONFIG} is not set"))?.to_string();
    let mut secrets = |reference: &SecretRef| match reference {
        SecretRef::Env(name) => secret(env, name).ok_or_else(|| "there is no such secret".to_owned()),
        SecretRef::File(_) => Err("a Worker has no files".to_owned()),
    };
    let config =
        config::edge::parse(&text, CONFIG, &mut secrets).map_err(|problems| problems.to_string())?.config;
    let key = secret(env, KEY).and_then(|text| key(&text)).ok_or_else(|| {
        format!("the secret {KEY} must be 64 hexadecimal digits: `openssl rand -hex 32` makes them")
    })?;
    let stamp = hex(&Sha256::digest(text.as_bytes()))[..12].to_owned();
    Ok(Isolate {
        config: Arc::new(config),
        stamp,
        key: SigningKey::new(key),
        front: hex(&Sha256::new().chain_update(b"front").chain_update(key).finalize())[..32].to_owned(),
        limits: Limits::of(env)?,
        upstreams: RefCell::default(),
        notes: RefCell::default(),
        recalled: Cell::default(),
        refusals: RefCell::default(),
        error_kept: Cell::default(),
    })
}

fn secret(env: &Env, name: &str) -> Option<String> {
    env.secret(name).ok().map(|secret| secret.to_string())
}

fn key(text: &str) -> Option<[u8; 32]> {
    let text = text.trim().as_bytes();
    let mut key = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(key)
}

/// Lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
