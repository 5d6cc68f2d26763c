//! Metrics, where a host has no address of the operator's to tell them at.

use std::net::IpAddr;

use http::Method;
use http::request::Parts;

use super::{client_address, framing};
use crate::access::{self, Client, SigningKey};
use crate::config::Config;
use crate::time::Now;

/// A known client that asks for the metrics.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub client: Client,
    /// HEAD.
    pub head_only: bool,
}

/// Whether a known client asks for `/metrics`: with a token, from a known network, or by a secret in the address. `None` for
/// anything else and anyone else: whoever is not told is answered by [`super::admit`] as for any path that does not exist.
pub fn watcher(config: &Config, head: &Parts, peer: IpAddr, key: &SigningKey, now: Now) -> Option<Watcher> {
    let head_only = head.method == Method::HEAD;
    let path = head.uri.path();
    let before = path.strip_suffix("/metrics")?;
    if !head_only && head.method != Method::GET {
        return None;
    }
    let host = framing::check(head).ok()?;
    let entrance = access::entrance(config, &host, path, before.strip_prefix('/')).ok()?;
    if entrance.root.is_some() {
        return None;
    }
    let address = client_address(config, &head.headers, peer);
    let secret = entrance.client.as_ref();
    let authorized = access::identify(config, &head.headers, address, secret, key, now.wall).ok()?;
    authorized.client.is_known().then_some(Watcher { client: authorized.client, head_only })
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::super::tests::head;
    use super::*;
    use crate::config::ClientToken;
    use crate::resolve::sample::{self, TOKEN};

    const PATH: &str = "p4th-canary-77aa01c2e9";
    const HOST: &str = "h0st-canary-5d1f0c9a7b";

    fn config() -> Config {
        let mut config = sample::config_with_token();
        let secret = |name: &str, text: &str| ClientToken {
            name: name.into(),
            sha256: sha2::Sha256::digest(text).into(),
            forwards: false,
        };
        config.access.networks = vec!["198.51.100.0/24".parse().unwrap()];
        config.access.secret_paths = vec![secret("builder", PATH)];
        config.access.secret_hosts = vec![secret("laptop", HOST)];
        config
    }

    /// The name of the client that is told.
    fn told(method: &str, path: &str, headers: &[(&str, &str)], peer: &str) -> Option<String> {
        let head = head(method, path, headers);
        let key = SigningKey::new([7; 32]);
        let watcher = watcher(&config(), &head, peer.parse().unwrap(), &key, Now::default())?;
        assert_eq!(watcher.head_only, method == "HEAD");
        watcher.client.name().map(ToString::to_string)
    }

    fn basic(password: &str) -> String {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("any:{password}"));
        format!("Basic {encoded}")
    }

    #[test]
    fn known_clients_are_told_the_metrics() {
        let stranger = "192.0.2.1";
        let token = basic(TOKEN);
        assert_eq!(told("GET", "/metrics", &[("authorization", &token)], stranger).unwrap(), "ci");
        assert_eq!(told("HEAD", "/metrics", &[("authorization", &token)], stranger).unwrap(), "ci");
        assert_eq!(told("GET", &format!("/{PATH}/metrics"), &[], stranger).unwrap(), "builder");
        let label = format!("{HOST}.mirror.example.com");
        assert_eq!(told("GET", "/metrics", &[("host", &label)], stranger).unwrap(), "laptop");
        assert_eq!(told("GET", "/metrics", &[], "198.51.100.9").unwrap(), "network");
    }

    #[test]
    fn nobody_else_is_and_nothing_else_is_told() {
        let stranger = "192.0.2.1";
        let token = basic(TOKEN);
        let wrong = basic("wrong");
        assert_eq!(told("GET", "/metrics", &[], stranger), None);
        assert_eq!(told("GET", "/metrics", &[("authorization", &wrong)], stranger), None);
        assert_eq!(told("GET", "/metrics", &[("authorization", &wrong)], "198.51.100.9"), None);
        for path in ["//metrics", "/v2/metrics", "/other/metrics", "/metrics/", "/metricsx", "/"] {
            assert_eq!(told("GET", path, &[("authorization", &token)], stranger), None, "{path}");
        }
        assert_eq!(told("POST", "/metrics", &[("authorization", &token)], stranger), None);
        assert_eq!(told("GET", &format!("/{PATH}/x/metrics"), &[], stranger), None);
    }
}
