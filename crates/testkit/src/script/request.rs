use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A request as it arrived at a scripted upstream.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    pub path: String,
    /// Without the question mark; empty if there was none.
    pub query: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub peer: SocketAddr,
    pub at: Instant,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Request {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Bytes of the answer's body that were handed to the kernel so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Every header that could carry a credential.
    pub fn credentials(&self) -> Vec<(String, String)> {
        const NAMES: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-registry-auth"];
        self.headers.iter().filter(|(name, _)| NAMES.contains(&name.as_str())).cloned().collect()
    }

    /// The first value of a query parameter, percent-decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        self.query_params(name).into_iter().next()
    }

    /// All values of a query parameter, percent-decoded.
    pub fn query_params(&self, name: &str) -> Vec<String> {
        form_values(&self.query, name)
    }

    /// All values of a field of a form body, percent-decoded.
    pub fn form_params(&self, name: &str) -> Vec<String> {
        form_values(&String::from_utf8_lossy(&self.body), name)
    }

    /// First and (inclusive) last byte of a `Range: bytes=a-[b]` header.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    }

    /// `<repository>` of `/v2/<repository>/{manifests,blobs,tags,referrers}/…`.
    pub fn repository(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("/v2/")?;
        let end = ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
            .iter()
            .filter_map(|part| rest.rfind(part))
            .max()?;
        Some(&rest[..end])
    }
}

fn form_values(text: &str, name: &str) -> Vec<String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| decode(key) == name)
        .map(|(_, value)| decode(value))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
