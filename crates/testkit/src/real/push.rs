//! Putting an image into a registry, and asking a registry or mirror for something, as plainly as it can be done.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use ureq::{Agent, SendBody};

use super::image::{Blob, Image};

const LIMIT: Duration = Duration::from_secs(120);
/// The largest answer [`fetch`] keeps, in bytes.
const MOST: u64 = 64 << 20;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: u16,
    /// Names in lower case; several values are joined by `, `.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Fetched {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One request, redirects followed, within two minutes. `Err` when there is no whole answer.
pub fn fetch(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Fetched, String> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(|e| e.to_string())?;
    let mut response = agent().run(request).map_err(|e| format!("{method} {url}: {e}"))?;
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        named
            .entry(name.to_string())
            .and_modify(|v| *v = format!("{v}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    let mut body = Vec::new();
    let reader = response.body_mut().as_reader();
    reader.take(MOST).read_to_end(&mut body).map_err(|e| format!("{method} {url}: body: {e}"))?;
    Ok(Fetched { status: response.status().as_u16(), headers: named, body })
}

pub(crate) fn push(
    registry: SocketAddr,
    token: Option<&str>,
    repository: &str,
    tag: Option<&str>,
    image: &Image,
) -> Result<(), String> {
    let pusher = Pusher { root: format!("http://{registry}"), repository, token, agent: agent() };
    for blob in &image.blobs {
        pusher.blob(blob)?;
    }
    for document in &image.documents {
        pusher.manifest(&document.digest, &document.media_type, &document.bytes)?;
    }
    match (tag, image.root()) {
        (Some(tag), root) => pusher.manifest(tag, &root.media_type, &root.bytes),
        (None, _) => Ok(()),
    }
}

struct Pusher<'a> {
    root: String,
    repository: &'a str,
    token: Option<&'a str>,
    agent: Agent,
}

impl Pusher<'_> {
    /// POST, then one PUT with the whole (spec `end-4a`, `end-6`); nothing when it is there already.
    fn blob(&self, blob: &Blob) -> Result<(), String> {
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        if self.send("HEAD", &path, &[], SendBody::none())?.status == 200 {
            return Ok(());
        }
        let begun =
            self.send("POST", &format!("/v2/{}/blobs/uploads/", self.repository), &[], SendBody::none())?;
        let location = begun.header("location").filter(|_| begun.status == 202);
        let location = location.ok_or_else(|| format!("no upload: {begun:?}"))?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{joint}digest={}", blob.digest);
        let size = blob.size.to_string();
        let headers = [("content-length", size.as_str()), ("content-type", "application/octet-stream")];
        let mut reader = blob.reader();
        self.created(self.send("PUT", &target, &headers, SendBody::from_reader(&mut reader))?)
    }

    fn manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), String> {
        let path = format!("/v2/{}/manifests/{reference}", self.repository);
        let size = bytes.len().to_string();
        let headers = [("content-type", media_type), ("content-length", size.as_str())];
        self.created(self.send("PUT", &path, &headers, SendBody::from_reader(&mut &bytes[..]))?)
    }

    fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: SendBody,
    ) -> Result<Fetched, String> {
        let url = if target.starts_with('/') { format!("{}{target}", self.root) } else { target.to_owned() };
        let mut request = http::Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(|e| e.to_string())?;
        let mut response = self.agent.run(request).map_err(|e| format!("{method} {url}: {e}"))?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let headers = location.map(|l| ("location".to_owned(), l)).into_iter().collect();
        let mut body = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut body).map_err(|e| format!("{method} {url}: {e}"))?;
        Ok(Fetched { status: response.status().as_u16(), headers, body })
    }

    fn created(&self, answer: Fetched) -> Result<(), String> {
        match answer.status {
            201 => Ok(()),
            status => Err(format!("{status}: {}", String::from_utf8_lossy(&answer.body))),
        }
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).proxy(None);
    config.build().into()
}
