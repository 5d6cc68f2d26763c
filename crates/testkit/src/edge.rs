//! The Worker itself, in the runtime that runs it in production: `workerd`, with local stand-ins for what the platform
//! binds to it. To a test, what [`Mirror`](crate::mirror::Mirror) is for the binary.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use entrepot_core::config::edge::{self as configuration, Kept, Place, Wanted};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mirror;

/// Where the Worker finds its configuration.
const CONFIG: &str = "ENTREPOT_CONFIG";
/// Where it finds what signs its tokens.
const KEY: &str = "ENTREPOT_KEY";
/// How long Node and the runtime may take to be ready, on a machine that does other things too.
const START: Duration = Duration::from_secs(30);
/// How long they may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// A running Worker. Killed when dropped, with the runtime and its storage.
#[derive(Debug)]
pub struct Edge {
    listen: SocketAddr,
    control: String,
    child: Child,
    /// Closing it ends the child.
    input: Option<ChildStdin>,
    log: Arc<Mutex<Vec<u8>>>,
    raw: bool,
    vars: BTreeMap<String, String>,
    limits: BTreeMap<String, Value>,
    secrets: Vec<String>,
    may_panic: bool,
    home: TempDir,
}

/// What to start.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    config: String,
    raw: bool,
    vars: BTreeMap<String, String>,
    secrets: Vec<String>,
    limits: BTreeMap<String, Value>,
    env: Vec<(String, String)>,
    bundle: Option<PathBuf>,
}

impl Builder {
    /// Sets a secret, in KV if that is where the configuration wants it, else as a variable: its own, or instead of what
    /// the configuration's text holds. It must never occur in the log.
    pub fn secret(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.secrets.push(value.clone());
        self.var(name, value)
    }

    /// Deploys the text as it is, and not what is deployed of it: for one that is no configuration.
    pub fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    /// Sets a variable of the Worker.
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.insert(name.to_owned(), value.into());
        self
    }

    /// Lets the binding `PULLS` or `REQUESTS` allow so many calls per key in `period` (10 or 60) seconds. Without this
    /// they allow all.
    pub fn rate_limit(mut self, binding: &str, limit: u32, period: u32) -> Self {
        self.limits.insert(binding.to_owned(), json!({ "limit": limit, "period": period }));
        self
    }

    /// Sets a variable of the runtime's process, for example `NODE_EXTRA_CA_CERTS`.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Runs another script: a directory with an `index.js` and the modules it imports.
    pub fn bundle(mut self, directory: impl Into<PathBuf>) -> Self {
        self.bundle = Some(directory.into());
        self
    }

    /// Starts, and waits until requests are taken. Panics with the log if they are not within half a minute, and with what
    /// is wrong with the configuration if the edge cannot honour it.
    pub fn start(self) -> Edge {
        let home =
            tempfile::Builder::new().prefix("entrepot-edge-").tempdir().expect("a temporary directory");
        let listen = mirror::free_address();
        let deployed = Deployed::of(&self.config, listen, self.raw);
        let mut vars = deployed.vars;
        vars.insert(KEY.to_owned(), "0".repeat(64));
        vars.extend(self.vars);
        let kv: BTreeMap<String, String> =
            deployed.kept.into_iter().filter_map(|name| vars.remove_entry(&name)).collect();
        let settings = json!({
            "bundle": self.bundle.unwrap_or_else(bundle),
            "persist": home.path().join("storage"),
            "port": listen.port(),
            "vars": vars,
            "kv": kv,
            "rateLimits": self.limits,
        });
        let mut command = Command::new("node");
        command.arg(runner()).envs(self.env);
        // What the runtime leaves behind if it is killed goes with the directory.
        command.env("TMPDIR", home.path()).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("node starts");
        let log = Arc::default();
        mirror::collect(child.stdout.take().expect("a piped stdout"), Arc::clone(&log));
        mirror::collect(child.stderr.take().expect("a piped stderr"), Arc::clone(&log));
        let mut input = child.stdin.take().expect("a piped stdin");
        writeln!(input, "{settings}").expect("node reads its settings");
        let mut edge = Edge {
            listen,
            control: String::new(),
            child,
            input: Some(input),
            log,
            raw: self.raw,
            vars,
            limits: self.limits,
            secrets: self.secrets,
            may_panic: false,
            home,
        };
        edge.wait_ready();
        edge
    }
}

/// A configuration as it is deployed.
struct Deployed {
    /// With the secrets that stood in the file.
    vars: BTreeMap<String, String>,
    /// The secrets that are kept in KV.
    kept: Vec<String>,
}

impl Deployed {
    fn of(config: &str, listen: SocketAddr, raw: bool) -> Deployed {
        let text = config.replace("__ENDPOINT__", &format!("http://{listen}"));
        if raw {
            return Deployed { vars: BTreeMap::from([(CONFIG.to_owned(), text)]), kept: Vec::new() };
        }
        let made = configuration::bundle(&text, "the configuration", Place::Local)
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let mut deployed =
            Deployed { vars: BTreeMap::from([(CONFIG.to_owned(), made.value)]), kept: Vec::new() };
        for Wanted { kept, name, value, .. } in made.wanted {
            if let Some(secret) = value {
                deployed.vars.insert(name, secret.expose().to_owned());
            } else if kept == Kept::Kv {
                deployed.kept.push(name);
            }
        }
        deployed
    }
}

impl Edge {
    /// Starts with this configuration, in which `__ENDPOINT__` is replaced by the public URL. As when it is deployed, the
    /// Worker gets it without its secrets, which are put beside it.
    pub fn start(config: impl Into<String>) -> Self {
        Self::builder(config).start()
    }

    /// As `start`, with more to set.
    pub fn builder(config: impl Into<String>) -> Builder {
        Builder {
            config: config.into(),
            raw: false,
            vars: BTreeMap::new(),
            secrets: Vec::new(),
            limits: BTreeMap::new(),
            env: Vec::new(),
            bundle: None,
        }
    }

    /// The URL of a path, which begins with a slash; `http://127.0.0.1:<port>` of an empty one.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// What the Worker and its runtime have written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
            .into_owned()
    }

    /// Waits (at most `limit`) until a condition holds; panics with the log if it never does.
    pub fn wait_until(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < limit, "not within {limit:?}: {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs the cron handler to its end, as for this cron expression; its outcome, `ok` if all went well.
    pub fn scheduled(&self, cron: &str) -> String {
        let result = self.control("POST", &format!("/scheduled?cron={}", encoded(cron)), &[]);
        json_of(&result)["outcome"].as_str().expect("an outcome").to_owned()
    }

    /// Stops the runtime and starts it again: same address, same storage, nothing left in memory.
    pub fn restart(&mut self) {
        let settings = json!({ "vars": self.vars, "rateLimits": self.limits });
        self.control("POST", "/restart", settings.to_string().as_bytes());
    }

    /// Replaces the configuration (`__ENDPOINT__` as in `start`) from the next restart on.
    pub fn write_config(&mut self, config: &str) {
        let deployed = Deployed::of(config, self.listen, self.raw);
        self.vars.extend(deployed.vars);
    }

    /// Sets a variable from the next restart on.
    pub fn set_var(&mut self, name: &str, value: impl Into<String>) {
        self.vars.insert(name.to_owned(), value.into());
    }

    /// The keys in the bucket `BLOBS`, sorted, and the size of each object in bytes.
    pub fn r2(&self) -> BTreeMap<String, u64> {
        let listing = json_of(&self.control("GET", "/r2", &[]));
        let objects = listing.as_array().expect("a list of objects").iter();
        objects
            .map(|object| {
                let key = object["key"].as_str().expect("a key").to_owned();
                (key, object["size"].as_u64().expect("a size"))
            })
            .collect()
    }

    pub fn r2_keys(&self) -> Vec<String> {
        self.r2().into_keys().collect()
    }

    /// The bytes of an object in R2. Panics if there is none.
    pub fn r2_get(&self, key: &str) -> Vec<u8> {
        self.control("GET", &format!("/r2/object?key={}", encoded(key)), &[])
    }

    /// Puts an object into R2 past the Worker.
    pub fn r2_put(&self, key: &str, bytes: &[u8]) {
        self.control("PUT", &format!("/r2/object?key={}", encoded(key)), bytes);
    }

    /// Removes an object from R2 past the Worker.
    pub fn r2_delete(&self, key: &str) {
        self.control("DELETE", &format!("/r2/object?key={}", encoded(key)), &[]);
    }

    /// The entries of the namespace `ERRORS` whose keys begin with `prefix`.
    pub fn kv(&self, prefix: &str) -> BTreeMap<String, String> {
        let entries = self.control("GET", &format!("/kv?prefix={}", encoded(prefix)), &[]);
        serde_json::from_slice(&entries).expect("keys and values")
    }

    /// Writes an entry of the namespace `ERRORS` past the Worker.
    pub fn kv_put(&self, key: &str, value: &str) {
        self.control("PUT", &format!("/kv/entry?key={}", encoded(key)), value.as_bytes());
    }

    /// Removes an entry of the namespace `ERRORS` past the Worker.
    pub fn kv_delete(&self, key: &str) {
        self.control("DELETE", &format!("/kv/entry?key={}", encoded(key)), &[]);
    }

    /// Loses what the Durable Objects of a class have stored, as from the next restart on.
    pub fn lose(&self, class: &str) {
        let stored = self.home.path().join("storage/do").join(format!("entrepot-{class}"));
        fs::remove_dir_all(&stored).unwrap_or_else(|error| panic!("{}: {error}", stored.display()));
    }

    /// Empties the cache in front. Answers how many entries it held.
    pub fn purge_cache(&self) -> u64 {
        json_of(&self.control("POST", "/cache/purge", &[])).as_u64().expect("a number of entries")
    }

    /// Where the local stand-ins for the platform's storage keep what they hold.
    pub fn storage(&self) -> PathBuf {
        self.home.path().join("storage")
    }

    /// The process of the runtime, `workerd`; another one after a restart.
    pub fn pid(&self) -> u32 {
        let parent = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "workerd")
        })
        .unwrap_or_else(|| panic!("node has no child workerd; log:\n{}", self.log()))
    }

    /// Anonymous memory of the runtime in KiB.
    pub fn rss_anon_kb(&self) -> u64 {
        mirror::rss_anon_kb(self.pid())
    }

    /// Processor time that the runtime has used so far.
    pub fn cpu_time(&self) -> Duration {
        mirror::cpu_time(self.pid())
    }

    /// For tests that make it panic: otherwise a panic in the log fails the test when the Worker is dropped.
    pub fn may_panic(&mut self) {
        self.may_panic = true;
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        loop {
            let log = self.log();
            let line =
                log.lines().find_map(|line| line.strip_prefix("ready ")).filter(|_| log.ends_with('\n'));
            if let Some(control) = line.and_then(|line| line.split_once(" control ")) {
                self.control = control.1.to_owned();
                return;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                // The readers may be a moment behind the exit.
                std::thread::sleep(Duration::from_millis(50));
                panic!("the Worker ended at once ({status}); log:\n{}", self.log());
            }
            assert!(start.elapsed() < START, "the Worker is not ready within {START:?}; log:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the process that started the runtime. Panics with the log unless it does as it is told.
    fn control(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.control))
            .body(body)
            .expect("a request");
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.run(request);
        let mut answer =
            answer.unwrap_or_else(|error| panic!("{method} {path}: {error}; log:\n{}", self.log()));
        let said = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().expect("a whole answer");
        let status = answer.status();
        let words = || String::from_utf8_lossy(&said);
        assert_eq!(status, 200, "{method} {path}: {}; log:\n{}", words(), self.log());
        said
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // The child ends with its input.
        drop(self.input.take());
        let start = Instant::now();
        while start.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let group = self.child.id() as libc::pid_t;
        // SAFETY: kill takes no pointers; the group is the one that this process made for its child.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the Worker ----\n{}---- end of the log ----", self.log());
            return;
        }
        let log = self.log();
        assert!(self.may_panic || !log.contains("panicked at"), "the Worker panicked:\n{log}");
        for secret in &self.secrets {
            assert!(!log.contains(secret.as_str()), "the log holds the secret {secret}:\n{log}");
        }
    }
}

/// The script under test: the directory `ENTREPOT_WORKER`, else `worker` in the target directory that this test was
/// built in. Panics with the remedy if there is none.
pub fn bundle() -> PathBuf {
    let directory = std::env::var_os("ENTREPOT_WORKER").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("the test's own path");
        test.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("worker")
    });
    assert!(
        directory.join("index.js").is_file(),
        "no Worker in {}: run `cargo xtask worker build`, or set ENTREPOT_WORKER",
        directory.display()
    );
    fs::canonicalize(directory).expect("an absolute path")
}

fn runner() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/dev/run.mjs")
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON from the control")
}

fn encoded(word: &str) -> String {
    url::form_urlencoded::byte_serialize(word.as_bytes()).collect()
}
