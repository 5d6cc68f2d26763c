//! The accounts and tokens of these tests, each a canary.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::script::sha256;

use crate::common::{Bench, Setup};

pub(crate) const USER: &str = "mirror-account";
pub(crate) const PASSWORD: &str = "canary-upstream-password";
pub(crate) const CLIENT: &str = "canary-client-token";

/// The mirror's own account at the source.
pub(crate) fn auth() -> String {
    format!("{{ username: \"{USER}\", password: \"{PASSWORD}\" }}")
}

/// `user:password` in base64, as upstream sees it.
pub(crate) fn basic() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// A client's Basic credential for this mirror.
pub(crate) fn client_basic() -> String {
    STANDARD.encode(format!("anyone:{CLIENT}"))
}

/// One known client, by token; unknown ones are let in as well.
pub(crate) fn access() -> String {
    let digest = sha256(CLIENT.as_bytes());
    let hash = digest.trim_start_matches("sha256:");
    format!("{{ tokens: [{{ name: \"ci\", sha256: \"{hash}\" }}] }}")
}

/// Looks for all of them in log and metrics when the mirror goes.
pub(crate) fn watch(mut bench: Bench) -> Bench {
    for secret in [PASSWORD.to_owned(), basic(), CLIENT.to_owned(), client_basic()] {
        bench.mirror.canary(secret);
    }
    bench
}

/// A source with an account, and this machine as a known client.
pub(crate) fn with_account(setup: Setup) -> Setup {
    setup.source("auth", auth()).proxy("access", "{ networks: [\"127.0.0.0/8\"] }")
}
