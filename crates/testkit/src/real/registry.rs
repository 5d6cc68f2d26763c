//! Debian's `docker-registry` in three moods, and a registry in memory for the referrers API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::gateway::{Log, Role, Seen, gateway};
use super::image::Image;
use super::listener::Listener;
use super::process::{Process, TempDir, find, free_port, go_program, temp_dir};
use super::push::{Fetched, fetch, push};
use super::token::{ISSUER, SERVICE, TokenServer};

const BLOB_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Every kind of manifest; distribution hands out no OCI index to those who do not name it.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";
const READY: Duration = Duration::from_secs(20);

/// A user name and its password.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    pub username: &'static str,
    pub password: &'static str,
}

impl Credentials {
    /// Whom every registry with tokens knows.
    pub const TEST: Credentials = Credentials { username: "tester", password: "open sesame" };

    /// As the value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }

    pub(crate) fn are(&self, username: &str, password: &str) -> bool {
        self.username == username && self.password == password
    }
}

/// A running registry, reached through a gateway that counts.
#[derive(Debug)]
pub struct Registry {
    front: Listener,
    blob_host: Option<Listener>,
    tokens: Option<TokenServer>,
    log: Log,
    backend: SocketAddr,
    // Last, so that the gateways go before what they lead to.
    process: Process,
    _dir: Option<TempDir>,
}

impl Registry {
    /// `docker-registry`, open to everyone.
    pub fn plain() -> Registry {
        let dir = temp_dir();
        let (backend, process) = distribution(None, dir.path());
        Registry::before(backend, process, Some(dir), None, false)
    }

    /// As [`plain`](Registry::plain), and what is pushed stays in `dir`, for the next registry there.
    pub fn kept(dir: &Path) -> Registry {
        let (backend, process) = distribution(None, dir);
        Registry::before(backend, process, None, None, false)
    }

    /// `docker-registry` that wants a token for everything; see [`TokenServer`].
    pub fn with_tokens() -> Registry {
        let (tokens, dir) = (TokenServer::start(), temp_dir());
        let (backend, process) = distribution(Some(&tokens), dir.path());
        Registry::before(backend, process, Some(dir), Some(tokens), false)
    }

    /// As [`with_tokens`](Registry::with_tokens), and a GET for a blob is answered by 307 to `127.0.0.2`, which takes
    /// signed links only and refuses `Authorization` with 400, as S3 does.
    pub fn redirecting() -> Registry {
        let (tokens, dir) = (TokenServer::start(), temp_dir());
        let (backend, process) = distribution(Some(&tokens), dir.path());
        Registry::before(backend, process, Some(dir), Some(tokens), true)
    }

    /// A small registry written in Go that has the referrers API. `None`, with the reason on standard error, when it cannot
    /// be built.
    pub fn with_referrers() -> Option<Registry> {
        let program = go_program("origin")?;
        let dir = temp_dir();
        let (backend, process) =
            started(|port| Process::start(&program, &[&format!("127.0.0.1:{port}")], dir.path().join("log")));
        Some(Registry::before(backend, process, Some(dir), None, false))
    }

    fn before(
        backend: SocketAddr,
        process: Process,
        dir: Option<TempDir>,
        tokens: Option<TokenServer>,
        away: bool,
    ) -> Registry {
        let log = Log::default();
        let key = format!("{backend} signs");
        let blob_host = tokens.as_ref().filter(|_| away).map(|tokens| {
            let role = Role::BlobHost { key: key.clone(), pass: tokens.pass() };
            gateway(BLOB_HOST, backend, role, log.clone())
        });
        let role = match &blob_host {
            Some(host) => Role::Redirecting { blob_host: host.address(), key },
            None => Role::Registry,
        };
        let front = gateway(IpAddr::V4(Ipv4Addr::LOCALHOST), backend, role, log.clone());
        Registry { front, blob_host, tokens, log, backend, process, _dir: dir }
    }

    /// `127.0.0.1:<port>`, where it is reached and counted.
    pub fn address(&self) -> String {
        self.front.address().to_string()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.front.address())
    }

    /// Where it is reached past the gateway, which counts and is in the way of a gigabyte a second.
    pub fn backend(&self) -> SocketAddr {
        self.backend
    }

    /// The lines of a source in the mirror's configuration that say where this registry is and where it leads to. Each
    /// begins with `indent`.
    pub fn source(&self, indent: &str) -> String {
        let mut lines = vec![
            "type: \"registry\"".to_owned(),
            format!("url: \"{}\"", self.url()),
            "insecure: true".to_owned(),
            "allow_private: true".to_owned(),
        ];
        lines.extend(self.tokens.as_ref().map(|t| format!("token_hosts: [\"{}\"]", t.address())));
        lines.extend(self.blob_host.as_ref().map(|host| format!("blob_hosts: [\"{}\"]", host.address())));
        lines.iter().map(|line| format!("{indent}{line}\n")).collect()
    }

    /// `127.0.0.2:<port>`, where blobs are redirected to.
    pub fn blob_host(&self) -> Option<String> {
        self.blob_host.as_ref().map(|host| host.address().to_string())
    }

    pub fn tokens(&self) -> Option<&TokenServer> {
        self.tokens.as_ref()
    }

    /// Puts an image there, past the gateway, so that only the clients' requests are counted. Without a tag the image is
    /// known by its digest alone.
    pub fn push(&self, repository: &str, tag: Option<&str>, image: &Image) {
        let token = self.tokens.as_ref().map(|t| t.push_token(repository));
        push(self.backend, token.as_deref(), repository, tag, image)
            .unwrap_or_else(|e| panic!("cannot push to {repository}: {e}\n{}", self.process.log()));
    }

    /// One GET of `/v2/<repository>/<rest>`, past the gateway, with all that may be needed to be let in.
    pub fn ask(&self, repository: &str, rest: &str) -> Result<Fetched, String> {
        let token = self.tokens.as_ref().map(|t| format!("Bearer {}", t.push_token(repository)));
        let mut headers = vec![("accept", MANIFESTS)];
        headers.extend(token.as_deref().map(|token| ("authorization", token)));
        fetch("GET", &format!("http://{}/v2/{repository}/{rest}", self.backend), &headers)
    }

    /// Every request since the start, or the last [`forget`](Registry::forget), in the order of their answers.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("no holder panics").clone()
    }

    /// Requests of this method whose path ends in `end`.
    pub fn count(&self, method: &str, end: &str) -> usize {
        self.seen().iter().filter(|s| s.method == method && s.path.ends_with(end)).count()
    }

    /// Bytes of the blob sent, wherever from.
    pub fn bytes_of(&self, digest: &str) -> u64 {
        self.seen().iter().filter(|s| s.blob() == Some(digest) && s.status < 300).map(Seen::bytes).sum()
    }

    /// Bytes of all blobs sent.
    pub fn blob_bytes(&self) -> u64 {
        self.seen().iter().filter(|s| s.blob().is_some() && s.status < 300).map(Seen::bytes).sum()
    }

    pub fn forget(&self) {
        self.log.lock().expect("no holder panics").clear();
    }

    /// Refuses from now on and cuts live connections: the registry, its token server and its blob host.
    pub fn stop(&mut self) {
        self.front.stop();
        if let Some(host) = &mut self.blob_host {
            host.stop();
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.stop();
        }
    }

    /// Serves again, on the same ports.
    pub fn restart(&mut self) {
        self.front.restart();
        if let Some(host) = &mut self.blob_host {
            host.restart();
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.restart();
        }
    }
}

/// `docker-registry`, with a token server or without.
fn distribution(tokens: Option<&TokenServer>, dir: &Path) -> (SocketAddr, Process) {
    let program = find("docker-registry").expect("docker-registry is installed: ask `need!` first");
    let file = dir.join("config.yml");
    started(|port| {
        std::fs::write(&file, configuration(port, dir, tokens))
            .expect("the registry's directory is writable");
        Process::start(&program, &["serve", &file.display().to_string()], dir.join("log"))
    })
}

fn configuration(port: u16, dir: &Path, tokens: Option<&TokenServer>) -> String {
    let mut text = format!(
        "version: 0.1\nlog: {{ level: warn, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n  maintenance: {{ uploadpurging: {{ enabled: false }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\", relativeurls: true, secret: testkit }}\n",
        dir.join("data").display()
    );
    if let Some(tokens) = tokens {
        text.push_str(&format!(
            "auth:\n  token: {{ realm: \"{}\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {} }}\n",
            tokens.realm(),
            tokens.bundle()
        ));
    }
    text
}

/// Starts a registry on a free port. Another program may take the port in between: then on another.
fn started(start: impl Fn(u16) -> Process) -> (SocketAddr, Process) {
    let mut last = String::new();
    for _ in 0..3 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut process = start(address.port());
        if process.ready(READY, || TcpStream::connect(address).is_ok()) {
            return (address, process);
        }
        last = process.log();
    }
    panic!("the registry does not start: {last}");
}
