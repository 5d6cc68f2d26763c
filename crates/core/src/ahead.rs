//! What a client will ask for after the manifest that it has just been given, so that it is on its way by then.

use entrepot_oci::Digest;
use entrepot_oci::manifest::{Descriptor, Manifest};

/// How clients that pull an image name themselves when they GET its manifest. Those that only look, compare or copy are not
/// among them: Renovate, `crane digest`, `skopeo inspect`, browsers.
const PULLERS: [&str; 5] = ["docker/", "containerd/", "cri-o/", "buildkit/", "containers/"];
/// Blobs of one image that are fetched ahead at most; no image that runs has as many.
const MAX_BLOBS: usize = 256;

/// A client that pulls whatever manifest it GETs, by the name it gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Puller(String);

impl Puller {
    /// Judges a `User-Agent`: `docker/24.0.7 go/go1.20.10 … os/linux arch/amd64 …`, `containerd/1.7.2`.
    pub fn of(user_agent: &str) -> Option<Puller> {
        PULLERS.iter().any(|name| user_agent.starts_with(name)).then(|| Puller(user_agent.to_owned()))
    }

    /// The member of an index that it will ask for, where that is certain: several variants are told apart by what it does
    /// not say.
    pub fn child(&self, index: &Manifest) -> Option<Digest> {
        let said = |key: &str| self.0.split(' ').find_map(|word| word.strip_prefix(key));
        let (os, architecture) = (said("os/")?, said("arch/")?);
        let runs = |child: &&Descriptor| {
            child.media_type.is_manifest()
                && child
                    .platform
                    .as_deref()
                    .is_some_and(|its| its.os == os && its.architecture == architecture)
        };
        let mut children = index.children.iter().filter(runs);
        children.next().filter(|_| children.next().is_none()).map(|child| child.digest)
    }
}

/// The blobs of an image in the order in which clients ask for them, each once. What lies elsewhere is not ours to fetch.
pub fn blobs(image: &Manifest) -> Vec<Digest> {
    let mut blobs = Vec::new();
    for described in image.config.iter().chain(&image.layers).filter(|described| described.urls.is_empty()) {
        if blobs.len() < MAX_BLOBS && !blobs.contains(&described.digest) {
            blobs.push(described.digest);
        }
    }
    blobs
}

#[cfg(test)]
mod tests {
    use entrepot_oci::media;

    use super::*;

    const DOCKER: &str = "docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0 os/linux arch/amd64 \
                          UpstreamClient(Docker-Client/20.10.24+dfsg1 \\(linux\\))";

    fn digest(n: usize) -> String {
        Digest::sha256(n.to_string().as_bytes()).to_string()
    }

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Manifest {
        let members: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(n, (os, architecture, variant))| {
                let variant = variant.map(|v| format!(r#","variant":"{v}""#)).unwrap_or_default();
                format!(
                    r#"{{"mediaType":"{}","digest":"{}","size":7,"platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#,
                    media::OCI_MANIFEST,
                    digest(n)
                )
            })
            .collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
            media::OCI_INDEX,
            members.join(",")
        );
        Manifest::parse(text.as_bytes(), None).unwrap()
    }

    #[test]
    fn those_that_pull_and_those_that_look() {
        for pulls in [
            DOCKER,
            "containerd/1.6.20~ds1",
            "containerd/v2.1.0",
            "buildkit/v0.12.5",
            "cri-o/1.24.1 go/go1.18.2 os/linux arch/amd64",
            "containers/5.23.1 (github.com/containers/image)",
        ] {
            assert!(Puller::of(pulls).is_some(), "{pulls}");
        }
        for looks in [
            "",
            "Docker-Client/24.0 (linux)",
            "renovate/37.0",
            "crane/0.19 go-containerregistry",
            "skopeo/1.9.3",
            "curl/8.0",
            "Mozilla/5.0 docker/1",
            "regclient/regctl",
            "entrepot/0.1.0",
        ] {
            assert_eq!(Puller::of(looks), None, "{looks}");
        }
    }

    #[test]
    fn the_one_child_for_the_platform_that_the_client_names() {
        let docker = Puller::of(DOCKER).unwrap();
        let some = [
            ("linux", "arm64", Some("v8")),
            ("linux", "amd64", None),
            ("windows", "amd64", None),
            ("unknown", "unknown", None),
        ];
        assert_eq!(docker.child(&index(&some)).unwrap().to_string(), digest(1));
        assert_eq!(docker.child(&index(&some[2..])), None);
        assert_eq!(docker.child(&index(&[("linux", "amd64", None), ("linux", "amd64", Some("v3"))])), None);
        assert_eq!(Puller::of("containerd/1.7.0").unwrap().child(&index(&some)), None, "it does not say");
    }

    #[test]
    fn blobs_once_and_none_that_lie_elsewhere() {
        let described = |n: usize, more: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":7{more}}}"#,
                digest(n)
            )
        };
        let layers = [
            described(2, ""),
            described(1, ""),
            described(2, ""),
            described(3, r#","urls":["https://x.example/y"]"#),
        ];
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
            media::OCI_MANIFEST,
            described(0, "").replace("layer.v1.tar", "config.v1+json"),
            layers.join(",")
        );
        let image = Manifest::parse(text.as_bytes(), None).unwrap();
        let found: Vec<_> = blobs(&image).iter().map(Digest::to_string).collect();
        assert_eq!(found, [digest(0), digest(2), digest(1)]);
    }
}
