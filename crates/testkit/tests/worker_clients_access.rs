//! A closed Worker, and which client can show it what: a token, a secret label of the host, or a secret path.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::edge::Edge;
use entrepot_testkit::need;
use entrepot_testkit::real::{
    Containerd, Dockerd, Door, Image, Names, Podman, Registry, Skopeo, edge_config, fetch,
};
use entrepot_testkit::script::sha256;

const TOKEN: &str = "canary-token-0123456789";
const LABEL: &str = "canary-label-0123456789";
const PATH: &str = "canary-path-0123456789";
const REPOSITORY: &str = "library/entrepot-closed";

/// A Worker that serves nobody without one of the three, under the name `mirror.test`, or under its address.
struct Closed {
    image: Image,
    door: Door,
    edge: Edge,
    /// Behind it, and open to all.
    _registry: Registry,
}

impl Closed {
    fn named() -> Closed {
        Closed::start(Some("http://mirror.test"))
    }

    fn unnamed() -> Closed {
        Closed::start(None)
    }

    fn start(endpoint: Option<&str>) -> Closed {
        let registry = Registry::with_tokens();
        let image = Image::multi_arch("closed");
        registry.push(REPOSITORY, Some("1"), &image);
        let access = "{ tokens_env: T, secret_hosts_env: H, secret_paths_env: P }";
        let mut config = edge_config(&registry, access);
        if let Some(endpoint) = endpoint {
            config = config.replace("__ENDPOINT__", endpoint);
        } else {
            // A label needs a name to stand before.
            config = config.replace(" secret_hosts_env: H,", "");
        }
        let line = |client: &str, secret: &str| {
            format!("{client}:{}", sha256(secret.as_bytes()).trim_start_matches("sha256:"))
        };
        let edge = Edge::builder(config)
            .secret("T", line("by-token", TOKEN))
            .secret("H", line("by-label", LABEL))
            .secret("P", line("by-path", PATH))
            .start();
        Closed { image, door: Door::before(edge.address()), edge, _registry: registry }
    }

    /// `<label>.mirror.test:<port>`
    fn labelled(&self) -> String {
        format!("{LABEL}.mirror.test:{}", self.door.port())
    }

    /// What the Worker says of a client: it knew who asked for every object, and no secret stands in its log.
    fn knew(&self, client: &str) {
        let log = self.edge.log();
        let served = |line: &&str| line.contains("/manifests/") || line.contains("/blobs/");
        let lines: Vec<&str> = log.lines().filter(served).collect();
        assert!(!lines.is_empty(), "nothing was asked for:\n{log}");
        for line in lines.iter().filter(|line| line.contains("\"status\":200")) {
            assert!(line.contains(&format!("\"client\":\"{client}\"")), "{line}");
        }
        self.tells_no_secret();
    }

    fn tells_no_secret(&self) {
        let log = self.edge.log();
        for secret in [TOKEN, LABEL, PATH] {
            assert!(!log.contains(secret), "{secret} stands in the log:\n{log}");
        }
    }
}

fn names() -> Names {
    Names::new(&["mirror.test", &format!("{LABEL}.mirror.test"), "another-label-0123456789.mirror.test"])
}

#[test]
fn docker_by_a_secret_label() {
    need!("docker_by_a_secret_label", "node", "docker-registry", "openssl", "dockerd", "docker", "unshare");
    let closed = Closed::named();
    let names = names();
    let short = format!("{}:1", REPOSITORY.trim_start_matches("library/"));
    let docker = |host: &str| {
        let mirror = format!("http://{host}:{}", closed.door.port());
        Dockerd::launch(Some(&names), &[&mirror]).expect("dockerd starts")
    };
    let pulled = docker(&format!("{LABEL}.mirror.test")).pull(&short).expect("as a registry mirror");
    assert_eq!(pulled.digest, closed.image.digest());
    // BuildKit asks the daemon's mirrors, too.
    let built = docker(&format!("{LABEL}.mirror.test")).build(&format!("FROM {short}\n"));
    assert_eq!(built.expect("a build").layers, closed.image.diff_ids[0]);
    let reference = format!("{}/docker.io/{REPOSITORY}:1", closed.labelled());
    let pulled = docker("mirror.test").pull(&reference).expect("by the mirror's own name");
    assert_eq!(pulled.digest, closed.image.digest());
    closed.knew("by-label");
    for host in ["mirror.test", "another-label-0123456789.mirror.test"] {
        docker(host).pull(&short).expect_err(host);
    }
}

/// A password that dockerd has for a mirror it does not send there; a path it does not take. What is pulled from the mirror by
/// name may be had with a token.
#[test]
fn docker_by_a_token() {
    need!("docker_by_a_token", "node", "docker-registry", "openssl", "dockerd", "docker");
    let closed = Closed::unnamed();
    let docker = Dockerd::start(&[&closed.door.url()]);
    let reference = format!("{}/docker.io/{REPOSITORY}:1", closed.door.address());
    docker.pull(&reference).expect_err("nobody knows it yet");
    docker.login(&closed.door.address(), "laptop", "wrong").expect_err("a wrong token");
    docker.login(&closed.door.address(), "laptop", TOKEN).expect("the token opens");
    let refused = docker.pull(&format!("{}:1", REPOSITORY.trim_start_matches("library/")));
    refused.expect_err("a registry mirror is sent no credentials");
    let pulled = docker.pull(&reference).expect("a pull by name");
    assert_eq!(pulled.digest, closed.image.digest());
    closed.knew("by-token");
    let refused = Dockerd::launch(None, &[&format!("{}/{PATH}", closed.door.url())]);
    let log = refused.expect_err("a registry mirror has no path");
    assert!(log.contains("invalid mirror"), "{log}");
    let by_path = format!("{}/{PATH}/docker.io/{REPOSITORY}:1", closed.door.address());
    docker.pull(&by_path).expect_err("a path is part of the repository's name");
    closed.tells_no_secret();
}

#[test]
fn containerd_by_label_path_and_token() {
    let test = "containerd_by_label_path_and_token";
    need!(test, "node", "docker-registry", "openssl", "containerd", "ctr", "unshare");
    let containerd = Containerd::knowing(names());
    let reference = format!("docker.io/{REPOSITORY}:1");
    let pull = |closed: &Closed, user: Option<&str>| {
        let (digest, content) = containerd.pull_as(user, &reference, true)?;
        assert_eq!((digest.as_str(), content), (closed.image.digest(), closed.image.digests()));
        containerd.remove(&reference);
        Ok::<_, String>(())
    };
    let closed = Closed::named();
    containerd.mirror("docker.io", &format!("http://{}", closed.labelled()));
    pull(&closed, None).expect("by a label");
    closed.knew("by-label");
    containerd.mirror("docker.io", &closed.door.url());
    pull(&closed, None).expect_err("as nobody");

    let closed = Closed::unnamed();
    containerd.mirror("docker.io", &format!("{}/{PATH}", closed.door.url()));
    pull(&closed, None).expect("by a path");
    closed.knew("by-path");
    containerd.mirror("docker.io", &format!("{}/x{PATH}", closed.door.url()));
    pull(&closed, None).expect_err("by another path");

    let closed = Closed::unnamed();
    let basic = format!("Basic {}", STANDARD.encode(format!("laptop:{TOKEN}")));
    containerd.mirror_with("docker.io", &closed.door.url(), Some(&basic));
    pull(&closed, None).expect("by a header");
    closed.knew("by-token");
    containerd.mirror("docker.io", &closed.door.url());
    pull(&closed, Some(&format!("laptop:{TOKEN}"))).expect("by a token of our own");
    closed.knew("by-token");
}

#[test]
fn podman_by_label_and_token() {
    need!("podman_by_label_and_token", "node", "docker-registry", "openssl", "podman", "unshare");
    let reference = format!("docker.io/{REPOSITORY}:1");
    let pull = |podman: &Podman, closed: &Closed, location: &str| {
        podman.mirror("docker.io", location);
        let (digests, _) = podman.pull(&reference)?;
        assert!(digests.contains(closed.image.digest()), "{digests:?}");
        podman.remove(&reference);
        Ok::<_, String>(())
    };
    let closed = Closed::named();
    let podman = Podman::knowing(names());
    pull(&podman, &closed, &closed.labelled()).expect("by a label");
    closed.knew("by-label");
    pull(&podman, &closed, &format!("mirror.test:{}", closed.door.port())).expect_err("as nobody");

    let closed = Closed::unnamed();
    let podman = Podman::new();
    let address = closed.door.address();
    podman.login(&address, "laptop", "wrong").expect_err("a wrong token");
    pull(&podman, &closed, &address).expect_err("as nobody");
    podman.login(&address, "laptop", TOKEN).expect("the token opens");
    pull(&podman, &closed, &address).expect("by a token");
    closed.knew("by-token");
    let podman = Podman::new();
    pull(&podman, &closed, &format!("{address}/{PATH}"))
        .expect_err("a path is part of the repository's name");
    closed.tells_no_secret();
}

#[test]
fn skopeo_by_label_and_token() {
    need!("skopeo_by_label_and_token", "node", "docker-registry", "openssl", "skopeo", "unshare");
    let names = names();
    let closed = Closed::named();
    let copied = Skopeo::copy_as(Some(&names), None, &format!("{}/{REPOSITORY}:1", closed.labelled()));
    assert_eq!(copied.expect("by a label")["manifest.json"], closed.image.digest());
    closed.knew("by-label");

    let closed = Closed::unnamed();
    let reference = format!("{}/{REPOSITORY}:1", closed.door.address());
    let copied = Skopeo::copy_as(None, Some(&format!("laptop:{TOKEN}")), &reference);
    assert_eq!(copied.expect("by a token")["manifest.json"], closed.image.digest());
    closed.knew("by-token");
    Skopeo::copy_as(None, Some("laptop:wrong"), &reference).expect_err("a wrong token");
    Skopeo::copy(&reference).expect_err("as nobody");
    let by_path = format!("{}/{PATH}/{REPOSITORY}:1", closed.door.address());
    Skopeo::copy(&by_path).expect_err("a path is part of the repository's name");
    closed.tells_no_secret();
    // The secret is right, where it belongs.
    let url = format!("{}/{PATH}/v2/{REPOSITORY}/manifests/1", closed.door.url());
    assert_eq!(fetch("GET", &url, &[]).expect("an answer").status, 200);
}
