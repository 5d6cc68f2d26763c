//! A configuration for tests.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::config::{
    Access, Auth, Cache, ClientToken, Config, Edge, OnGone, RateLimit, Secret, Source, SourceKind, Timeouts,
};

pub(crate) const TOKEN: &str = "s3cret-of-ci";

/// Docker Hub (the default), ghcr, quay, k8s, and `private`, which has credentials and shows `open/*` to anyone.
pub(crate) fn config() -> Config {
    let mut hub = source("dockerhub", "https://registry-1.docker.io");
    hub.names = ["docker.io", "index.docker.io", "registry-1.docker.io"].map(str::to_owned).to_vec();
    hub.hosts = vec!["docker.example.com".into()];
    hub.library = true;
    let mut ghcr = source("ghcr", "https://ghcr.io");
    ghcr.names = vec!["ghcr.io".into()];
    ghcr.hosts = vec!["ghcr.example.com:8443".into()];
    let mut quay = source("quay", "https://quay.io");
    quay.names = vec!["quay.io".into()];
    let mut k8s = source("k8s", "https://registry.k8s.io");
    k8s.names = vec!["registry.k8s.io".into()];
    k8s.images = patterns(&["kube-*", "coredns/*"]);
    let mut private = source("private", "https://private-registry.example.com");
    private.names = vec!["private-registry.example.com".into(), "myregistry.io:5000".into()];
    private.auth =
        Some(Auth::Static { username: "user".into(), password: Secret::new("canary-upstream-password") });
    private.public = patterns(&["open/*"]);
    Config {
        endpoint: "https://mirror.example.com".parse().unwrap(),
        listen: vec![],
        admin: None,
        tls: None,
        cache: Cache {
            dir: None,
            max_size: 1 << 30,
            manifest_ttl: Duration::from_secs(3600),
            blob_ttl: None,
            negative_ttl: Duration::from_secs(10),
            max_stale: Duration::from_secs(7 * 86_400),
            rules: vec![],
        },
        rate_limit: Some(RateLimit { count: 100, per: Duration::from_secs(60), burst: 50 }),
        access: Access {
            anonymous: true,
            networks: vec![],
            tokens: vec![],
            secret_hosts: vec![],
            secret_paths: vec![],
            secret_hosts_env: None,
            secret_paths_env: None,
        },
        trusted_proxies: vec![],
        sources: [hub, ghcr, quay, k8s, private].map(Arc::new).to_vec(),
        default_source: Some(0),
        edge: Edge {
            front_ttl: Duration::from_secs(86_400),
            error_ttl: Duration::from_secs(7 * 86_400),
            cron: "*/5 * * * *".into(),
            warm: vec![],
        },
    }
}

/// The same with one client token, [`TOKEN`], named `ci`.
pub(crate) fn config_with_token() -> Config {
    let mut config = config();
    let sha256 = Sha256::digest(TOKEN).into();
    config.access.tokens = vec![ClientToken { name: "ci".into(), sha256, forwards: false }];
    config
}

pub(crate) fn patterns(texts: &[&str]) -> Vec<crate::pattern::NamePattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn source(name: &str, url: &str) -> Source {
    Source {
        name: name.into(),
        kind: SourceKind::Registry,
        url: url.parse().unwrap(),
        alternates: vec![],
        names: vec![],
        hosts: vec![],
        images: vec![],
        mirror: true,
        auth: None,
        public: vec![],
        token_hosts: vec![],
        blob_hosts: None,
        insecure: false,
        allow_private: false,
        on_gone: OnGone::Keep,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            stall: Duration::from_secs(15),
        },
        library: false,
    }
}
