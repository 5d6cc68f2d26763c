//! The mirror itself, as its own process: the binary that users run, with a configuration file, a cache directory and
//! two free ports.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the mirror may take to answer `/v2/` after its start.
const START: Duration = Duration::from_secs(10);

/// A running (or stopped) `entrepot serve`. Killed when dropped.
#[derive(Debug)]
pub struct Mirror {
    settings: Builder,
    listen: SocketAddr,
    admin: SocketAddr,
    home: TempDir,
    cache: PathBuf,
    child: Option<Child>,
    log: Arc<Mutex<Vec<u8>>>,
    canaries: Vec<String>,
    may_panic: bool,
}

/// What to start.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    config: String,
    cache: Option<PathBuf>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    open_files: Option<u64>,
    under: Vec<String>,
    wait: bool,
}

impl Builder {
    /// Sets a variable of the process' environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Appends an argument to `serve`.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.args.push(argument.into());
        self
    }

    /// Stores in this directory instead of a temporary one.
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Lets the process have at most so many files open (`RLIMIT_NOFILE`, both soft and hard).
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Runs it by another program, which is given these arguments before the command.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Does not wait until `/v2/` answers: for a start that is meant to fail.
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Starts, and waits until `/v2/` answers. Panics with the log if it does not within ten seconds.
    pub fn start(self) -> Mirror {
        let home =
            tempfile::Builder::new().prefix("entrepot-test-").tempdir().expect("a temporary directory");
        let cache = self.cache.clone().unwrap_or_else(|| home.path().join("cache"));
        let (listen, admin) = free_addresses();
        let log = Arc::default();
        let mut mirror = Mirror {
            settings: self,
            listen,
            admin,
            home,
            cache,
            child: None,
            log,
            canaries: Vec::new(),
            may_panic: false,
        };
        mirror.spawn();
        mirror
    }
}

impl Mirror {
    /// Starts with this configuration, in which these words are replaced: `__LISTEN__` and `__ADMIN__` by free
    /// addresses (`127.0.0.1:<port>`), `__CACHE__` by the cache directory, `__ENDPOINT__` by the public URL.
    pub fn start(config: impl Into<String>) -> Self {
        Self::builder(config).start()
    }

    /// As `start`, with more to set.
    pub fn builder(config: impl Into<String>) -> Builder {
        Builder {
            config: config.into(),
            cache: None,
            env: Vec::new(),
            args: Vec::new(),
            open_files: None,
            under: Vec::new(),
            wait: true,
        }
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    pub fn port(&self) -> u16 {
        self.listen.port()
    }

    /// The admin listener's URL.
    pub fn admin(&self) -> String {
        format!("http://{}", self.admin)
    }

    pub fn cache_dir(&self) -> &Path {
        &self.cache
    }

    /// Where the configuration file lies.
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("config.yml")
    }

    /// Status and body of a page of the admin listener.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        plain_get(self.admin, path)
            .unwrap_or_else(|error| panic!("admin {path}: {error}; log:\n{}", self.log()))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.admin_get("/metrics").1
    }

    /// The sum of all samples of one metric whose labels contain each of `labels` (for example `reason="timeout"`).
    /// Zero if there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum_samples(&self.metrics(), name, labels)
    }

    /// Standard output and error so far, of all starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
            .into_owned()
    }

    /// The log once all of `texts` are in it, within five seconds: a request's line comes a moment after its answer.
    pub fn log_with(&self, texts: &[&str]) -> String {
        let has_all = |mirror: &Mirror| {
            let log = mirror.log();
            texts.iter().all(|text| log.contains(text))
        };
        self.wait_until(Duration::from_secs(5), &format!("the log says {texts:?}"), has_all);
        self.log()
    }

    /// Panics if the process has been stopped.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the mirror runs").id()
    }

    /// Anonymous memory in KiB.
    pub fn rss_anon_kb(&self) -> u64 {
        rss_anon_kb(self.pid())
    }

    /// Processor time used so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the mirror's /proc/fd").count()
    }

    pub fn sigterm(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Asks it to read its configuration again.
    pub fn sighup(&self) {
        self.signal(libc::SIGHUP);
    }

    pub fn signal(&self, signal: i32) {
        let pid = self.pid() as libc::pid_t;
        // SAFETY: kill takes no pointers; the process is our own child and not yet reaped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}");
    }

    /// Ends it with SIGKILL, and reaps it.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits at most `limit` for it to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Its end, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("waiting for our own child")?;
        self.child = None;
        Some(status)
    }

    /// Stops it (SIGTERM, after ten seconds SIGKILL) if it runs, and starts it again: same ports, same cache.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.sigterm();
            if self.wait_exit(Duration::from_secs(10)).is_none() {
                self.kill9();
            }
        }
        self.spawn();
    }

    /// Replaces the configuration file (placeholders as in `start`), without telling the process.
    pub fn write_config(&mut self, config: impl Into<String>) {
        self.settings.config = config.into();
        self.save_config();
    }

    /// Sets a variable for the next start.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.settings.env.retain(|(key, _)| key != name);
        self.settings.env.push((name.to_owned(), value.into()));
    }

    /// A secret that must never occur in the log or the metrics; looked for when the mirror is dropped (T-CR8).
    pub fn canary(&mut self, secret: impl Into<String>) {
        self.canaries.push(secret.into());
    }

    /// For tests that make it panic: otherwise a panic in the log fails the test when the mirror is dropped.
    pub fn may_panic(&mut self) {
        self.may_panic = true;
    }

    /// Whether the process has been started and not yet seen to end.
    pub fn runs(&mut self) -> bool {
        self.child.is_some() && self.exited().is_none()
    }

    /// Waits (at most `limit`) until a condition holds; panics with the log if it never does.
    pub fn wait_until(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < limit, "not within {limit:?}: {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Digest of the sorted list (path, SHA-256) of everything stored, once nothing is being written any more. Files that
    /// the metadata database rewrites as it likes do not count.
    pub fn store_hash(&self) -> String {
        self.wait_until(Duration::from_secs(10), "no fill is under way", |mirror| {
            !mirror.stored_files().iter().any(|path| path.starts_with("tmp"))
        });
        let listing: Vec<String> = self
            .stored_files()
            .into_iter()
            .map(|path| {
                let bytes = fs::read(self.cache.join(&path)).unwrap_or_default();
                format!("{} {}\n", path.display(), crate::script::sha256(&bytes))
            })
            .collect();
        crate::script::sha256(listing.concat().as_bytes())
    }

    /// Every file under the cache directory but the database and locks, relative and sorted.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut pending = vec![self.cache.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                    continue;
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                let database =
                    [".db", ".db-wal", ".db-shm", ".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock"];
                if !database.iter().any(|ending| name.ends_with(ending))
                    && !["lock", "key"].contains(&name.as_str())
                {
                    files.push(path.strip_prefix(&self.cache).expect("below the cache directory").to_owned());
                }
            }
        }
        files.sort();
        files
    }

    fn spawn(&mut self) {
        self.save_config();
        let mut words = self.settings.under.iter().map(OsString::from).chain([binary().into()]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).arg("serve").arg("--config").arg(self.config_file()).args(&self.settings.args);
        command.env_remove("ENTREPOT_CONFIG").env("HOME", self.home.path());
        command.envs(self.settings.env.iter().cloned()).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(limit) = self.settings.open_files {
            crate::limits::bound_open_files(&mut command, limit);
        }
        let mut child = command.spawn().expect("the entrepot binary starts");
        collect(child.stdout.take().expect("a piped stdout"), self.log.clone());
        collect(child.stderr.take().expect("a piped stderr"), self.log.clone());
        self.child = Some(child);
        if self.settings.wait {
            self.wait_ready();
        }
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        let limit = if self.settings.under.is_empty() { START } else { 12 * START };
        while plain_get(self.listen, "/v2/").is_err() {
            if let Some(status) = self.exited() {
                // The readers may be a moment behind the exit.
                std::thread::sleep(Duration::from_millis(50));
                panic!("the mirror ended at once ({status}); log:\n{}", self.log());
            }
            assert!(
                start.elapsed() < limit,
                "the mirror does not answer /v2/ within {limit:?}; log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn save_config(&self) {
        let text = self
            .settings
            .config
            .replace("__LISTEN__", &self.listen.to_string())
            .replace("__ADMIN__", &self.admin.to_string())
            .replace("__CACHE__", &self.cache.to_string_lossy())
            .replace("__ENDPOINT__", &self.url());
        fs::write(self.config_file(), text).expect("writing the configuration");
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let metrics = match self.child {
            Some(_) if !self.canaries.is_empty() => plain_get(self.admin, "/metrics").map(|page| page.1),
            _ => Ok(String::new()),
        };
        self.kill9();
        if std::thread::panicking() {
            eprintln!("---- log of the mirror ----\n{}---- end of the log ----", self.log());
            return;
        }
        if !self.canaries.is_empty() {
            // What it said last may still be in the pipe.
            std::thread::sleep(Duration::from_millis(50));
        }
        let (log, metrics) = (self.log(), metrics.unwrap_or_default());
        assert!(self.may_panic || !log.contains("panicked at"), "the mirror panicked:\n{log}");
        for secret in &self.canaries {
            assert!(!log.contains(secret.as_str()), "the log holds the secret {secret}:\n{log}");
            assert!(!metrics.contains(secret.as_str()), "the metrics hold the secret {secret}:\n{metrics}");
        }
    }
}

/// The binary under test: `ENTREPOT_BIN`, else the newest of `{release,debug}/entrepot` in the target directory that
/// this test was built in. Panics with the remedy if there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ENTREPOT_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "ENTREPOT_BIN names {}, which is no file", path.display());
        return fs::canonicalize(path).expect("an absolute path");
    }
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(3).expect("a test lies in target/<profile>/deps").to_owned();
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("entrepot"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .unwrap_or_else(|| {
            panic!(
                "no entrepot binary in {}: run `cargo build -p entrepot`, or set ENTREPOT_BIN",
                target.display()
            )
        })
}

fn free_addresses() -> (SocketAddr, SocketAddr) {
    (free_address(), free_address())
}

/// An address of this machine for a process that is about to start. Its port is none of those that the kernel gives to
/// outgoing connections (32768 and up, unless told otherwise), so that nobody takes it meanwhile by chance.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    // Other test processes begin elsewhere.
    let start = (std::process::id().wrapping_mul(7_919) % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} on is free");
}

pub(crate) fn collect(mut from: impl Read + Send + 'static, log: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&buffer[..n]);
        }
    });
}

/// Anonymous memory of a process in KiB, from `/proc/<pid>/status`.
pub(crate) fn rss_anon_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process' /proc/status");
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon in /proc/status");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// Processor time that a process has used so far.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process' /proc/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

/// A GET that blocks, for places without a runtime.
fn plain_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let (head, body) = crate::http::parse_all(&bytes)
        .into_iter()
        .next()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "no HTTP answer"))?;
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}

fn sum_samples(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_labels() {
        let text = "# TYPE hits counter\nhits_total{kind=\"a\",source=\"x\"} 2\nhits_total{kind=\"b\"} 3\nhits_totals 9\n";
        assert_eq!(sum_samples(text, "hits_total", &[]), 5.0);
        assert_eq!(sum_samples(text, "hits_total", &["kind=\"a\""]), 2.0);
        assert_eq!(sum_samples(text, "misses_total", &[]), 0.0);
    }
}
