//! What is refused, where, and with which words.

use super::*;

#[test]
fn t_bi8_unknown_key() {
    expect_one(&with_source(&["mirorr: true"]), 5, "proxy.sources[0].mirorr", "unknown");
    expect_one(&with_proxy(&["cache:", "  max-size: 5GB"]), 3, "proxy.cache.max-size", "unknown");
    expect_one(
        "proxys: {}\nproxy: { sources: [{ name: a, url: \"https://a.example.com\" }] }",
        1,
        "proxys",
        "unknown",
    );
    let Err(Problems(problems)) = load(&with_source(&["mirorr: true"])) else { panic!() };
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
    good(&two("    - name: two\n      url: https://a.example.com\n      names: [two.example.com]\n"));
    expect_one(
        &two("    - name: two\n      url: https://b.example.com\n      names: [A.example.com]\n"),
        7,
        "proxy.sources[1].names[0]",
        "already means the source `one`",
    );
    let hosts = two(
        "      hosts: [x.example.com]\n    - name: two\n      url: https://b.example.com\n      hosts: [X.example.com]\n",
    );
    expect_one(&hosts, 8, "proxy.sources[1].hosts[0]", "already means the source `one`");
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
    expect_one(&images("\"*\"", "\"team/**\""), 4, "proxy.sources[1].images[0]", "never reached");
    expect_one(&images("x, x", "y"), 3, "proxy.sources[0].images[1]", "never reached");
    good(&images("\"library/nginx\"", "\"library/*\""));
}

#[test]
fn t_bi8_bad_pattern() {
    expect_one(&with_source(&["images: [\"a[\"]"]), 5, "proxy.sources[0].images[0]", "is not a pattern");
    expect_one(&with_source(&["public: [\"\"]"]), 5, "proxy.sources[0].public[0]", "empty");
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
    expect_one(&text, 7, "proxy.sources[0].auth.password_file", "the file `/run/secrets/hub` cannot be read");
    let text = with_proxy(&["access: { tokens_env: TOKENS }"]);
    expect_one(&text, 2, "proxy.access.tokens_env", "the environment variable `TOKENS` cannot be read");
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
        assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{start}\n{problems:#?}");
    }
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains("secret@")), "{problems:#?}");
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
        expect_one(&source("mirror: true"), 4, "proxy.sources[0].url", "is not a public address");
        let Err(Problems(problems)) = load(&source("mirror: true")) else { panic!() };
        assert!(problems[0].remedy.contains("allow_private: true"), "{problems:?}");
        assert!(good(&source("allow_private: true")).sources[0].allow_private);
    }
    let text = with_source(&["alternates: [\"https://172.16.0.1\"]"]);
    expect_one(&text, 5, "proxy.sources[0].alternates[0]", "is not a public address");
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
    for pattern in ["*.com", "*.co.uk", "*.amazonaws.com", "*.s3.eu-west-1.amazonaws.com", "*.workers.dev"] {
        let text = with_source(&[&format!("token_hosts: [\"{pattern}\"]")]);
        expect_one(&text, 5, "proxy.sources[0].token_hosts[0]", "anyone can have a host under");
    }
    good(&with_source(&[
        "token_hosts: [\"*.auth.example.com\", login.example.com]",
        "blob_hosts: [\"*.cloudfront.net\"]",
    ]));
}

#[test]
fn sections_that_make_no_sense_together() {
    expect_one(&with_proxy(&["access: { anonymous: false }"]), 2, "proxy.access.anonymous", "no client");
    expect_one(
        &with_proxy(&["listen: [\"0.0.0.0:80\", \"127.0.0.1:80\"]"]),
        2,
        "proxy.listen[1]",
        "cannot both",
    );
    expect_one(&with_proxy(&["admin: \"127.0.0.1:8080\""]), 2, "proxy.admin", "also a public address");
    expect_one(&with_proxy(&["default_source: on"]), 2, "proxy.default_source", "there is no source `on`");
    expect_one(
        &with_proxy(&["endpoint: \"https://one.example.com\""]),
        3,
        "proxy.sources[0].url",
        "ask itself",
    );
    expect_one(&with_proxy(&["cache:"]), 2, "proxy.cache", "no value");
    expect_one(&with_proxy(&["cache: 5"]), 2, "proxy.cache", "a section is wanted");
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
fn deep_and_wide_texts_are_refused() {
    assert_eq!(bad(&"[".repeat(100_000)).len(), 1);
    assert_eq!(bad(&"a: ".repeat(1000)).len(), 1);
    assert_eq!(bad(&"x".repeat(2 << 20)).len(), 1);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(!bad(bomb).is_empty());
}
