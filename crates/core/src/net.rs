//! Which addresses and host names the public internet knows.
//!
//! The guard against requests forged through a redirect or a realm: core judges literal hosts before anything is sent,
//! and a host's resolver judges every address that a name resolves to, and connects only to addresses it has judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

/// Whether a globally routed unicast address is meant: not loopback, private (RFC 1918, RFC 4193), link-local, shared
/// (RFC 6598), documentation, benchmarking, multicast, broadcast or reserved (RFC 6890), and no IPv6 form that embeds
/// such an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether the host of a URL may be public. Of a name only the spelling is judged: whoever resolves it must ask
/// [`is_public`] about every address.
pub fn may_be_public(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => is_public_v4(*address),
        Host::Ipv6(address) => is_public_v6(*address),
        Host::Domain(name) => is_public_name(name),
    }
}

/// Ports other than the web's own where a web server may well be: nothing below 1024, and none that is known to belong to
/// another service, whose protocol a request could be made to speak.
pub fn is_web_port(port: u16) -> bool {
    matches!(port, 80 | 443) || (port >= 1024 && SERVICE_PORTS.binary_search(&port).is_err())
}

/// Sorted. The ports above 1023 that the Fetch standard blocks, and those of databases, caches, queues, container runtimes
/// and cluster managers.
const SERVICE_PORTS: &[u16] = &[
    1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2377, 2379, 2380, 3306, 3389, 3659, 4045, 4190,
    4222, 5060, 5061, 5432, 5672, 5984, 6000, 6379, 6380, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 8300, 8301, 8500, 8600, 9042, 9092, 9200, 9300, 10080, 10250, 10255, 10256, 11211, 15672, 26379,
    27017, 27018, 27019,
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        // Protocol assignments, documentation, AS112, the 6to4 relays, AMT.
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 31 && c == 196)
        || (a == 192 && b == 52 && c == 193)
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 175 && c == 48)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        // Multicast, reserved, broadcast.
        || a >= 224
        // A cloud's metadata service that sits on a public number.
        || address == Ipv4Addr::new(168, 63, 129, 16);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    if let Some(inner) = embedded(&s) {
        return is_public_v4(inner);
    }
    // Only 2000::/3 is given out for global unicast; loopback, ULA, link-local, site-local and multicast lie outside.
    let global = s[0] & 0xe000 == 0x2000;
    // Protocol assignments, documentation (twice), AS112.
    let special = matches!(
        (s[0], s[1], s[2]),
        (0x2001, ..0x0200 | 0x0db8, _) | (0x3fff, ..0x1000, _) | (0x2620, 0x004f, 0x8000)
    );
    global && !special
}

/// The IPv4 address that traffic to this IPv6 address ends at.
fn embedded(s: &[u16; 8]) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match *s {
        // Compatible (this includes `::` and `::1`), mapped, translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo (RFC 4380) hides the client's address; nothing public is served from there.
        [0x2001, 0, ..] => Some(Ipv4Addr::UNSPECIFIED),
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => v4(high, low),
        _ => None,
    }
}

/// Names that never leave a machine, a site or a cluster. A trailing dot is refused with everything else that is unusual.
fn is_public_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let Some((_, last)) = name.rsplit_once('.') else {
        return false;
    };
    let unusual = last.is_empty() || last.bytes().all(|b| b.is_ascii_digit());
    let local =
        ["localhost", "local", "internal", "intranet", "lan", "corp", "home", "arpa", "test", "invalid"];
    !unusual && !local.contains(&last)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn public(host: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        may_be_public(&url.host().unwrap())
    }

    #[test]
    fn t_ss1_literals_that_are_not_public() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "017700000001",
            "0.0.0.0",
            "0",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[fc00::1]",
            "[fd00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[2001::1]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::1]",
            "[100::1]",
            "[3fff::1]",
            "[5f00::1]",
            "[4000::1]",
            "[2001:20::1]",
            "[2606:4700::5efe:7f00:1]",
            "[::ffff:0:127.0.0.1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "redis",
            "metadata.google.internal",
            "registry.default.svc.cluster.local",
            "example.com.",
            "printer.lan",
            "1.0.0.127.in-addr.arpa",
        ] {
            assert!(!public(host), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_public() {
        for host in [
            "registry-1.docker.io",
            "ghcr.io",
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "[2606:4700::1111]",
            "[2001:4860:4860::8888]",
            "[::ffff:1.1.1.1]",
            "[64:ff9b::101:101]",
            "[2002:101:101::1]",
            "xn--bcher-kva.example.com",
            "localhost.example.com",
        ] {
            assert!(public(host), "{host}");
        }
    }

    #[test]
    fn t_ss1_ports_of_other_services() {
        assert!(SERVICE_PORTS.is_sorted());
        for port in
            [1, 21, 22, 23, 25, 110, 445, 1023, 2375, 2379, 3306, 5432, 6379, 9200, 10250, 11211, 27017]
        {
            assert!(!is_web_port(port), "{port}");
        }
        for port in [80, 443, 1024, 5000, 8080, 8443, 9000, 65535] {
            assert!(is_web_port(port), "{port}");
        }
    }

    proptest::proptest! {
        /// Whatever form an IPv4 address is dressed in, it is judged as itself.
        #[test]
        fn embedding_hides_nothing(bits: u32) {
            let [a, b, c, d] = bits.to_be_bytes();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let v4 = is_public_v4(Ipv4Addr::from(bits));
            for v6 in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                proptest::prop_assert_eq!(is_public_v6(v6), v4, "{}", v6);
            }
        }
    }
}
