use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::pattern::HostPattern;

const SHORT: &str = r#"
proxy:
  endpoint: "https://docker-proxy.example.com"   # the public URL
  sources:
    - name: "dockerhub"
      type: "registry"
      url: "https://registry-1.docker.io"
      mirror: true                               # cache
    - name: "private"
      type: "registry"
      url: "https://private-registry.example.com"
      auth:
        username: "user"
        password: "pass"
"#;

fn no_secrets(reference: &SecretRef) -> Result<String, String> {
    Err(format!("no secrets here, not even {reference}"))
}

fn load(text: &str) -> Result<Loaded, Problems> {
    parse(text, "config.yml", &mut no_secrets)
}

fn good(text: &str) -> Config {
    match load(text) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

/// The problems of a text as `line key: message`.
fn bad(text: &str) -> Vec<String> {
    let Err(Problems(problems)) = load(text) else {
        panic!("no problem in:\n{text}")
    };
    assert!(!problems.is_empty());
    assert!(
        problems
            .iter()
            .all(|problem| !problem.remedy.is_empty() && !problem.message.is_empty())
    );
    problems
        .iter()
        .map(|problem| format!("{} {}: {}", problem.line, problem.key, problem.message))
        .collect()
}

/// One source with these lines in it, from line 5.
fn with_source(lines: &[&str]) -> String {
    let mut text = "proxy:\n  sources:\n    - name: one\n      url: https://one.example.com\n".to_owned();
    lines
        .iter()
        .for_each(|line| text.push_str(&format!("      {line}\n")));
    text
}

/// These lines below `proxy`, from line 2, and a source.
fn with_proxy(lines: &[&str]) -> String {
    let mut text = "proxy:\n".to_owned();
    lines
        .iter()
        .for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str("  sources: [{ name: one, url: \"https://one.example.com\" }]\n");
    text
}

fn expect_one(text: &str, line: u32, key: &str, message: &str) {
    let problems = bad(text);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{text}");
    assert!(
        problems[0].starts_with(&format!("{line} {key}: ")),
        "{problems:#?}\n{text}"
    );
    assert!(problems[0].contains(message), "{problems:#?}\n{text}");
}

#[test]
fn the_short_file_is_complete() {
    let config = good(SHORT);
    assert_eq!(config.listen, ["0.0.0.0:8080".parse::<SocketAddr>().unwrap()]);
    assert_eq!(config.endpoint.as_str(), "https://docker-proxy.example.com/");
    assert_eq!((config.admin, config.tls, config.rate_limit), (None, None, None));
    assert_eq!(config.default_source, Some(0));
    assert!(config.access.anonymous);
    assert_eq!(config.cache.max_size, 50 << 30);
    assert_eq!(config.cache.manifest_ttl, Duration::from_secs(3600));
    assert_eq!(config.cache.blob_ttl, None);
    assert_eq!(config.cache.negative_ttl, Duration::from_secs(10));
    assert_eq!(config.cache.max_stale, Duration::from_secs(7 * 86_400));

    let hub = &config.sources[0];
    assert_eq!(
        hub.names,
        ["docker.io", "index.docker.io", "registry-1.docker.io"]
    );
    assert_eq!(
        hub.hosts,
        [
            "dockerhub.docker-proxy.example.com",
            "docker.docker-proxy.example.com"
        ]
    );
    assert!(hub.library && hub.mirror && hub.auth.is_none());
    assert!(
        hub.token_hosts
            .iter()
            .any(|host| host.matches("auth.docker.io", 443))
    );
    assert_eq!(hub.timeouts.connect, Duration::from_secs(5));
    assert_eq!(hub.timeouts.first_byte, Duration::from_secs(10));
    assert_eq!(hub.timeouts.stall, Duration::from_secs(15));
    assert_eq!(hub.on_gone, OnGone::Keep);

    let private = &config.sources[1];
    assert_eq!(private.names, ["private-registry.example.com"]);
    assert_eq!(private.hosts, ["private.docker-proxy.example.com"]);
    assert!(!private.library && private.token_hosts.is_empty() && private.blob_hosts.is_none());
    let Some(Auth::Static { username, password }) = &private.auth else {
        panic!("{private:?}")
    };
    assert_eq!((username.as_str(), password.expose()), ("user", "pass"));
}

/// T-OP1: nothing is open that was not asked for.
#[test]
fn t_op1_without_a_configuration_only_this_machine_is_served() {
    let Loaded { config, warnings } = parse(DEFAULT, "default.yml", &mut no_secrets).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.listen, ["127.0.0.1:8080".parse::<SocketAddr>().unwrap()]);
    assert!(config.trusted_proxies.is_empty() && config.access.networks.is_empty());
    let names: Vec<_> = config
        .sources
        .iter()
        .flat_map(|source| source.names.clone())
        .collect();
    let wanted = [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "ghcr.io",
        "quay.io",
        "gcr.io",
        "registry.k8s.io",
        "mcr.microsoft.com",
        "public.ecr.aws",
        "docker.cloudsmith.io",
    ];
    assert_eq!(names, wanted);
    for source in &config.sources {
        assert!(
            !source.insecure && !source.allow_private && source.auth.is_none() && source.hosts.is_empty()
        );
    }
    assert_eq!(config.default_source, Some(0));
}

/// T-CR5: a source without `auth` has no identity, whatever else the file holds.
#[test]
fn t_cr5_only_the_source_with_an_entry_has_credentials() {
    let config = good(SHORT);
    let with: Vec<_> = config
        .sources
        .iter()
        .filter(|source| source.auth.is_some())
        .collect();
    assert_eq!(with.len(), 1);
    assert_eq!(&*with[0].name, "private");
}

#[test]
fn t_bi8_unknown_key() {
    expect_one(
        &with_source(&["mirorr: true"]),
        5,
        "proxy.sources[0].mirorr",
        "unknown",
    );
    expect_one(
        &with_proxy(&["cache:", "  max-size: 5GB"]),
        3,
        "proxy.cache.max-size",
        "unknown",
    );
    expect_one(
        "proxys: {}\nproxy: { sources: [{ name: a, url: \"https://a.example.com\" }] }",
        1,
        "proxys",
        "unknown",
    );
    let Err(Problems(problems)) = load(&with_source(&["mirorr: true"])) else {
        panic!()
    };
    assert_eq!(problems[0].remedy, "did you mean `mirror`? Otherwise remove it");
    assert_eq!((problems[0].line, problems[0].column), (5, 7));
    assert_eq!(
        problems[0].to_string(),
        "config.yml:5: proxy.sources[0].mirorr: this key is unknown — did you mean `mirror`? Otherwise remove it"
    );
}

#[test]
fn t_bi8_duplicates() {
    expect_one(
        &with_source(&["mirror: true", "mirror: true"]),
        6,
        "proxy.sources[0].mirror",
        "already in line 5",
    );
    let two = |second: &str| {
        format!("proxy:\n  sources:\n    - name: one\n      url: https://a.example.com\n{second}")
    };
    expect_one(
        &two("    - name: ONE\n      url: https://b.example.com\n"),
        5,
        "proxy.sources[1].name",
        "line 3",
    );
    expect_one(
        &two("    - name: two\n      url: https://A.example.com:443/\n"),
        6,
        "proxy.sources[1].url",
        "the source `one` in line 4 is this registry too",
    );
    good(&two(
        "    - name: two\n      url: https://a.example.com\n      names: [two.example.com]\n",
    ));
    expect_one(
        &two("    - name: two\n      url: https://b.example.com\n      names: [A.example.com]\n"),
        7,
        "proxy.sources[1].names[0]",
        "already means the source `one`",
    );
    let hosts = two(
        "      hosts: [x.example.com]\n    - name: two\n      url: https://b.example.com\n      hosts: [X.example.com]\n",
    );
    expect_one(
        &hosts,
        8,
        "proxy.sources[1].hosts[0]",
        "already means the source `one`",
    );
}

#[test]
fn t_bi8_overlapping_rules() {
    let rules = |second: &str| {
        with_proxy(&[
            "cache:",
            "  rules:",
            "    - { tags: [\"v*\"], manifest_ttl: 1h }",
            &format!("    - {second}"),
        ])
    };
    expect_one(
        &rules("{ tags: [\"v1*\", v2], manifest_ttl: 2h }"),
        5,
        "proxy.cache.rules[1]",
        "rules[0] (line 4)",
    );
    good(&rules("{ tags: [\"v1*\", latest], manifest_ttl: 2h }"));
    let images = |first: &str, second: &str| {
        let text = "proxy:\n  sources:\n    - { name: a, url: \"https://a.example.com\", images: [FIRST] }\n    - { name: b, url: \"https://b.example.com\", images: [SECOND] }\n";
        text.replace("FIRST", first).replace("SECOND", second)
    };
    expect_one(
        &images("\"library/*\"", "\"library/nginx\""),
        4,
        "proxy.sources[1].images[0]",
        "never reached",
    );
    expect_one(
        &images("\"*\"", "\"team/**\""),
        4,
        "proxy.sources[1].images[0]",
        "never reached",
    );
    expect_one(
        &images("x, x", "y"),
        3,
        "proxy.sources[0].images[1]",
        "never reached",
    );
    good(&images("\"library/nginx\"", "\"library/*\""));
}

#[test]
fn t_bi8_bad_pattern() {
    expect_one(
        &with_source(&["images: [\"a[\"]"]),
        5,
        "proxy.sources[0].images[0]",
        "is not a pattern",
    );
    expect_one(
        &with_source(&["public: [\"\"]"]),
        5,
        "proxy.sources[0].public[0]",
        "empty",
    );
    expect_one(
        &with_source(&["images: [\"a**\"]"]),
        5,
        "proxy.sources[0].images[0]",
        "alone between slashes",
    );
    expect_one(
        &with_source(&["token_hosts: [\"https://x/\"]"]),
        5,
        "proxy.sources[0].token_hosts[0]",
        "not a",
    );
}

#[test]
fn t_bi8_secret_unreadable() {
    let text = with_source(&["auth:", "  username: u", "  password_file: /run/secrets/hub"]);
    expect_one(
        &text,
        7,
        "proxy.sources[0].auth.password_file",
        "the file `/run/secrets/hub` cannot be read",
    );
    let text = with_proxy(&["access: { tokens_env: TOKENS }"]);
    expect_one(
        &text,
        2,
        "proxy.access.tokens_env",
        "the environment variable `TOKENS` cannot be read",
    );
    let text = with_proxy(&["tls: { cert: a.pem, key: b.pem }"]);
    assert_eq!(bad(&text).len(), 2);
}

#[test]
fn t_bi8_all_at_once_with_lines() {
    let text = r#"proxy:
  endpoint: "https://user:secret@example.com/path"
  listen: ["0.0.0.0:8080", "localhost:80"]
  admin: "127.0.0.1:8080"
  tls: { cert: "cert.pem" }
  cache:
    max_size: "50 apples"
    manifest_ttl: "-1h"
    negative_ttl: 10
    rules:
      - { tags: ["["], manifest_ttl: "1h" }
  rate_limit: { anonymous: "100", burst: 0 }
  access:
    anonymous: "yes"
    networks: ["10.0.0.1/8", "nowhere"]
    tokens: [{ name: "ci", sha256: "abc" }]
  defualt_source: "hub"
  sources:
    - name: "hub"
      type: "git"
      url: "http://10.0.0.5:5000/v2"
      timeouts: { stall: "0" }
    - url: "https://192.168.1.1"
      mirror: maybe
      on_gone: "panic"
      token_hosts: ["*.co.uk"]
      auth: { username: "u", password: "p", password_env: "P" }
"#;
    let problems = bad(text);
    let wanted: &[(u32, &str)] = &[
        (2, "proxy.endpoint"),
        (3, "proxy.listen[1]"),
        (4, "proxy.admin"),
        (5, "proxy.tls.key"),
        (5, "proxy.tls.cert"),
        (7, "proxy.cache.max_size"),
        (8, "proxy.cache.manifest_ttl"),
        (9, "proxy.cache.negative_ttl"),
        (11, "proxy.cache.rules[0].tags[0]"),
        (12, "proxy.rate_limit.anonymous"),
        (12, "proxy.rate_limit.burst"),
        (14, "proxy.access.anonymous"),
        (15, "proxy.access.networks[0]"),
        (15, "proxy.access.networks[1]"),
        (16, "proxy.access.tokens[0].sha256"),
        (17, "proxy.defualt_source"),
        (20, "proxy.sources[0].type"),
        (21, "proxy.sources[0].url"),
        (22, "proxy.sources[0].timeouts.stall"),
        (23, "proxy.sources[1].name"),
        (23, "proxy.sources[1].url"),
        (24, "proxy.sources[1].mirror"),
        (25, "proxy.sources[1].on_gone"),
        (26, "proxy.sources[1].token_hosts[0]"),
        (27, "proxy.sources[1].auth.password_env"),
        (27, "proxy.sources[1].auth.password_env"),
    ];
    for (line, key) in wanted {
        let start = format!("{line} {key}: ");
        assert!(
            problems.iter().any(|problem| problem.starts_with(&start)),
            "{start}\n{problems:#?}"
        );
    }
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    assert!(
        problems.iter().all(|problem| !problem.contains("secret@")),
        "{problems:#?}"
    );
}

/// T-SS2: a source in a private network is refused unless that is said.
#[test]
fn t_ss2_private_addresses_need_allow_private() {
    for host in [
        "10.0.0.5",
        "127.0.0.1:5000",
        "localhost",
        "[::1]:5000",
        "169.254.169.254",
        "2130706433",
        "[::ffff:10.0.0.1]",
    ] {
        let source = |more: &str| {
            format!("proxy:\n  sources:\n    - name: one\n      url: \"https://{host}\"\n      {more}\n")
        };
        expect_one(
            &source("mirror: true"),
            4,
            "proxy.sources[0].url",
            "is not a public address",
        );
        let Err(Problems(problems)) = load(&source("mirror: true")) else {
            panic!()
        };
        assert!(problems[0].remedy.contains("allow_private: true"), "{problems:?}");
        assert!(good(&source("allow_private: true")).sources[0].allow_private);
    }
    let text = with_source(&["alternates: [\"https://172.16.0.1\"]"]);
    expect_one(
        &text,
        5,
        "proxy.sources[0].alternates[0]",
        "is not a public address",
    );
}

#[test]
fn plain_http_needs_insecure() {
    let source = |more: &str| {
        format!("proxy:\n  sources:\n    - name: one\n      url: \"http://a.example.com\"\n      {more}\n")
    };
    expect_one(&source("mirror: true"), 4, "proxy.sources[0].url", "plain http");
    good(&source("insecure: true"));
}

/// T-CR6: credentials go to hosts that are named, never to whoever rents a name under a shared suffix.
#[test]
fn t_cr6_token_hosts_under_shared_suffixes_are_refused() {
    for pattern in [
        "*.com",
        "*.co.uk",
        "*.amazonaws.com",
        "*.s3.eu-west-1.amazonaws.com",
        "*.workers.dev",
    ] {
        let text = with_source(&[&format!("token_hosts: [\"{pattern}\"]")]);
        expect_one(
            &text,
            5,
            "proxy.sources[0].token_hosts[0]",
            "anyone can have a host under",
        );
    }
    good(&with_source(&[
        "token_hosts: [\"*.auth.example.com\", login.example.com]",
        "blob_hosts: [\"*.cloudfront.net\"]",
    ]));
}

#[test]
fn one_way_to_a_password() {
    let auth = |lines: &[&str]| {
        let mut all = vec!["auth:"];
        let indented: Vec<_> = lines.iter().map(|line| format!("  {line}")).collect();
        all.extend(indented.iter().map(String::as_str));
        with_source(&all)
    };
    expect_one(&auth(&["username: u"]), 6, "proxy.sources[0].auth", "no password");
    expect_one(
        &auth(&["password: p"]),
        6,
        "proxy.sources[0].auth.username",
        "missing",
    );
    expect_one(
        &auth(&["username: u", "password: p", "helper: h"]),
        8,
        "proxy.sources[0].auth.helper",
        "exclude",
    );
    expect_one(
        &auth(&["username: u", "password: 0123"]),
        7,
        "proxy.sources[0].auth.password",
        "a text is wanted",
    );
    let config = good(&auth(&["helper: ecr-login"]));
    assert!(matches!(&config.sources[0].auth, Some(Auth::Helper(helper)) if helper == "ecr-login"));
    let text = auth(&["username: u", "password_env: HUB"]);
    let mut asked = Vec::new();
    let mut secrets = |reference: &SecretRef| {
        asked.push(reference.clone());
        Ok("s3cret".to_owned())
    };
    let config = parse(&text, "c", &mut secrets).unwrap().config;
    assert!(
        matches!(&config.sources[0].auth, Some(Auth::Static { password, .. }) if password.expose() == "s3cret")
    );
    assert_eq!(asked, [SecretRef::Env("HUB".into())]);
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn tokens_come_from_lines_too() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let text = with_proxy(&["access: { anonymous: false, tokens_file: /t }"]);
    let mut file = |_: &SecretRef| {
        Ok(format!(
            "# clients\n\nci:{hash}\n laptop: {}\n",
            hash.to_uppercase()
        ))
    };
    let tokens = parse(&text, "c", &mut file).unwrap().config.access.tokens;
    assert_eq!(
        tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(),
        ["ci", "laptop"]
    );
    assert_eq!((tokens[0].sha256[0], tokens[1].sha256[31]), (0x9f, 0x08));

    let mut file = |_: &SecretRef| Ok(format!("ci:{hash}\nci:{hash}\nhunter2\nx:hunter2"));
    let Err(Problems(problems)) = parse(&text, "c", &mut file) else {
        panic!()
    };
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems
            .iter()
            .all(|problem| !problem.to_string().contains("hunter2"))
    );
    assert!(problems.iter().any(|problem| problem.message.contains("line 4")));
}

#[test]
fn sections_that_make_no_sense_together() {
    expect_one(
        &with_proxy(&["access: { anonymous: false }"]),
        2,
        "proxy.access.anonymous",
        "no client",
    );
    expect_one(
        &with_proxy(&["listen: [\"0.0.0.0:80\", \"127.0.0.1:80\"]"]),
        2,
        "proxy.listen[1]",
        "cannot both",
    );
    expect_one(
        &with_proxy(&["admin: \"127.0.0.1:8080\""]),
        2,
        "proxy.admin",
        "also a public address",
    );
    expect_one(
        &with_proxy(&["default_source: on"]),
        2,
        "proxy.default_source",
        "there is no source `on`",
    );
    expect_one(
        &with_proxy(&["endpoint: \"https://one.example.com\""]),
        3,
        "proxy.sources[0].url",
        "ask itself",
    );
    expect_one(&with_proxy(&["cache:"]), 2, "proxy.cache", "no value");
    expect_one(
        &with_proxy(&["cache: 5"]),
        2,
        "proxy.cache",
        "a section is wanted",
    );
    expect_one("proxy: { sources: [] }", 1, "proxy.sources", "nothing to mirror");
    expect_one("", 0, "", "empty");
    expect_one("proxy:\n  sources: [\n", 2, "", "unclosed");
    expect_one("{}", 1, "proxy", "missing");
}

#[test]
fn what_is_only_suspicious_is_a_warning() {
    let text = with_proxy(&["trusted_proxies: [\"0.0.0.0/0\"]"]);
    let warnings = load(&text).unwrap().warnings;
    assert_eq!((warnings.len(), warnings[0].line), (1, 2));
    let text = with_source(&["public: [\"*\"]"]);
    assert_eq!(load(&text).unwrap().warnings.len(), 1);
}

#[test]
fn the_endpoint_follows_the_first_address() {
    let endpoint = |lines: &[&str]| good(&with_proxy(lines)).endpoint.to_string();
    assert_eq!(endpoint(&[]), "http://127.0.0.1:8080/");
    assert_eq!(endpoint(&["listen: \"[::]:80\""]), "http://[::1]/");
    assert_eq!(
        endpoint(&["listen: [\"192.0.2.7:5000\", \"0.0.0.0:1\"]"]),
        "http://192.0.2.7:5000/"
    );
}

#[test]
fn labels_under_the_endpoint_select_known_registries() {
    let text = DEFAULT.replace("http://127.0.0.1:8080", "https://mirror.example.org");
    let config = good(&text);
    let owner = |label: &str| {
        let host = format!("{label}.mirror.example.org");
        let owners: Vec<_> = config
            .sources
            .iter()
            .filter(|source| source.hosts.contains(&host))
            .collect();
        assert_eq!(owners.len(), 1, "{host}");
        owners[0].names[0].clone()
    };
    assert_eq!(owner("docker"), "docker.io");
    assert_eq!(owner("dockerhub"), "docker.io");
    assert_eq!(owner("ghcr"), "ghcr.io");
    assert_eq!(owner("k8s"), "registry.k8s.io");
    assert_eq!(owner("ecr"), "public.ecr.aws");
    assert_eq!(owner("cloudsmith"), "docker.cloudsmith.io");
}

#[test]
fn every_default_of_the_table_can_be_read() {
    // The reader falls back to the table silently, so each default has to show in a configuration without keys.
    let shown = show(&good(&with_proxy(&[])));
    for section in [
        &schema::PROXY,
        &schema::CACHE,
        &schema::ACCESS,
        &schema::SOURCE,
        &schema::TIMEOUTS,
    ] {
        for key in section.keys {
            if let schema::Default::Value(default) = key.default {
                let line = shown
                    .lines()
                    .find(|line| line.contains(&format!("{}:", key.name)));
                let near = shown.split(&format!("{}:", key.name)).nth(1).unwrap_or_default();
                assert!(
                    near[..near.len().min(40)].contains(default),
                    "{}: {line:?}",
                    key.name
                );
            }
        }
    }
}

#[test]
fn what_is_shown_means_the_same() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let full = format!(
        r#"
proxy:
  endpoint: "https://mirror.example.org:8443"
  listen: ["0.0.0.0:8443", "[::1]:90"]
  admin: "127.0.0.1:0"
  cache:
    dir: "/var/lib/x: y # z"
    max_size: 1500
    blob_ttl: "90m"
    rules: [{{ images: ["a/**"], manifest_ttl: "1d12h" }}]
  rate_limit: {{ anonymous: "7/h" }}
  access: {{ networks: ["10.0.0.0/8", "::1"], tokens: [{{ name: ci, sha256: "{hash}" }}] }}
  trusted_proxies: ["127.0.0.1"]
  default_source: "two"
  sources:
    - name: "one"
      url: "https://registry-1.docker.io"
      auth: {{ username: "on", password: "hunter2" }}
      public: ["library/*"]
      on_gone: "follow"
    - name: "two"
      url: "http://[fd00::1]:5000"
      insecure: true
      allow_private: true
      mirror: false
      images: ["team/*"]
      alternates: ["http://10.0.0.1"]
      auth: {{ helper: "x" }}
"#
    );
    for text in [full.as_str(), SHORT, DEFAULT] {
        let config = good(text);
        let shown = show(&config);
        assert!(
            !shown.contains("hunter2") && !shown.contains(hash) && !shown.contains("pass\""),
            "{shown}"
        );
        let unmasked = shown
            .replace("sha256: \"***\"", &format!("sha256: {hash}"))
            .replace("sha256: '***'", &format!("sha256: {hash}"));
        let again = good(&unmasked);
        assert_eq!(show(&again), shown);
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
}

#[test]
fn deep_and_wide_texts_are_refused() {
    assert_eq!(bad(&"[".repeat(100_000)).len(), 1);
    assert_eq!(bad(&"a: ".repeat(1000)).len(), 1);
    assert_eq!(bad(&"x".repeat(2 << 20)).len(), 1);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(!bad(bomb).is_empty());
}

/// Every key of the table, and some words.
fn vocabulary() -> Vec<&'static str> {
    let mut words = vec![
        "proxy",
        "~",
        "true",
        "-1",
        "0",
        "10s",
        "50GiB",
        "\"*\"",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "- ",
        "? ",
        "|",
        ">",
        "!!int",
        "https://a.example.com",
        "http://10.0.0.1",
        "é",
        "\u{0}",
        "\t",
        "'",
        "\"",
        "#",
        "<<",
        "---",
        "...",
        "1/s",
        "::",
    ];
    for section in [
        &schema::PROXY,
        &schema::CACHE,
        &schema::ACCESS,
        &schema::SOURCE,
        &schema::AUTH,
        &schema::TLS,
        &schema::RATE_LIMIT,
    ] {
        words.extend(section.keys.iter().map(|key| key.name));
    }
    words
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        _ = load(&text);
    }

    #[test]
    fn text_that_looks_like_a_configuration_never_panics(
        lines in prop::collection::vec((0..6_usize, prop::sample::select(vocabulary()), any::<bool>(), prop::sample::select(vocabulary())), 0..30)
    ) {
        let mut text = String::from("proxy:\n");
        for (indent, key, item, value) in lines {
            let dash = if item { "- " } else { "" };
            text.push_str(&format!("{}{dash}{key}: {value}\n", "  ".repeat(indent)));
        }
        if let Err(Problems(problems)) = load(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn durations_and_sizes_are_written_as_they_are_read(millis in 0..3_000_000_000_u64, bytes in 1..u64::MAX / 4) {
        use super::units::{Size, duration_text, size_text};
        use super::value::Scalar;
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(Duration::read(&duration_text(duration)).ok(), Some(duration));
        prop_assert_eq!(Size::read(&size_text(bytes)).ok(), Some(Size(bytes)));
    }

    #[test]
    fn values_never_panic(text in "\\PC{0,40}") {
        use super::units::{Rate, Size};
        use super::value::{HostName, Origin, Path, RegistryName, Scalar, Sha256};
        _ = (Duration::read(&text), Size::read(&text), Rate::read(&text), Origin::read(&text));
        _ = (RegistryName::read(&text), HostName::read(&text), Path::read(&text), Sha256::read(&text));
        _ = (text.parse::<HostPattern>(), text.parse::<crate::pattern::NamePattern>());
    }
}
