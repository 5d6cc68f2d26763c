//! `entrepot worker`, as an operator runs it before deploying.
#![expect(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// With each way of keeping a secret, and one in the file itself.
const EDGE: &str = r#"proxy:
  endpoint: "https://mirror.example.com"
  listen: "0.0.0.0:8080"
  cache: { max_size: "9GB" }
  access: { tokens_env: "ENTREPOT_TOKENS" }
  rate_limit: { anonymous: "50/min" }
  sources:
    - name: "dockerhub"
      url: "https://registry-1.docker.io"
      auth: { username: "me", password_env: "HUB_PASSWORD" }
    - name: "ghcr"
      url: "https://ghcr.io"
      auth: { username: "me", password: "canary-password" }
    - name: "quay"
      url: "https://quay.io"
      hosts: ["quay.example.net"]
      auth: { username: "me", password_kv: "quay" }
  edge: { cron: "*/10 * * * *" }
"#;

fn entrepot(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entrepot"));
    command.current_dir(directory).args(arguments);
    command.env_remove("ENTREPOT_CONFIG").env_remove("CARGO_TARGET_DIR").output().unwrap()
}

fn directory(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("edge.yml"), config).unwrap();
    directory
}

fn init(directory: &Path, more: &[&str]) -> Output {
    entrepot(directory, &[&["worker", "init", "--config", "edge.yml"], more].concat())
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The whole file. `ENTREPOT_GOLDEN=write` writes it anew.
#[test]
fn the_written_file_is_the_golden_one() {
    let directory = directory(EDGE);
    let output = init(directory.path(), &["--dir", "deploy"]);
    assert!(output.status.success(), "{}", err(&output));
    let written = fs::read_to_string(directory.path().join("deploy/wrangler.jsonc")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wrangler.jsonc");
    if std::env::var_os("ENTREPOT_GOLDEN").is_some() {
        fs::write(&golden, &written).unwrap();
    }
    assert_eq!(written, fs::read_to_string(golden).unwrap());
    assert!(!written.contains("canary"));
}

/// T-WK6: nothing but the routes leads to the Worker, and no `*.workers.dev`.
#[test]
fn t_wk6_the_worker_is_closed_but_for_its_routes() {
    let directory = directory(EDGE);
    init(directory.path(), &[]);
    let written = fs::read_to_string(directory.path().join("wrangler.jsonc")).unwrap();
    for line in
        ["  \"workers_dev\": false,", "  \"preview_urls\": false,", "  \"cache\": {\"enabled\":false}"]
    {
        assert!(written.lines().any(|written| written == line), "{line}\n{written}");
    }
    assert!(!written.contains("custom_domain"));
}

#[test]
fn what_remains_is_said_with_every_secret_and_record() {
    let directory = directory(EDGE);
    let output = init(directory.path(), &[]);
    let said = out(&output);
    for line in [
        "note: edge.yml:3: proxy.listen: ",
        "written: ./wrangler.jsonc",
        "  npx wrangler r2 bucket create entrepot-mirror-example-com",
        "  npx wrangler kv namespace create entrepot-mirror-example-com --binding ERRORS ",
        "  openssl rand -hex 32 | npx wrangler secret put ENTREPOT_KEY ",
        "  npx wrangler secret put ENTREPOT_TOKENS   # clients' tokens",
        "  npx wrangler secret put HUB_PASSWORD   # the password of source dockerhub",
        "  npx wrangler secret put ENTREPOT_PASSWORD_GHCR   # the password of source ghcr, as it stands",
        "  npx wrangler kv key put --remote --binding ERRORS 'quay' --path FILE   # the password of source quay",
        "  mirror.example.com AAAA 100::   # in the zone example.com",
        "  *.mirror.example.com AAAA 100::   # in the zone example.com; only for labels",
        "  quay.example.net AAAA 100::   # in the zone example.net",
        "  npx wrangler deploy",
    ] {
        assert!(said.lines().any(|one| one.starts_with(line)), "{line}\n{said}");
    }
    assert!(!said.contains("canary"));
}

#[test]
fn a_file_is_written_again_only_if_it_is_ours() {
    let directory = directory(EDGE);
    let file = directory.path().join("wrangler.jsonc");
    fs::write(&file, "{ \"name\": \"another\" }").unwrap();
    let refused = init(directory.path(), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        err(&refused).starts_with("./wrangler.jsonc: this program did not write this file"),
        "{}",
        err(&refused)
    );
    assert!(err(&refused).contains("--force"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ \"name\": \"another\" }");
    assert!(init(directory.path(), &["--force"]).status.success());
    // As `wrangler kv namespace create` leaves it.
    let ours = fs::read_to_string(&file).unwrap();
    let with_id = ours.replace("{\"binding\":\"ERRORS\"}", "{ \"binding\": \"ERRORS\", \"id\": \"0123\" }");
    assert_ne!(ours, with_id);
    fs::write(&file, with_id).unwrap();
    assert!(init(directory.path(), &[]).status.success());
    let again = fs::read_to_string(&file).unwrap();
    assert_eq!(again, ours.replace("{\"binding\":\"ERRORS\"}", "{\"binding\":\"ERRORS\",\"id\":\"0123\"}"));
}

#[test]
fn what_the_edge_cannot_honour_is_an_error_of_both_commands() {
    let text = EDGE
        .replace("50/min", "50/h")
        .replace("password_env: \"HUB_PASSWORD\"", "password_file: \"/run/secrets/hub\"");
    let directory = directory(&text);
    for command in ["check", "init"] {
        let output = entrepot(directory.path(), &["worker", command, "--config", "edge.yml"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = err(&output);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].starts_with("edge.yml:6: proxy.rate_limit.anonymous: "), "{said}");
        assert!(lines[1].starts_with("edge.yml:10: proxy.sources[0].auth.password_file: "), "{said}");
        assert!(lines.iter().all(|line| line.contains(" — ")), "{said}");
        assert_eq!(out(&output), "");
    }
    assert!(!directory.path().join("wrangler.jsonc").exists());
}

#[test]
fn check_notes_what_belongs_to_home() {
    let directory = directory(EDGE);
    let output = entrepot(directory.path(), &["worker", "check", "--config", "edge.yml"]);
    assert!(output.status.success(), "{}", err(&output));
    let said = out(&output);
    assert!(said.contains("\nnote: edge.yml:3: proxy.listen: "), "{said}");
    assert!(said.contains("\nsecret: HUB_PASSWORD, the password of source dockerhub\n"), "{said}");
    assert!(said.ends_with("\nok\n"), "{said}");
    assert!(!directory.path().join("wrangler.jsonc").exists());
}

#[test]
fn a_configuration_that_no_variable_holds_is_refused() {
    let many: String = (0..300).map(|n| format!("\"team-{n:04}/image\", ")).collect();
    let directory = directory(&EDGE.replace("hosts: [\"quay.example.net\"]", &format!("images: [{many}]")));
    let output = init(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("holds 5120 bytes, and this comes to "), "{}", err(&output));
}

/// Where addresses hold secrets, nothing that keeps addresses is switched on.
#[test]
fn addresses_that_hold_secrets_are_not_kept() {
    let kept = "\"observability\": {\"enabled\":true,\"logs\":{\"enabled\":true,\"invocation_logs\":false}}";
    for (access, keeps) in
        [("tokens_env: \"T\"", true), ("secret_hosts_env: \"H\"", false), ("secret_paths_env: \"P\"", false)]
    {
        let directory = directory(&EDGE.replace("tokens_env: \"ENTREPOT_TOKENS\"", access));
        assert!(init(directory.path(), &[]).status.success());
        let written = fs::read_to_string(directory.path().join("wrangler.jsonc")).unwrap();
        assert_eq!(written.contains(kept), keeps, "{written}");
        assert_eq!(written.contains("\"observability\": {\"enabled\":false,"), !keeps, "{written}");
    }
}

#[test]
fn a_local_runtime_may_do_what_the_platform_may_not() {
    let text = EDGE.replace("https://mirror.example.com", "http://127.0.0.1:8787").replace(
        "url: \"https://quay.io\"\n      hosts: [\"quay.example.net\"]",
        "url: \"http://127.0.0.1:5000\"\n      insecure: true\n      allow_private: true",
    );
    let directory = directory(&text);
    let refused = init(directory.path(), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("proxy.endpoint: ") && err(&refused).contains(".allow_private: "));
    let output = init(directory.path(), &["--local"]);
    assert!(output.status.success(), "{}", err(&output));
    let written = fs::read_to_string(directory.path().join("wrangler.jsonc")).unwrap();
    assert!(!written.contains("\"routes\""), "{written}");
    assert!(out(&output).contains("npx wrangler dev") && !out(&output).contains("wrangler deploy"));
}
