//! What the edge has keys for, and how it reads the same file.

use super::*;
use crate::config::edge::{self, Place};

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Each variable holds one client, named as the variable.
fn one_client(reference: &SecretRef) -> Result<String, String> {
    match reference {
        SecretRef::Env(name) => Ok(format!("{name}:{HASH}")),
        SecretRef::File(path) => panic!("{path} is asked for"),
    }
}

fn at_edge(text: &str) -> Config {
    match edge::parse(text, "c", &mut one_client) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}\n{text}"),
    }
}

#[test]
fn secrets_in_addresses_come_from_variables() {
    let lines = [
        "endpoint: https://e.example.org",
        "access: { secret_hosts_env: H, secret_paths_env: P, tokens_env: T }",
    ];
    let text = with_proxy(&lines);
    let access = parse(&text, "c", &mut one_client).unwrap().config.access;
    let names =
        |clients: &[ClientToken]| clients.iter().map(|client| client.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&access.tokens), ["T"]);
    assert_eq!(names(&access.secret_hosts), ["H"]);
    assert_eq!(names(&access.secret_paths), ["P"]);
    assert!(access.secret_hosts[0].sha256[0] == 0x9f && !access.secret_hosts[0].forwards);

    // A name is one client's, in whichever way it comes.
    let Err(Problems(problems)) = parse(&text, "c", &mut |_| Ok(format!("same:{HASH}"))) else { panic!() };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.message.contains("two clients named `same`")));
    // With a secret there is a client, so the mirror may be closed.
    let text = with_proxy(&["access: { anonymous: false, secret_paths_env: P }"]);
    assert!(parse(&text, "c", &mut one_client).is_ok());
    let text = with_proxy(&["access: { anonymous: false, secret_hosts_env: H }"]);
    let Err(Problems(problems)) = parse(&text, "c", &mut one_client) else { panic!() };
    assert!(
        problems.len() == 1 && problems[0].message.contains("no labels under an address"),
        "{problems:?}"
    );
}

#[test]
fn a_token_may_forward() {
    let tokens = format!(
        "tokens: [{{ name: edge, sha256: \"{HASH}\", forwards: true }}, {{ name: ci, sha256: \"{HASH}\" }}]"
    );
    let config = good(&with_proxy(&[&format!("access: {{ {tokens} }}")]));
    let forwards: Vec<_> = config.access.tokens.iter().map(|token| token.forwards).collect();
    assert_eq!(forwards, [true, false]);
}

#[test]
fn an_entrepot_answers_for_registries() {
    let config = good(
        r#"
proxy:
  endpoint: "https://edge.example.org"
  sources:
    - name: home
      type: entrepot
      url: "https://home.example.org"
      names: ["docker.io"]
      alternates: ["https://registry-1.docker.io"]
      auth: { username: edge, password: p }
    - { name: other, type: entrepot, url: "https://home.example.org", names: ["ghcr.io"] }
"#,
    );
    let [hub, other] = &config.sources[..] else { panic!() };
    assert!(hub.kind == SourceKind::Entrepot && hub.library && !other.library);
    assert_eq!(config.default_source, Some(0));
    assert!(hub.hosts.contains(&"docker.edge.example.org".to_owned()), "{:?}", hub.hosts);
    // The alternate's redirects are those of the registry, and nobody but home is given a credential.
    assert!(
        hub.blob_hosts
            .as_ref()
            .unwrap()
            .iter()
            .any(|host| host.matches("production.cloudflare.docker.com", 443))
    );
    assert!(hub.token_hosts.is_empty());
    assert!(other.blob_hosts.is_none());

    expect_one(&with_source(&["type: entrepot"]), 3, "proxy.sources[0].names", "nobody says which");
    expect_one(
        &with_source(&["type: entrepot", "names: []"]),
        6,
        "proxy.sources[0].names",
        "nobody says which",
    );
    expect_one(&with_source(&["type: mirror"]), 5, "proxy.sources[0].type", "not a type of source");
}

#[test]
fn a_password_in_kv_is_for_the_edge() {
    let text = with_source(&["auth: { username: u, password_kv: hub }"]);
    expect_one(&text, 5, "proxy.sources[0].auth.password_kv", "only at the edge");
    let text =
        text.replace("proxy:\n", "proxy:\n  endpoint: https://e.example.org\n  access: { tokens_env: T }\n");
    let config = at_edge(&text);
    let Some(Auth::Kv { username, key }) = &config.sources[0].auth else { panic!("{config:?}") };
    assert_eq!((username.as_str(), key.as_str()), ("u", "hub"));
    assert!(show(&config).contains("password_kv: "));
    let text = with_source(&["auth: { username: u, password_kv: hub, password: p }"]);
    assert!(bad(&text)[0].contains("exclude each other"));
}

#[test]
fn the_edge_is_closed_and_limited_unless_told_otherwise() {
    let base = ["endpoint: https://e.example.org"];
    let config = at_edge(&with_proxy(&[base[0], "access: { tokens_env: T }"]));
    assert!(!config.access.anonymous);
    assert_eq!(config.rate_limit, Some(RateLimit { count: 100, per: Duration::from_secs(60), burst: 100 }));
    let told = ["access: { anonymous: true }", "rate_limit: { anonymous: 7/min }"];
    let config = at_edge(&with_proxy(&[base[0], told[0], told[1]]));
    assert!(config.access.anonymous);
    assert_eq!(config.rate_limit.map(|limit| limit.count), Some(7));

    let refused = |text: &str| match edge::parse(text, "c", &mut one_client) {
        Ok(_) => panic!("no problem in\n{text}"),
        Err(Problems(problems)) => {
            problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect::<Vec<_>>()
        }
    };
    // Nobody could come in.
    assert_eq!(refused(&with_proxy(&base)), ["proxy.access.anonymous: no client could ever pull"]);
    assert_eq!(refused(&with_proxy(&[told[0]])), ["proxy.endpoint: the edge cannot guess its own URL"]);
}

#[test]
fn images_to_keep_warm_are_of_our_sources() {
    let warm = |images: &str, more: &str| {
        with_proxy(&[&format!("edge: {{ warm: [{{ images: [{images}]{more} }}] }}")])
            .replace("name: one", "name: one, names: [docker.io, \"b:5000\"]")
    };
    let config = good(&warm("\"docker.io/library/alpine:3.20\", \"B:5000/a/b/c:x\"", ""));
    let warm_up = &config.edge.warm[0];
    assert_eq!(warm_up.images[0].name.as_str(), "docker.io/library/alpine");
    assert_eq!(warm_up.images[0].reference.to_string(), "3.20");
    assert_eq!(warm_up.images[1].name.as_str(), "B:5000/a/b/c");
    let platforms: Vec<_> =
        warm_up.platforms.iter().map(|one| (one.os.as_str(), one.architecture.as_str())).collect();
    assert_eq!(platforms, [("linux", "amd64")]);
    assert_eq!(config.edge.front_ttl, Duration::from_secs(86_400));
    assert_eq!(config.edge.error_ttl, Duration::from_secs(7 * 86_400));
    assert_eq!(config.edge.cron, "*/5 * * * *");

    for (image, message) in [
        ("alpine", "no registry in it"),
        ("docker.io/alpine", "no tag"),
        ("docker.io/library/alpine:", "is not an image"),
        ("docker.io/alpine@sha256:12", "is not an image"),
        (
            "docker.io/alpine:3@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "no such repository",
        ),
        ("ghcr.io/a/b:1", "no source has the registry `ghcr.io`"),
        ("library/alpine:3.20", "no source has the registry `library`"),
        ("docker.io/Upper/case:1", "no such repository"),
        ("docker.io//a:1", "is not an image"),
    ] {
        expect_one(&warm(&format!("\"{image}\""), ""), 2, "proxy.edge.warm[0].images[0]", message);
    }
    for platform in ["linux", "linux/", "Linux/amd64", "linux/amd64/v1/v2", "/linux/amd64", ""] {
        let text = warm("\"docker.io/a:1\"", &format!(", platforms: [\"{platform}\"]"));
        expect_one(&text, 2, "proxy.edge.warm[0].platforms[0]", "is not a platform");
    }
}

#[test]
fn the_edges_times_are_checked() {
    let edge = |line: &str| with_proxy(&[&format!("edge: {{ {line} }}")]);
    expect_one(&edge("error_ttl: 59s"), 2, "proxy.edge.error_ttl", "less than a minute");
    for cron in ["", "* * * *", "* * * * * *", "*/5  * * * *", "@daily", "* * * * \u{e9}"] {
        expect_one(&edge(&format!("cron: \"{cron}\"")), 2, "proxy.edge.cron", "is not a schedule");
    }
    assert_eq!(good(&edge("front_ttl: 0")).edge.front_ttl, Duration::ZERO);
}

/// Lines below `proxy` that let the edge be checked, before any others.
const FIT: &str = "endpoint: https://e.example.org";

fn checked(text: &str) -> Result<Vec<String>, Vec<String>> {
    let said = |problems: Vec<Problem>| {
        assert!(
            problems.iter().all(|problem| !problem.remedy.is_empty() && problem.line > 0),
            "{problems:?}"
        );
        problems
            .iter()
            .map(|problem| format!("{} {}: {}", problem.line, problem.key, problem.message))
            .collect()
    };
    match edge::check(text, "c", Place::Platform) {
        Ok(loaded) => Ok(said(loaded.warnings)),
        Err(Problems(problems)) => Err(said(problems)),
    }
}

#[test]
fn what_the_edge_cannot_honour_is_an_error() {
    let known = "access: { tokens_env: T }";
    assert_eq!(checked(&with_proxy(&[FIT, known])), Ok(vec![]));
    let proxy = |line: &str| checked(&with_proxy(&[FIT, known, line]));
    let source = |lines: &[&str]| {
        let text = with_source(lines);
        checked(&text.replace("proxy:\n", &format!("proxy:\n  {FIT}\n  {known}\n")))
    };
    for (found, at, message) in [
        (proxy("trusted_proxies: [10.0.0.0/8]"), "4 proxy.trusted_proxies", "believes the platform alone"),
        (proxy("rate_limit: { anonymous: 10/s }"), "4 proxy.rate_limit.anonymous", "by the minute"),
        (proxy("rate_limit: { anonymous: 1000/h }"), "4 proxy.rate_limit.anonymous", "by the minute"),
        (proxy("rate_limit: { anonymous: 10/min, burst: 5 }"), "4 proxy.rate_limit.burst", "come at once"),
        (source(&["insecure: true"]), "7 proxy.sources[0].insecure", "verifies every certificate"),
        (source(&["allow_private: true"]), "7 proxy.sources[0].allow_private", "public addresses only"),
        (source(&["timeouts: { stall: 3s }"]), "7 proxy.sources[0].timeouts.stall", "pauses"),
        (source(&["auth: { helper: x }"]), "7 proxy.sources[0].auth.helper", "no programs"),
        (
            source(&["auth: { username: u, password_file: /f }"]),
            "7 proxy.sources[0].auth.password_file",
            "no files",
        ),
        (
            checked(&with_proxy(&[FIT, "access: { tokens_file: /t, networks: [10.0.0.0/8] }"])),
            "3 proxy.access.tokens_file",
            "no files",
        ),
    ] {
        let problems = found.expect_err(at);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("{at}: ")) && problems[0].contains(message), "{problems:?}");
    }
    for line in ["rate_limit: { anonymous: 10/min, burst: 10 }", "edge: { front_ttl: 1h }"] {
        assert_eq!(proxy(line), Ok(vec![]));
    }
    for endpoint in ["http://e.example.org", "https://e.example.org:8443", "https://192.0.2.1", "https://e"] {
        let problems = checked(&with_proxy(&[&format!("endpoint: \"{endpoint}\""), known])).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("2 proxy.endpoint: the platform serves https"), "{problems:?}");
    }
    // A local runtime reaches what the platform does not, and is reached as it is not.
    let text = with_proxy(&["endpoint: \"http://127.0.0.1:8787\"", known])
        .replace("name: one", "name: one, allow_private: true");
    assert!(at_edge(&text).sources[0].allow_private);
    let made = edge::bundle(&text, "c", Place::Local).unwrap();
    assert!(edge::check(&made.value, "bundle", Place::Local).is_ok());
    assert!(edge::bundle(&text, "c", Place::Platform).is_err());
}

#[test]
fn what_means_nothing_at_the_edge_is_said() {
    let lines = [
        FIT,
        "listen: \"0.0.0.0:1\"",
        "admin: \"0.0.0.0:2\"",
        "tls: { cert: c, key: k }",
        "cache: { dir: /d }",
        "access: { anonymous: true }",
    ];
    let notes = checked(&with_proxy(&lines)).unwrap();
    let keys: Vec<_> = notes.iter().map(|note| note.split(": ").next().unwrap()).collect();
    assert_eq!(
        keys,
        ["3 proxy.listen", "4 proxy.admin", "5 proxy.tls", "6 proxy.cache.dir", "7 proxy.access.anonymous"]
    );
    assert!(notes[4].contains("terms forbid open proxies"));
    // At home nothing of this is said.
    let text = with_proxy(&lines[..3]);
    assert_eq!(parse(&text, "c", &mut no_secrets).unwrap().warnings, []);
}

const FULL: &str = r#"
proxy:
  endpoint: "https://mirror.example.org"
  listen: ["0.0.0.0:8443"]
  admin: "127.0.0.1:0"
  tls: { cert: c, key: k }
  cache: { dir: "/d", max_size: 1500, rules: [{ tags: ["n*"], manifest_ttl: "1d12h" }] }
  access: { networks: ["10.0.0.0/8"], tokens_env: T, secret_hosts_env: H, secret_paths_env: P }
  rate_limit: { anonymous: "7/min" }
  sources:
    - name: a-b
      url: "https://registry-1.docker.io"
      auth: { username: "é \"q\" \\ # x", password: "hunter2-one" }
      images: ["team/{a,b}*"]
    - { name: A_b, url: "https://one.example.org", auth: { username: u, password: "hunter2-two" } }
    - { name: c, url: "https://two.example.org", auth: { username: u, password_env: ENTREPOT_PASSWORD_A_B } }
    - { name: d, url: "https://three.example.org", auth: { username: u, password_env: ENTREPOT_PASSWORD_A_B } }
    - { name: e, url: "https://four.example.org", auth: { username: u, password_kv: four } }
    - { name: home, type: entrepot, url: "https://home.example.org", names: [ghcr.io] }
  edge: { warm: [{ images: ["docker.io/library/alpine:3.20"] }] }
"#;

#[test]
fn the_bundle_means_the_same_and_holds_no_secret() {
    let made = edge::bundle(FULL, "c", Place::Platform).unwrap();
    assert!(!made.value.contains('\n') && !made.value.contains("hunter2"), "{}", made.value);
    assert!(!format!("{made:?}").contains("hunter2"));
    for gone in ["listen", "admin", "tls", "\"dir\""] {
        assert!(!made.value.contains(gone), "{gone}");
    }
    assert_eq!(edge::bundle(FULL, "other", Place::Platform).unwrap().value, made.value);
    let wanted: Vec<_> = made
        .wanted
        .iter()
        .map(|one| {
            let value = one.value.as_ref().map_or("", Secret::expose);
            format!("{:?} {} for {} {value}", one.kept, one.name, one.purpose)
        })
        .collect();
    assert_eq!(
        wanted,
        [
            "Secret T for clients' tokens ",
            "Secret H for clients' secret hosts ",
            "Secret P for clients' secret paths ",
            "Secret ENTREPOT_PASSWORD_A_B for the password of source c and the password of source d ",
            "Kv four for the password of source e ",
            "Secret ENTREPOT_PASSWORD_A_B_2 for the password of source a-b hunter2-one",
            "Secret ENTREPOT_PASSWORD_A_B_3 for the password of source A_b hunter2-two",
        ]
    );

    let mut put = |reference: &SecretRef| {
        let name = reference.to_string();
        let put = made
            .wanted
            .iter()
            .find(|one| one.kept == edge::Kept::Secret && name.contains(&format!("`{}`", one.name)));
        match put.expect("every secret is in the list").value.as_ref() {
            Some(password) => Ok(password.expose().to_owned()),
            None => one_client(reference),
        }
    };
    let deployed = edge::parse(&made.value, "value", &mut put).unwrap();
    assert_eq!(deployed.warnings, []);
    let written = edge::parse(FULL, "c", &mut one_client).unwrap();
    // Where to listen is no part of the edge's configuration.
    let shown = |config: &Config| {
        format!(
            "{:?}",
            Config {
                listen: vec![],
                admin: None,
                cache: Cache { dir: None, ..config.cache.clone() },
                ..config.clone()
            }
        )
    };
    assert_eq!(shown(&deployed.config), shown(&written.config));
    let password = |config: &Config, index: usize| match &config.sources[index].auth {
        Some(Auth::Static { password, .. }) => password.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    for index in 0..4 {
        assert_eq!(password(&deployed.config, index), password(&written.config, index));
    }
    assert!(edge::bundle(&FULL.replace("\"7/min\"", "\"7/s\""), "c", Place::Platform).is_err());
    assert!(edge::bundle("proxy: [", "c", Place::Platform).is_err());
}

/// A text as the Worker reads it, which brings no reader of YAML.
fn in_json(text: &str) -> Result<Loaded, Vec<String>> {
    let parsed = tree::json::read(text);
    read_all(parsed, Reader::new("ENTREPOT_CONFIG", Site::Edge, &mut one_client))
        .map_err(|Problems(problems)| problems.iter().map(Problem::to_string).collect())
}

#[test]
fn what_is_deployed_needs_no_yaml() {
    for (text, place) in [
        (FULL.to_owned(), Place::Platform),
        (with_proxy(&["endpoint: \"http://127.0.0.1:1\"", "access: { tokens_env: T }"]), Place::Local),
    ] {
        let made = edge::bundle(&text, "c", place).unwrap();
        let loaded = in_json(&made.value).unwrap();
        let from_yaml = edge::parse(&made.value, "ENTREPOT_CONFIG", &mut one_client).unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{from_yaml:?}"));
    }
}

#[test]
fn json_is_refused_as_clearly() {
    let sources = r#"[{"name":"a","url":"https://a.example.com"}]"#;
    for (text, message) in [
        (String::new(), "ENTREPOT_CONFIG:1: this is not JSON: EOF"),
        ("null".to_owned(), "ENTREPOT_CONFIG: the file is empty"),
        (with_proxy(&[]), "ENTREPOT_CONFIG:1: this is not JSON: expected"),
        ("{\"proxy\":\n {\"endpoint\":\"hunter2}".to_owned(), "ENTREPOT_CONFIG:2: this is not JSON: EOF"),
        ("[".repeat(1000), "ENTREPOT_CONFIG:1: this is not JSON: recursion limit"),
        (r#"{"proxy":{"sources":1}} x"#.to_owned(), "ENTREPOT_CONFIG:1: this is not JSON: trailing"),
        (
            format!(
                r#"{{"proxy":{{"endpoint":"https://e.example.org","access":{{"tokens_env":"T"}},"sources":{sources},"sources":{sources}}}}}"#
            ),
            "ENTREPOT_CONFIG: proxy.sources: this key is already in another place",
        ),
        (
            format!(r#"{{"proxy":{{"endpoint":7,"access":{{"tokens_env":"T"}},"sources":{sources}}}}}"#),
            "ENTREPOT_CONFIG: proxy.endpoint: ",
        ),
    ] {
        let problems = in_json(&text).expect_err(&text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(message) && problems[0].contains(" — "), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}
