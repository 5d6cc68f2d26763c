//! How a mirror of ours at the edge tells the one at home for whom it asks: a header, signed with what both know.
//!
//! `Entrepot-Client: for=192.0.2.7;time=1795358179;mac=<hex>`. The MAC is HMAC-SHA256 over method, path, `ns`, address and
//! time, one a line; its key is the SHA-256 of the edge's password, which is what home keeps of it.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method};
use sha2::Sha256;

use crate::time::Wall;

pub(crate) const ENTREPOT_CLIENT: HeaderName = HeaderName::from_static("entrepot-client");

/// How far the two clocks, and the time on the way, may lie apart.
const TOLERANCE_SECONDS: u64 = 300;

/// Longer than any that we write.
const MAX_VALUE: usize = 256;

/// The request that the header belongs to, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) method: &'a Method,
    /// As it is sent, without the query.
    pub(crate) path: &'a str,
    /// Empty: none is sent.
    pub(crate) ns: &'a str,
}

/// The header's value.
pub(crate) fn told(key: &[u8; 32], about: &About<'_>, client: IpAddr, now: Wall) -> Option<HeaderValue> {
    let client = client.to_canonical().to_string();
    let time = (now.0 / 1000).to_string();
    let mac: String = mac(key, about, &client, &time)
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("for={client};time={time};mac={mac}")).ok()
}

/// The address that `value` tells; `None` unless it was made with `key` for this very request, not long ago.
pub(crate) fn heard(key: &[u8; 32], about: &About<'_>, value: &HeaderValue, now: Wall) -> Option<IpAddr> {
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_VALUE)?;
    let (client, rest) = text.strip_prefix("for=")?.split_once(";time=")?;
    let (time, hex) = rest.split_once(";mac=")?;
    // Checked in constant time, before anything that it signs is looked at.
    mac(key, about, client, time).verify_slice(&bytes(hex)?).ok()?;
    let seconds: u64 = time.parse().ok()?;
    (seconds.abs_diff(now.0 / 1000) <= TOLERANCE_SECONDS).then_some(())?;
    client.parse().ok()
}

fn mac(key: &[u8; 32], about: &About<'_>, client: &str, time: &str) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length of key");
    let About { method, path, ns } = about;
    mac.update(format!("{method}\n{path}\n{ns}\n{client}\n{time}").as_bytes());
    mac
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(&pair[0])? * 16 + digit(&pair[1])?);
    (hex.len() == 64).then(|| hex.as_bytes().chunks_exact(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: Wall = Wall(1_795_358_179_500);
    const ABOUT: About<'_> = About { method: &Method::GET, path: "/v2/a/manifests/v1", ns: "docker.io" };

    fn address() -> IpAddr {
        "203.0.113.9".parse().unwrap()
    }

    #[test]
    fn what_is_told_is_heard_for_five_minutes() {
        let value = told(&KEY, &ABOUT, address(), NOW).unwrap();
        assert!(value.to_str().unwrap().starts_with("for=203.0.113.9;time=1795358179;mac="));
        for (shift, heard_there) in
            [(0, true), (300_000, true), (-300_000, true), (301_000, false), (-301_000, false)]
        {
            let now = Wall(NOW.0.checked_add_signed(shift).unwrap());
            assert_eq!(heard(&KEY, &ABOUT, &value, now), heard_there.then(address), "{shift}");
        }
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(heard(&KEY, &ABOUT, &told(&KEY, &ABOUT, v6, NOW).unwrap(), NOW), Some(v6));
        let mapped = told(&KEY, &ABOUT, "::ffff:203.0.113.9".parse().unwrap(), NOW).unwrap();
        assert_eq!(heard(&KEY, &ABOUT, &mapped, NOW), Some(address()));
    }

    #[test]
    fn it_holds_for_this_request_only() {
        let value = told(&KEY, &ABOUT, address(), NOW).unwrap();
        for about in [
            About { method: &Method::HEAD, ..ABOUT },
            About { path: "/v2/b/manifests/v1", ..ABOUT },
            About { ns: "ghcr.io", ..ABOUT },
            About { ns: "", ..ABOUT },
        ] {
            assert_eq!(heard(&KEY, &about, &value, NOW), None, "{about:?}");
        }
        assert_eq!(heard(&[8; 32], &ABOUT, &value, NOW), None);
        let text = value.to_str().unwrap();
        for other in [
            text.replace("for=203.0.113.9", "for=203.0.113.8"),
            text.replace("1795358179", "1795358180"),
            text[..text.len() - 2].to_owned(),
            format!("{text}00"),
            format!("{text};"),
            format!(" {text}"),
            text.replace(";mac=", "; mac="),
            "for=203.0.113.9".into(),
            String::new(),
        ] {
            assert_eq!(heard(&KEY, &ABOUT, &HeaderValue::try_from(&other).unwrap(), NOW), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_heard_by_chance(client in "[ -:<-~]{0,40}", time in "[0-9]{0,22}", mac in "[0-9a-fG]{0,70}", raw in prop::collection::vec(any::<u8>(), 0..300)) {
            for value in [format!("for={client};time={time};mac={mac}").into_bytes(), raw] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    prop_assert_eq!(heard(&KEY, &ABOUT, &value, NOW), None);
                }
            }
        }
    }
}
