use std::net::SocketAddr;
use std::time::Duration;

use super::*;

mod edge;
mod problems;
mod properties;

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
    let Err(Problems(problems)) = load(text) else { panic!("no problem in:\n{text}") };
    assert!(!problems.is_empty());
    assert!(problems.iter().all(|problem| !problem.remedy.is_empty() && !problem.message.is_empty()));
    problems.iter().map(|problem| format!("{} {}: {}", problem.line, problem.key, problem.message)).collect()
}

/// One source with these lines in it, from line 5.
fn with_source(lines: &[&str]) -> String {
    let mut text = "proxy:\n  sources:\n    - name: one\n      url: https://one.example.com\n".to_owned();
    lines.iter().for_each(|line| text.push_str(&format!("      {line}\n")));
    text
}

/// These lines below `proxy`, from line 2, and a source.
fn with_proxy(lines: &[&str]) -> String {
    let mut text = "proxy:\n".to_owned();
    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str("  sources: [{ name: one, url: \"https://one.example.com\" }]\n");
    text
}

fn expect_one(text: &str, line: u32, key: &str, message: &str) {
    let problems = bad(text);
    assert_eq!(problems.len(), 1, "{problems:#?}\n{text}");
    assert!(problems[0].starts_with(&format!("{line} {key}: ")), "{problems:#?}\n{text}");
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
    assert_eq!(hub.names, ["docker.io", "index.docker.io", "registry-1.docker.io"]);
    assert_eq!(hub.hosts, ["dockerhub.docker-proxy.example.com", "docker.docker-proxy.example.com"]);
    assert!(hub.library && hub.mirror && hub.auth.is_none());
    assert!(hub.token_hosts.iter().any(|host| host.matches("auth.docker.io", 443)));
    assert_eq!(hub.timeouts.connect, Duration::from_secs(5));
    assert_eq!(hub.timeouts.first_byte, Duration::from_secs(10));
    assert_eq!(hub.timeouts.stall, Duration::from_secs(15));
    assert_eq!(hub.on_gone, OnGone::Keep);

    let private = &config.sources[1];
    assert_eq!(private.names, ["private-registry.example.com"]);
    assert_eq!(private.hosts, ["private.docker-proxy.example.com"]);
    assert!(!private.library && private.token_hosts.is_empty() && private.blob_hosts.is_none());
    let Some(Auth::Static { username, password }) = &private.auth else { panic!("{private:?}") };
    assert_eq!((username.as_str(), password.expose()), ("user", "pass"));
}

/// T-OP1: nothing is open that was not asked for.
#[test]
fn t_op1_without_a_configuration_only_this_machine_is_served() {
    let Loaded { config, warnings } = parse(DEFAULT, "default.yml", &mut no_secrets).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.listen, ["127.0.0.1:8080".parse::<SocketAddr>().unwrap()]);
    assert!(config.trusted_proxies.is_empty() && config.access.networks.is_empty());
    let names: Vec<_> = config.sources.iter().flat_map(|source| source.names.clone()).collect();
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
    let with: Vec<_> = config.sources.iter().filter(|source| source.auth.is_some()).collect();
    assert_eq!(with.len(), 1);
    assert_eq!(&*with[0].name, "private");
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
    expect_one(&auth(&["password: p"]), 6, "proxy.sources[0].auth.username", "missing");
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
    let mut file = |_: &SecretRef| Ok(format!("# clients\n\nci:{hash}\n laptop: {}\n", hash.to_uppercase()));
    let tokens = parse(&text, "c", &mut file).unwrap().config.access.tokens;
    assert_eq!(tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["ci", "laptop"]);
    assert_eq!((tokens[0].sha256[0], tokens[1].sha256[31]), (0x9f, 0x08));

    let mut file = |_: &SecretRef| Ok(format!("ci:{hash}\nci:{hash}\nhunter2\nx:hunter2"));
    let Err(Problems(problems)) = parse(&text, "c", &mut file) else { panic!() };
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.to_string().contains("hunter2")));
    assert!(problems.iter().any(|problem| problem.message.contains("line 4")));
}

#[test]
fn the_endpoint_follows_the_first_address() {
    let endpoint = |lines: &[&str]| good(&with_proxy(lines)).endpoint.to_string();
    assert_eq!(endpoint(&[]), "http://127.0.0.1:8080/");
    assert_eq!(endpoint(&["listen: \"[::]:80\""]), "http://[::1]/");
    assert_eq!(endpoint(&["listen: [\"192.0.2.7:5000\", \"0.0.0.0:1\"]"]), "http://192.0.2.7:5000/");
}

#[test]
fn labels_under_the_endpoint_select_known_registries() {
    let text = DEFAULT.replace("http://127.0.0.1:8080", "https://mirror.example.org");
    let config = good(&text);
    let owner = |label: &str| {
        let host = format!("{label}.mirror.example.org");
        let owners: Vec<_> = config.sources.iter().filter(|source| source.hosts.contains(&host)).collect();
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
    for section in
        [&schema::PROXY, &schema::CACHE, &schema::ACCESS, &schema::SOURCE, &schema::TIMEOUTS, &schema::EDGE]
    {
        for key in section.keys {
            if let schema::Default::Value(default) = key.default {
                let line = shown.lines().find(|line| line.contains(&format!("{}:", key.name)));
                let near = shown.split(&format!("{}:", key.name)).nth(1).unwrap_or_default();
                assert!(near[..near.len().min(40)].contains(default), "{}: {line:?}", key.name);
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
  access: {{ networks: ["10.0.0.0/8", "::1"], tokens: [{{ name: ci, sha256: "{hash}", forwards: true }}] }}
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
    - {{ name: "home", type: "entrepot", url: "https://home.example.org", names: ["ghcr.io"] }}
  edge:
    cron: "0 3 * * 1-5"
    warm: [{{ images: ["docker.io/library/alpine:3.20", "ghcr.io/a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"], platforms: ["linux/arm/v7"] }}]
"#
    );
    for text in [full.as_str(), SHORT, DEFAULT] {
        let config = good(text);
        let shown = show(&config);
        assert!(!shown.contains("hunter2") && !shown.contains(hash) && !shown.contains("pass\""), "{shown}");
        let unmasked = shown
            .replace("sha256: \"***\"", &format!("sha256: {hash}"))
            .replace("sha256: '***'", &format!("sha256: {hash}"));
        let again = good(&unmasked);
        assert_eq!(show(&again), shown);
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
}
