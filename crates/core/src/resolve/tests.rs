use std::collections::HashMap;

use proptest::prelude::*;

use entrepot_oci::name::Tag;

use super::*;

fn ask(host: &str, root: Option<&str>, ns: Option<&str>, name: &str) -> Result<(String, String), Reason> {
    let config = sample::config();
    let name = RawName::parse(name).unwrap();
    resolve(&config, host, root, ns, &name)
        .map(|resolved| (resolved.source.name.to_string(), resolved.repository.to_string()))
        .map_err(|failure| failure.reason)
}

fn is(source: &str, repository: &str) -> Result<(String, String), Reason> {
    Ok((source.to_owned(), repository.to_owned()))
}

#[test]
fn every_spelling_finds_its_source() {
    let none = None;
    for (host, root, ns, name, expected) in [
        // Docker's registry-mirrors, and one-part names.
        ("", none, none, "library/busybox", is("dockerhub", "library/busybox")),
        ("", none, none, "busybox", is("dockerhub", "library/busybox")),
        ("", none, none, "grafana/grafana", is("dockerhub", "grafana/grafana")),
        // A registry's host in front.
        ("", none, none, "docker.io/busybox", is("dockerhub", "library/busybox")),
        ("", none, none, "index.docker.io/foo/bar", is("dockerhub", "foo/bar")),
        ("", none, none, "GHCR.io/foo/bar", is("ghcr", "foo/bar")),
        ("", none, none, "registry.k8s.io/pause", is("k8s", "pause")),
        ("", none, none, "myregistry.io:5000/app", is("private", "app")),
        // A source's name in front.
        ("", none, none, "ghcr/foo/bar", is("ghcr", "foo/bar")),
        ("", none, none, "dockerhub/busybox", is("dockerhub", "library/busybox")),
        // Before /v2.
        ("", Some("ghcr.io"), none, "foo/bar", is("ghcr", "foo/bar")),
        ("", Some("dockerhub"), none, "busybox", is("dockerhub", "library/busybox")),
        ("", Some("QUAY"), none, "quay/clair", is("quay", "quay/clair")),
        ("", Some("ghcr"), none, "ghcr.io/foo/bar", is("ghcr", "foo/bar")),
        // By Host name, with and without a port.
        ("docker.example.com", none, none, "busybox", is("dockerhub", "library/busybox")),
        ("docker.example.com:8080", none, none, "a/b", is("dockerhub", "a/b")),
        ("ghcr.example.com:8443", none, none, "a/b", is("ghcr", "a/b")),
        ("ghcr.example.com", none, none, "a/b", is("dockerhub", "a/b")),
        ("docker.example.com", none, none, "docker.io/busybox", is("dockerhub", "library/busybox")),
        ("docker.example.com", none, none, "quay/app", is("dockerhub", "quay/app")),
        // By `ns`, which overrides Host.
        ("", none, Some("docker.io"), "library/busybox", is("dockerhub", "library/busybox")),
        ("", none, Some("Ghcr.IO"), "foo/bar", is("ghcr", "foo/bar")),
        ("docker.example.com", none, Some("quay.io"), "a/b", is("quay", "a/b")),
        ("", none, Some("myregistry.io:5000"), "a", is("private", "a")),
        ("", Some("ghcr"), Some("ghcr.io"), "a/b", is("ghcr", "a/b")),
        // `ns`, and the registry in front as well.
        ("", none, Some("ghcr.io"), "ghcr.io/foo/bar", is("ghcr", "foo/bar")),
        ("", none, Some("docker.io"), "dockerhub/library/busybox", is("dockerhub", "library/busybox")),
        ("", none, Some("quay.io"), "quay/quay/clair", is("quay", "quay/clair")),
        // `ns`, and a repository whose first part is also a source's name.
        ("", none, Some("quay.io"), "quay/clair", is("quay", "quay/clair")),
        ("", none, Some("docker.io"), "ghcr/app/x", is("dockerhub", "ghcr/app/x")),
        // A dotted first part is a repository's once the source is known.
        ("", none, Some("ghcr.io"), "my.org/app", is("ghcr", "my.org/app")),
        // Patterns, in file order, before the default.
        ("", none, none, "coredns/coredns", is("k8s", "coredns/coredns")),
        ("", none, none, "kube-proxy", is("k8s", "kube-proxy")),
        // Errors.
        ("", none, none, "evil.com/a", Err(Reason::NameUnknown)),
        ("", none, none, "localhost/a", Err(Reason::NameUnknown)),
        ("", none, none, "localhost:5000/a", Err(Reason::NameUnknown)),
        ("", none, none, "myregistry.io/app", Err(Reason::NameUnknown)),
        ("", Some("evil"), none, "a/b", Err(Reason::NameUnknown)),
        ("", Some("ghcr.io/x"), none, "a/b", Err(Reason::NameUnknown)),
        ("", Some("quay"), Some("ghcr.io"), "a/b", Err(Reason::NameUnknown)),
        ("", none, Some("ghcr.io"), "quay.io/a/b", Err(Reason::NameUnknown)),
        ("docker.example.com", Some("ghcr"), none, "a/b", Err(Reason::NameUnknown)),
        ("docker.example.com", none, none, "ghcr.io/a/b", Err(Reason::NameUnknown)),
        ("", none, none, "Library/busybox", Err(Reason::NameInvalid)),
        ("", none, none, "ghcr.io/Foo/bar", Err(Reason::NameInvalid)),
        ("", none, none, "localhost:5000", Err(Reason::NameInvalid)),
    ] {
        assert_eq!(ask(host, root, ns, name), expected, "{host} {root:?} {ns:?} {name}");
    }
}

#[test]
fn t_ss3_an_ns_that_is_not_configured_is_unknown() {
    for ns in [
        "",
        "evil.com",
        "ghcr.io.",
        "ghcr.io.evil.com",
        "evil-ghcr.io",
        "ghcr.io:443",
        "user@ghcr.io",
        "ghcr.io@evil.com",
        "https://ghcr.io",
        "ghcr.io/",
        "ghcr.io/foo",
        " ghcr.io",
        "ghcr",
        "gһcr.io",
        "xn--gcr-tfd.io",
        "169.254.169.254",
        "[::1]",
        "localhost",
        "myregistry.io",
        "myregistry.io:50000",
        "*",
        "\r\nghcr.io",
    ] {
        assert_eq!(ask("", None, Some(ns), "a/b"), Err(Reason::NameUnknown), "{ns:?}");
        assert_eq!(ask("docker.example.com", None, Some(ns), "a/b"), Err(Reason::NameUnknown), "{ns:?}");
        assert!(named(&sample::config(), "", None, Some(ns)).is_err());
    }
}

#[test]
fn t_ss3_the_namespace_is_known_only_when_it_was_used() {
    let config = sample::config();
    let name = RawName::parse("a/b").unwrap();
    let used = resolve(&config, "", None, Some("QUAY.io"), &name).unwrap();
    assert!(used.ns_used());
    assert_eq!(used.ns.as_deref(), Some("quay.io"));
    assert!(!resolve(&config, "", Some("quay"), None, &name).unwrap().ns_used());
}

#[test]
fn t_op1_a_foreign_host_selects_nothing() {
    for host in
        ["ghcr.io", "registry-1.docker.io", "evil.com", "ghcr", "docker.example.com.", "xdocker.example.com"]
    {
        assert_eq!(ask(host, None, None, "a/b"), is("dockerhub", "a/b"), "{host}");
    }
}

#[test]
fn a_name_without_a_registry_needs_a_default() {
    let mut config = sample::config();
    config.default_source = None;
    let failure = resolve(&config, "", None, None, &RawName::parse("a/b").unwrap()).unwrap_err();
    assert_eq!(failure.reason, Reason::NameUnknown);
}

#[test]
fn what_the_client_wrote_is_kept() {
    let config = sample::config();
    let plain = resolve(&config, "", None, None, &RawName::parse("docker.io/busybox").unwrap()).unwrap();
    assert_eq!((plain.shown.as_str(), plain.path().as_str()), ("docker.io/busybox", "/v2/docker.io/busybox"));
    let rooted = resolve(&config, "", Some("ghcr"), None, &RawName::parse("a/b").unwrap()).unwrap();
    assert_eq!(rooted.path(), "/ghcr/v2/a/b");
}

/// A small generator, so that 10^5 cases are the same ones every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// T-CP1: whatever the spelling, the key is that of the upstream, repository and tag that were meant, and no two
/// meanings share a key. One source differs from another only by scheme, one only by port, one only by name.
#[test]
fn t_cp1_no_request_crosses_into_another_source_or_repository() {
    let mut config = sample::config();
    for (name, url, registry) in [
        ("plain", "http://ghcr.io", "plain.test"),
        ("port", "https://ghcr.io:8443", "ghcr.io:8443"),
        ("twin", "https://ghcr.io", "twin.test"),
    ] {
        let mut source = sample::source(name, url);
        source.names = vec![registry.to_owned()];
        config.sources.push(Arc::new(source));
    }
    let repositories = ["app", "app/x", "appx", "app-x/y", "library/app", "x/app", "tag/x", "a/b/c"];
    let tags = ["latest", "x", "1.0", "app"];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut meanings: HashMap<String, (String, String, String)> = HashMap::new();
    for _ in 0..100_000 {
        let index = random.below(config.sources.len());
        let source = Arc::clone(&config.sources[index]);
        let registry = random.below(source.names.len());
        let registry = source.names[registry].clone();
        let repository = random.pick(&repositories);
        let tag: Tag = random.pick(&tags).parse().unwrap();
        let (root, ns, name) = match random.below(5) {
            0 => (None, Some(registry.clone()), repository.to_owned()),
            1 => (Some(registry.clone()), None, repository.to_owned()),
            2 => (Some(source.name.to_string()), None, repository.to_owned()),
            3 => (None, None, format!("{registry}/{repository}")),
            _ => (None, None, format!("{}/{repository}", source.name)),
        };
        let name = RawName::parse(&name).unwrap();
        // A Host name that would select another source must not matter beside `ns`.
        let host = if ns.is_some() { "docker.example.com" } else { "mirror.example.com" };
        let resolved = resolve(&config, host, root.as_deref(), ns.as_deref(), &name).unwrap();
        let filled = if source.library && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        assert!(Arc::ptr_eq(&resolved.source, &source), "{root:?} {ns:?} {name}");
        assert_eq!(resolved.repository.as_str(), filled);
        let meaning = (source.name.to_string(), filled, tag.to_string());
        let before = meanings
            .insert(record_key(&resolved.source, &resolved.repository, "tag", tag.as_str()), meaning.clone());
        assert!(before.is_none_or(|before| before == meaning), "one key, two meanings");
    }
    // Eight sources; `app` and `library/app` are one repository at Docker Hub.
    assert_eq!(meanings.len(), (8 * 8 - 1) * 4);
}

#[test]
fn t_cp1_no_name_of_a_source_imitates_another_key() {
    let repository: Repository = "a".parse().unwrap();
    let key = |name: &str, kind: &str, rest: &str| {
        record_key(&sample::source(name, "https://ghcr.io"), &repository, kind, rest)
    };
    let keys = [
        key("x", "tag", "a|b"),
        key("x|a", "tag", "b"),
        key("x%7Ca", "tag", "b"),
        key("x", "absent", "a|b"),
        key("y", "tag", "a|b"),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

proptest! {
    #[test]
    fn nothing_panics_and_every_answer_is_a_configured_source(
        host in ".{0,40}",
        root in proptest::option::of("[a-z./:]{0,20}"),
        ns in proptest::option::of(".{0,20}"),
        name in "[a-zA-Z0-9.:_/-]{1,60}",
    ) {
        let config = sample::config();
        let Ok(name) = RawName::parse(&name) else { return Ok(()) };
        match resolve(&config, &host, root.as_deref(), ns.as_deref(), &name) {
            Ok(resolved) => {
                prop_assert!(config.sources.iter().any(|source| Arc::ptr_eq(source, &resolved.source)));
                if let Some(ns) = ns {
                    let ns = ns.to_lowercase();
                    prop_assert!(resolved.source.names.contains(&ns));
                }
            }
            Err(failure) => {
                prop_assert!(matches!(failure.reason, Reason::NameUnknown | Reason::NameInvalid));
                prop_assert!(failure.public.is_ascii());
            }
        }
    }
}
