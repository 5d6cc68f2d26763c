//! Requests in the same words, which all machines of a cluster send that pull one image: what one of them was answered a moment
//! ago is the answer to all of them, and need not be made again.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::access;
use crate::admit::client_address;
use crate::config::Config;

/// For how long an answer is given again at most. That an object is gone may be seen, and that it is used be noted, so much later.
pub const WHILE: Duration = Duration::from_secs(1);

/// Bytes of a question; what is longer is hardly asked twice.
const MAX_WORDS: usize = 2048;
/// Bytes that most have room in.
const WORDS: usize = 512;

/// A request for a manifest, in so far as the answer to it depends on the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    words: Vec<u8>,
    /// Who asks. The answer does not depend on it beyond what `words` say.
    pub address: IpAddr,
}

impl Question {
    /// `None` where the answer to the same words may be another one, or they had better not be kept: where a limit is
    /// counted, where there is a credential, and where the address may hold one.
    pub fn of(config: &Config, head: &Parts, peer: IpAddr) -> Option<Question> {
        let Parts { method, uri, version, headers, .. } = head;
        let (before, _) = uri.path().rsplit_once('/')?;
        let pulls = matches!(*method, Method::GET | Method::HEAD) && before.ends_with("/manifests");
        if !pulls || headers.contains_key(AUTHORIZATION) || access::has_secrets(config) {
            return None;
        }
        let client = access::by_network(config, client_address(config, headers, peer));
        if config.rate_limit.is_some() && !client.is_known() {
            return None;
        }
        // All of them, not those that are read today. Nothing in a head holds a line break, so nothing is taken for another.
        let mut words = Vec::with_capacity(WORDS);
        words.extend_from_slice(if client.is_known() { b"known " } else { b"" });
        words.extend_from_slice(method.as_str().as_bytes());
        words.extend_from_slice(if *version < http::Version::HTTP_2 { b"\n1\n" } else { b"\n2\n" });
        for part in [uri.scheme_str(), uri.authority().map(|authority| authority.as_str())] {
            words.extend_from_slice(part.unwrap_or_default().as_bytes());
            words.push(b'\n');
        }
        words.extend_from_slice(uri.path_and_query().map_or("", |target| target.as_str()).as_bytes());
        for (name, value) in headers {
            for part in [b"\n", name.as_str().as_bytes(), b":", value.as_bytes()] {
                words.extend_from_slice(part);
            }
        }
        (words.len() <= MAX_WORDS).then_some(Question { words, address: client.address })
    }

    /// What makes it the same question.
    pub fn words(&self) -> &[u8] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::*;
    use crate::config::ClientToken;
    use crate::resolve::sample;

    const TAG: &str = "/v2/team/app/manifests/v1";

    fn unlimited() -> Config {
        Config { rate_limit: None, ..sample::config() }
    }

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).header("host", "mirror.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn asked(config: &Config, head: &Parts) -> Option<Question> {
        Question::of(config, head, "192.0.2.1".parse().unwrap())
    }

    #[test]
    fn every_word_counts() {
        let config = unlimited();
        let digest =
            "/v2/team/app/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut http2 = head("GET", TAG, &[]);
        http2.version = Version::HTTP_2;
        let heads = [
            head("GET", TAG, &[]),
            head("HEAD", TAG, &[]),
            head("GET", digest, &[]),
            head("GET", "/ghcr/v2/team/app/manifests/v1", &[]),
            head("GET", "/v2/team/app/manifests/v1?ns=docker.io", &[]),
            head("GET", "/v2/team/app/manifests/v1?ns=quay.io", &[]),
            head("GET", "https://quay.io/v2/team/app/manifests/v1", &[]),
            head("GET", "http://quay.io/v2/team/app/manifests/v1", &[]),
            http2,
            head("GET", TAG, &[("host", "quay.io")]),
            head("GET", TAG, &[("accept", "*/*")]),
            head("GET", TAG, &[("accept", "*/*"), ("accept", "text/plain")]),
            head("GET", TAG, &[("user-agent", "*/*")]),
            head("GET", TAG, &[("x-new", "*/*")]),
        ];
        let questions: Vec<_> = heads.iter().map(|head| asked(&config, head).unwrap()).collect();
        for (index, question) in questions.iter().enumerate() {
            assert!(questions[..index].iter().all(|other| other.words() != question.words()), "{question:?}");
            assert_eq!(asked(&config, &heads[index]).as_ref(), Some(question));
        }
    }

    #[test]
    fn what_is_known_of_the_client_counts_and_not_its_address() {
        let mut config = unlimited();
        config.access.networks = vec!["198.51.100.0/24".parse().unwrap()];
        let from =
            |address: &str| Question::of(&config, &head("GET", TAG, &[]), address.parse().unwrap()).unwrap();
        let (one, other, known) = (from("192.0.2.1"), from("203.0.113.9"), from("198.51.100.7"));
        assert_eq!(one.words(), other.words());
        assert_ne!(one.words(), known.words());
        assert_eq!(other.address, "203.0.113.9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_counted_secret_or_no_manifest_is_no_question() {
        let free = unlimited();
        for (method, uri) in [
            ("PUT", TAG),
            ("POST", TAG),
            ("GET", "/v2/"),
            ("GET", "/v2/team/app/tags/list"),
            ("GET", "/v2/team/manifests/blobs/v1"),
            ("GET", "/metrics"),
        ] {
            assert_eq!(asked(&free, &head(method, uri, &[])), None, "{method} {uri}");
        }
        let get = head("GET", TAG, &[]);
        assert!(asked(&free, &get).is_some());
        assert_eq!(asked(&free, &head("GET", TAG, &[("authorization", "Basic eA==")])), None);
        let long = "x".repeat(MAX_WORDS);
        assert_eq!(asked(&free, &head("GET", TAG, &[("x-long", &long)])), None);
        let mut limited = sample::config();
        assert_eq!(asked(&limited, &get), None, "each is charged");
        limited.access.networks = vec!["192.0.2.0/24".parse().unwrap()];
        assert!(asked(&limited, &get).is_some(), "known clients are not limited");
        let client = ClientToken { name: "ci".into(), sha256: [0; 32], forwards: false };
        let secrets: [fn(&mut Config) -> &mut Vec<ClientToken>; 2] =
            [|config| &mut config.access.secret_hosts, |config| &mut config.access.secret_paths];
        for secrets in secrets {
            let mut config = unlimited();
            secrets(&mut config).push(client.clone());
            assert_eq!(asked(&config, &get), None, "its address may hold a secret");
        }
    }
}
