//! `entrepot check` and `entrepot config`, as an operator runs them.
#![expect(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::path::Path;
use std::process::{Command, Output};

const SHORT: &str = r#"proxy:
  endpoint: "https://docker-proxy.example.com"
  sources:
    - name: "dockerhub"
      type: "registry"
      url: "https://registry-1.docker.io"
      mirror: true
    - name: "private"
      type: "registry"
      url: "https://private-registry.example.com"
      auth:
        username: "user"
        password: "canary-password"
"#;

fn entrepot(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entrepot"));
    command.current_dir(directory).args(arguments).env_remove("ENTREPOT_CONFIG");
    command.envs(variables.iter().copied()).output().unwrap()
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_says_what_it_checked() {
    let directory = directory(&[("config.yml", SHORT)]);
    let output = entrepot(directory.path(), &["check"], &[]);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("source: dockerhub at https://registry-1.docker.io/"), "{text}");
    assert!(text.ends_with("\nok\n"), "{text}");
    assert!(!text.contains("canary"));
}

/// T-BI8: every command refuses, with all problems and their lines, and exit status 2.
#[test]
fn t_bi8_a_wrong_file_is_refused_by_every_command() {
    let text = SHORT
        .replace("mirror: true", "miror: true")
        .replace("password: \"canary-password\"", "password_file: nowhere");
    let directory = directory(&[("config.yml", &text)]);
    for command in ["check", "config", "serve"] {
        let output = entrepot(directory.path(), &[command], &[]);
        assert_eq!(output.status.code(), Some(2), "{command}: {}", err(&output));
        let said = err(&output);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].starts_with("config.yml:7: proxy.sources[0].miror: "), "{said}");
        assert!(lines[1].starts_with("config.yml:13: proxy.sources[1].auth.password_file: "), "{said}");
        assert_eq!(out(&output), "");
    }
}

#[test]
fn the_first_place_holds() {
    let named = |name: &str| SHORT.replace("docker-proxy", name);
    let files =
        [("a.yml", &*named("argument")), ("v.yml", &*named("variable")), ("config.yml", &*named("here"))];
    let directory = directory(&files);
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = entrepot(directory.path(), arguments, variables);
        assert!(output.status.success(), "{}", err(&output));
        out(&output)
    };
    let variable = [("ENTREPOT_CONFIG", "v.yml")];
    assert!(shown(&["config", "--config", "a.yml"], &variable).contains("argument.example.com"));
    assert!(shown(&["config"], &variable).contains("variable.example.com"));
    assert!(shown(&["config"], &[("ENTREPOT_CONFIG", "")]).contains("here.example.com"));
}

#[test]
fn a_named_file_must_exist() {
    let directory = directory(&[("config.yml", SHORT)]);
    let argument = entrepot(directory.path(), &["check", "--config", "gone.yml"], &[]);
    assert_eq!(argument.status.code(), Some(2));
    assert!(err(&argument).starts_with("gone.yml: the configuration that --config names cannot be read: "));
    let variable = entrepot(directory.path(), &["check"], &[("ENTREPOT_CONFIG", "gone.yml")]);
    assert_eq!(variable.status.code(), Some(2));
    assert!(err(&variable).contains("ENTREPOT_CONFIG"));
}

/// T-OP1: without a configuration, only this machine is served.
#[test]
fn t_op1_the_built_in_default_listens_on_loopback_only() {
    if Path::new("/etc/proxy/config.yml").exists() {
        return;
    }
    let directory = directory(&[]);
    let output = entrepot(directory.path(), &["check"], &[]);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let listens: Vec<_> = text.lines().filter(|line| line.starts_with("listens on")).collect();
    assert_eq!(listens, ["listens on: 127.0.0.1:8080"]);
}

/// T-CR8: what is printed holds no secret, and can be read again.
#[test]
fn t_cr8_config_masks_secrets_and_can_be_read_again() {
    let files = [("config.yml", SHORT), ("secret", "canary-file\n")];
    let text = SHORT.replace("password: \"canary-password\"", "password_file: secret");
    let directory = directory(&files);
    for text in [SHORT, &text] {
        std::fs::write(directory.path().join("config.yml"), text).unwrap();
        let output = entrepot(directory.path(), &["config"], &[]);
        let shown = out(&output);
        assert!(shown.contains("***") && !shown.contains("canary"), "{shown}");
        std::fs::write(directory.path().join("again.yml"), &shown).unwrap();
        let again = entrepot(directory.path(), &["config", "--config", "again.yml"], &[]);
        assert_eq!(out(&again).replace("again.yml", "config.yml"), shown, "{}", err(&again));
    }
}
