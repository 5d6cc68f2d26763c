//! What a request's head must look like before anything in it is believed (T-HC1, T-HC2, T-HC3).

use std::borrow::Cow;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{Method, Version};

use crate::failure::{Failure, Reason};

/// A host name is at most 253 bytes, and a port five more.
const MAX_HOST: usize = 260;

/// Checks version, target form, host and body framing; answers the host in lower case, with its port if it has one.
pub(super) fn check(head: &Parts) -> Result<Cow<'_, str>, Failure> {
    if head.version < Version::HTTP_11 {
        return Err(invalid("HTTP/1.1 or newer is needed"));
    }
    let http1 = head.version < Version::HTTP_2;
    // In HTTP/1.1 a full URL as target is how a proxy is asked, which we are not; HTTP/2 always has both parts.
    if http1 && (head.uri.scheme().is_some() || head.uri.authority().is_some()) {
        return Err(invalid("the request target must be a path"));
    }
    if head.method == Method::CONNECT || !head.uri.path().starts_with('/') {
        return Err(invalid("the request target must be a path"));
    }
    check_body(head)?;
    host(head)
}

/// A pull has no body, and one that is not read would become the next request on the connection.
fn check_body(head: &Parts) -> Result<(), Failure> {
    let lengths: Vec<&[u8]> = values(head, &header::CONTENT_LENGTH).collect();
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    if lengths.len() > 1 || (chunked && !lengths.is_empty()) {
        return Err(invalid("the length of the request's body is ambiguous"));
    }
    let length = match lengths.first() {
        None => 0,
        Some(text) => digits(text).ok_or_else(|| invalid("the Content-Length is not a number"))?,
    };
    let bodiless = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if bodiless && (length > 0 || chunked) {
        return Err(invalid("a request of this method has no body here"));
    }
    Ok(())
}

fn digits(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Exactly one `Host` in HTTP/1.1; in HTTP/2 `:authority`, `Host`, or both if they agree.
fn host(head: &Parts) -> Result<Cow<'_, str>, Failure> {
    let mut hosts = values(head, &header::HOST);
    let by_header = hosts.next();
    if hosts.next().is_some() {
        return Err(invalid("there is more than one Host"));
    }
    let by_header = by_header.map(parse_host).transpose()?;
    let by_authority = head.uri.authority().map(|text| parse_host(text.as_str().as_bytes())).transpose()?;
    match (by_header, by_authority) {
        (Some(header), Some(authority)) if header != authority => {
            Err(invalid("Host and :authority disagree"))
        }
        (_, Some(host)) | (Some(host), None) => Ok(host),
        (None, None) => Err(invalid("there is no Host")),
    }
}

/// `host[:port]`, where host is a name, an IPv4 address, or an IPv6 one in brackets; without userinfo.
fn parse_host(text: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let wrong = || invalid("the Host is not of the form host[:port]");
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_HOST).ok_or_else(wrong)?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (&text[..address.len() + 2], port)
        }
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let name_fits = name.starts_with('[')
        || (!name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')));
    let port_fits = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => digits(port.as_bytes()).is_some_and(|port| (1..=65_535).contains(&port)),
    };
    match name_fits && port_fits {
        true if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Ok(Cow::Owned(text.to_ascii_lowercase()))
        }
        true => Ok(Cow::Borrowed(text)),
        false => Err(wrong()),
    }
}

fn values<'h>(head: &'h Parts, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
}

fn invalid(public: &str) -> Failure {
    Failure::new(Reason::RequestInvalid, public)
}

#[cfg(test)]
mod tests;
