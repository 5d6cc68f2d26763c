//! What is known of the public registries: their other names, where they issue tokens, and where they keep blobs.
//!
//! Token hosts are the realms that the registries' own challenges name. Blob hosts are given only where the operator
//! of the registry documents them for firewalls; where it does not, redirects may lead to any public host, because a
//! guessed list would break pulls whenever the operator moves.

use crate::pattern::HostPattern;

/// One registry, or one family of them.
#[derive(Debug)]
pub struct Registry {
    /// Hosts of its URL; `*`, at the start and once more, stands for one or more whole labels.
    pub hosts: &'static [&'static str],
    /// The label that selects it under the endpoint's host; families have none.
    pub label: Option<&'static str>,
    /// Its names in images, when the host of its URL is not the only one.
    pub names: &'static [&'static str],
    /// Where its tokens are issued, besides the registry itself. `{region}` is the second label of its host.
    pub token_hosts: &'static [&'static str],
    /// Where its redirects lead, besides the registry itself; `None`: not known.
    pub blob_hosts: Option<&'static [&'static str]>,
}

/// The names under which images of Docker Hub are known.
pub const HUB_NAMES: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];

pub static REGISTRIES: &[Registry] = &[
    // Blobs: Docker Desktop's allow list. In AWS, the bucket of the region is named directly.
    Registry {
        hosts: &["registry-1.docker.io", "index.docker.io", "docker.io", "registry.hub.docker.com"],
        label: Some("docker"),
        names: HUB_NAMES,
        token_hosts: &["auth.docker.io"],
        blob_hosts: Some(&["*.docker.io", "*.docker.com", "*.r2.cloudflarestorage.com", "*.amazonaws.com"]),
    },
    Registry {
        hosts: &["ghcr.io"],
        label: Some("ghcr"),
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.githubusercontent.com"]),
    },
    // Blobs: Red Hat's firewall article names cdn.quay.io and its numbered siblings.
    Registry {
        hosts: &["quay.io"],
        label: Some("quay"),
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.quay.io"]),
    },
    Registry { hosts: &["gcr.io"], label: Some("gcr"), names: &[], token_hosts: &[], blob_hosts: None },
    Registry {
        hosts: &["k8s.gcr.io"],
        label: Some("k8s-gcr"),
        names: &[],
        token_hosts: &[],
        blob_hosts: None,
    },
    Registry {
        hosts: &["*.gcr.io", "*.pkg.dev"],
        label: None,
        names: &[],
        token_hosts: &[],
        blob_hosts: None,
    },
    // Its maintainers say that the hosts behind it change without notice and are not to be listed.
    Registry {
        hosts: &["registry.k8s.io"],
        label: Some("k8s"),
        names: &[],
        token_hosts: &[],
        blob_hosts: None,
    },
    // Blobs: Microsoft's client firewall rules.
    Registry {
        hosts: &["mcr.microsoft.com"],
        label: Some("mcr"),
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.data.mcr.microsoft.com"]),
    },
    Registry {
        hosts: &["public.ecr.aws"],
        label: Some("ecr"),
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.cloudfront.net", "*.amazonaws.com"]),
    },
    // Basic authentication, no token. Blobs: prod-<region>-starport-layer-bucket.s3.<region>.amazonaws.com.
    Registry {
        hosts: &["*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn"],
        label: None,
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.amazonaws.com", "*.amazonaws.com.cn"]),
    },
    // Blobs: dedicated data endpoints, or the storage account.
    Registry {
        hosts: &["*.azurecr.io"],
        label: None,
        names: &[],
        token_hosts: &[],
        blob_hosts: Some(&["*.data.azurecr.io", "*.blob.core.windows.net"]),
    },
    // `registry[-intl].<region>.aliyuncs.com` and `<instance>-registry.<region>.cr.aliyuncs.com`. Never a wildcard for
    // tokens: any customer's bucket is `<name>.oss-<region>.aliyuncs.com`.
    Registry {
        hosts: &["*.aliyuncs.com"],
        label: None,
        names: &[],
        token_hosts: &[
            "dockerauth.{region}.aliyuncs.com",
            "dockerauth-ee.{region}.aliyuncs.com",
            "dockerauth-{region}.aliyuncs.com",
        ],
        blob_hosts: Some(&["*.aliyuncs.com"]),
    },
    Registry {
        hosts: &["registry.gitlab.com"],
        label: Some("gitlab"),
        names: &[],
        token_hosts: &["gitlab.com"],
        blob_hosts: None,
    },
    Registry {
        hosts: &["docker.cloudsmith.io"],
        label: Some("cloudsmith"),
        names: &[],
        token_hosts: &[],
        blob_hosts: None,
    },
];

/// The registry at this host (any case, without port), if it is a known one. Exact hosts come before families.
pub fn known(host: &str) -> Option<&'static Registry> {
    let host = host.to_ascii_lowercase();
    let exact = |registry: &&Registry| registry.hosts.contains(&host.as_str());
    let family = |registry: &&Registry| registry.hosts.iter().any(|pattern| in_family(&host, pattern));
    REGISTRIES.iter().find(exact).or_else(|| REGISTRIES.iter().find(family))
}

impl Registry {
    /// Where credentials may go besides the registry itself, which is at `host`.
    pub fn token_patterns(&self, host: &str) -> Vec<HostPattern> {
        let region = Registry::region(host);
        let named = self.token_hosts.iter().filter_map(|pattern| match pattern.contains("{region}") {
            true => region.and_then(|region| pattern.replace("{region}", region).parse().ok()),
            false => pattern.parse().ok(),
        });
        named.collect()
    }

    /// Where its redirects lead; `None` when that is not known.
    pub fn blob_patterns(&self) -> Option<Vec<HostPattern>> {
        Some(self.blob_hosts?.iter().filter_map(|pattern| pattern.parse().ok()).collect())
    }

    /// The second label of a host: `cn-hangzhou` in `registry.cn-hangzhou.aliyuncs.com`.
    fn region(host: &str) -> Option<&str> {
        host.split('.').nth(1).filter(|label| label.contains('-'))
    }
}

fn in_family(host: &str, pattern: &str) -> bool {
    let Some(rest) = pattern.strip_prefix('*') else {
        return false;
    };
    match rest.split_once('*') {
        None => host.strip_suffix(rest).is_some_and(|label| !label.is_empty()),
        Some((middle, suffix)) => {
            let labels = host.strip_suffix(suffix).and_then(|front| front.split_once(middle));
            labels.is_some_and(|(first, second)| !first.is_empty() && !second.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_table_is_one() {
        for registry in REGISTRIES {
            let blobs = registry.blob_hosts.unwrap_or_default();
            assert_eq!(registry.blob_patterns().unwrap_or_default().len(), blobs.len(), "{registry:?}");
            let tokens = registry.token_patterns("registry.cn-hangzhou.aliyuncs.com");
            assert_eq!(tokens.len(), registry.token_hosts.len(), "{registry:?}");
        }
    }

    #[test]
    fn hosts_are_known_exactly_or_by_whole_labels() {
        assert_eq!(known("registry-1.docker.io").and_then(|r| r.label), Some("docker"));
        assert_eq!(known("GHCR.io").and_then(|r| r.label), Some("ghcr"));
        assert_eq!(known("k8s.gcr.io").and_then(|r| r.label), Some("k8s-gcr"));
        assert!(known("us.gcr.io").is_some_and(|r| r.label.is_none()));
        assert!(known("europe-docker.pkg.dev").is_some());
        assert!(known("123456789012.dkr.ecr.eu-west-1.amazonaws.com").is_some());
        assert!(known("my-balancer.eu-west-1.elb.amazonaws.com").is_none());
        for stranger in ["notghcr.io", "ghcr.io.evil.example", "evilpkg.dev", ".azurecr.io.", "pkg.dev", ""] {
            assert!(known(stranger).is_none(), "{stranger}");
        }
    }

    #[test]
    fn alibaba_tokens_come_from_the_region_of_the_registry() {
        let host = "demo-registry.cn-hangzhou.cr.aliyuncs.com";
        let hosts = known(host).map(|r| r.token_patterns(host)).unwrap_or_default();
        assert!(hosts.iter().any(|p| p.matches("dockerauth-ee.cn-hangzhou.aliyuncs.com", 443)));
        assert!(hosts.iter().all(|p| !p.matches("evil.oss-cn-hangzhou.aliyuncs.com", 443)));
    }
}
