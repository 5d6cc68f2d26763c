//! Whose request a proxy forwards.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::Config;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// No chain of proxies is longer; what stands further left is the client's own invention.
const MAX_HOPS: usize = 32;

/// The client's address: the peer's own, unless it is a trusted proxy; then the right-most address in `X-Forwarded-For`
/// that is not one (T-RL5). Each proxy adds on the right, so whatever a client writes itself stands left of that. Text
/// that is no address, where one is needed, leaves the peer. No other header is believed.
pub fn client_address(config: &Config, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    let trusted = |address: &IpAddr| {
        config
            .trusted_proxies
            .iter()
            .any(|network| network.contains(address))
    };
    if !trusted(&peer) {
        return peer;
    }
    let mut leftmost = peer;
    let lines: Vec<&[u8]> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = parse(hop) else { return peer };
        if !trusted(&address) {
            return address;
        }
        leftmost = address;
    }
    leftmost
}

/// An address, perhaps with a port, as some proxies write it.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()?;
    Some(address.to_canonical())
}
