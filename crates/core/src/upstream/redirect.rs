//! Where a redirect may lead.

use http::{HeaderMap, header};
use url::Url;

use super::origin;
use crate::config::Source;
use crate::net;

/// Redirects followed in a row.
pub(super) const MAX_HOPS: u32 = 5;
const MAX_LOCATION: usize = 8 * 1024;

/// Why a redirect is not followed.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The end of a sentence.
    pub(super) why: &'static str,
    /// Where it leads, without what may be secret; for the operator alone.
    pub(super) to: Option<String>,
}

/// The target of a redirect that `from` has answered, or why it is not followed. The registry's own origins are always
/// fine; others must be declared in `blob_hosts` where that is set, and public where it is not.
pub(super) fn target(source: &Source, from: &Url, headers: &HeaderMap) -> Result<Url, Refusal> {
    let to = read(from, headers).map_err(|why| Refusal { why, to: None })?;
    judge(source, &to).map_err(|why| Refusal { why, to: Some(origin::redacted(&to)) })?;
    Ok(to)
}

fn read(from: &Url, headers: &HeaderMap) -> Result<Url, &'static str> {
    let mut locations = headers.get_all(header::LOCATION).iter();
    let (Some(location), None) = (locations.next(), locations.next()) else {
        return Err("a redirect without a single Location");
    };
    let text = location.to_str().map_err(|_| "a redirect whose Location is not text")?;
    if text.len() > MAX_LOCATION {
        return Err("a redirect whose Location is too long");
    }
    let mut to = from.join(text).map_err(|_| "a redirect whose Location is not a URL")?;
    to.set_fragment(None);
    Ok(to)
}

fn judge(source: &Source, to: &Url) -> Result<(), &'static str> {
    match to.scheme() {
        "https" => {}
        "http" if source.insecure => {}
        "http" => return Err("a redirect to plain http"),
        _ => return Err("a redirect to something that is not http"),
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err("a redirect with a user name in it");
    }
    let Some(host) = to.host() else {
        return Err("a redirect without a host");
    };
    if origin::is_registry(source, to) {
        return Ok(());
    }
    if let Some(hosts) = &source.blob_hosts {
        return match origin::declared(hosts, to) {
            true => Ok(()),
            false => Err("a redirect to a host that `blob_hosts` does not name"),
        };
    }
    let open = source.allow_private || (net::may_be_public(&host) && to.port().is_none_or(net::is_web_port));
    if open { Ok(()) } else { Err("a redirect to an address or port that is not public") }
}
