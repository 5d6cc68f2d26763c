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
    let trusted = |address: &IpAddr| config.trusted_proxies.iter().any(|network| network.contains(address));
    if !trusted(&peer) {
        return peer;
    }
    let mut leftmost = peer;
    let lines: Vec<&[u8]> =
        headers.get_all(X_FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
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
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::resolve::sample;

    #[test]
    fn t_rl5_the_right_most_untrusted_address_is_the_client() {
        let mut config = sample::config();
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:aa::/48".parse().unwrap()];
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            for name in ["cf-connecting-ip", "true-client-ip", "x-real-ip", "x-client-ip"] {
                headers.append(name, HeaderValue::from_static("203.0.113.99"));
            }
            headers.append("forwarded", HeaderValue::from_static("for=203.0.113.99"));
            client_address(&config, &headers, peer.parse().unwrap()).to_string()
        };
        for (peer, lines, expected) in [
            ("198.51.100.7", vec![], "198.51.100.7"),
            ("198.51.100.7", vec!["203.0.113.1"], "198.51.100.7"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.1", vec!["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", vec!["1.1.1.1, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
            ("10.0.0.1", vec!["1.1.1.1", "203.0.113.1", "10.0.0.2"], "203.0.113.1"),
            ("10.0.0.1", vec!["garbage, 203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", vec!["203.0.113.1, garbage"], "10.0.0.1"),
            ("10.0.0.1", vec!["203.0.113.1, garbage, 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", vec![""], "10.0.0.1"),
            ("10.0.0.1", vec!["203.0.113.1,"], "10.0.0.1"),
            ("10.0.0.1", vec!["203.0.113.1:4711"], "203.0.113.1"),
            ("10.0.0.1", vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", vec!["::ffff:203.0.113.1"], "203.0.113.1"),
            ("2001:db8:aa::1", vec!["2001:db8:bb::1, 2001:db8:aa::2"], "2001:db8:bb::1"),
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client(peer, &lines), expected, "{peer} {lines:?}");
        }
        let endless = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(client("10.0.0.1", &[&endless]), "10.0.0.2");
    }
}
