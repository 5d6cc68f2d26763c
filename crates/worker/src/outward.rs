//! Requests to upstreams, through `fetch`. No redirect is followed; bodies stay with the runtime.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use entrepot_core::upstream::{Fault, Outbound, SMALL_WITHIN, SmallFault};
use entrepot_engine::ports::Http;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, pin_mut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, ReadableStream, RequestCache, RequestInit, RequestRedirect, WorkerGlobalScope,
};
use worker::{ByteStream, Delay};

use crate::limits::Tally;

/// How long what is read here may pause. What passes through has no such limit: the platform does not tell of its pauses, and
/// a source's `stall` says nothing here.
const PAUSE: Duration = Duration::from_secs(3);

pub(crate) struct Outward(pub(crate) Tally);

/// A body on its way in: the runtime's own stream.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: Option<ReadableStream>,
    /// Bytes, if upstream says how many.
    pub(crate) length: Option<u64>,
}

impl Http for Outward {
    type Body = Incoming;

    async fn send(&self, request: Outbound) -> Result<(http::response::Parts, Incoming), Fault> {
        let abort = AbortController::new().map_err(|_| Fault::Connect)?;
        let init = init(&request, &abort).map_err(|_| Fault::BadFraming)?;
        let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
        let _slot = self.0.slot().await;
        let answer = JsFuture::from(scope.fetch_with_str_and_init(request.url.as_str(), &init));
        let late = Delay::from(request.connect + request.first_byte);
        pin_mut!(answer, late);
        let response = match select(answer, late).await {
            Either::Left((answer, _)) => answer.map_err(|error| fault(&error))?,
            Either::Right(_) => {
                abort.abort();
                return Err(Fault::Timeout);
            }
        };
        let response: web_sys::Response = response.unchecked_into();
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = StatusCode::from_u16(response.status()).map_err(|_| Fault::BadFraming)?;
        head.headers = headers(&response.headers())?;
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok((head, Incoming { stream: response.body(), length }))
    }

    async fn read_small(&self, body: Incoming, max: usize) -> Result<Bytes, SmallFault> {
        if body.length.is_some_and(|length| length > max as u64) {
            return Err(SmallFault::TooLarge);
        }
        let Some(stream) = body.stream else {
            return Ok(Bytes::new());
        };
        let mut bytes = BytesMut::new();
        let mut stream = ByteStream::from(stream);
        let whole = Delay::from(SMALL_WITHIN);
        pin_mut!(whole);
        loop {
            let pause = Delay::from(PAUSE);
            pin_mut!(pause);
            let piece = match select(stream.next(), select(pause, whole.as_mut())).await {
                Either::Left((Some(piece), _)) => piece,
                Either::Left((None, _)) => break,
                Either::Right(_) => return Err(SmallFault::Broken),
            };
            let piece = piece.map_err(|_| SmallFault::Broken)?;
            if bytes.len() + piece.len() > max {
                return Err(SmallFault::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        // The runtime ends a body that breaks off in an error, except where it does not know the length either.
        match body.length {
            Some(length) if length != bytes.len() as u64 => Err(SmallFault::Broken),
            _ => Ok(bytes.freeze()),
        }
    }
}

fn init(request: &Outbound, abort: &AbortController) -> Result<RequestInit, JsValue> {
    let sent = web_sys::Headers::new()?;
    for (name, value) in &request.headers {
        sent.append(name.as_str(), value.to_str().map_err(|_| JsValue::NULL)?)?;
    }
    let init = RequestInit::new();
    init.set_method(request.method.as_str());
    init.set_headers(&sent);
    init.set_redirect(RequestRedirect::Manual);
    // What may be kept is for the engine to say, not for the zone's own cache.
    init.set_cache(RequestCache::NoStore);
    init.set_signal(Some(&abort.signal()));
    if let Some(body) = &request.body {
        init.set_body(&js_sys::Uint8Array::from(body.as_ref()));
    }
    Ok(init)
}

/// Headers that are no HTTP headers would be refused by every other host, too.
pub(crate) fn headers(from: &web_sys::Headers) -> Result<HeaderMap, Fault> {
    let mut map = HeaderMap::new();
    for entry in from.entries() {
        let pair: js_sys::Array = entry.map_err(|_| Fault::BadFraming)?.unchecked_into();
        let (name, value) = (pair.get(0).as_string(), pair.get(1).as_string());
        let name = name.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let value = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            map.append(name, value);
        }
    }
    Ok(map)
}

/// The runtime tells little of what went wrong.
fn fault(error: &JsValue) -> Fault {
    let text =
        error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message())).unwrap_or_default();
    let text = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["dns", "resolve", "name not"]) {
        Fault::Dns
    } else if says(&["certificate", "tls", "ssl"]) {
        Fault::Tls
    } else {
        // "Network connection lost" is said of one that was refused as well.
        Fault::Connect
    }
}
