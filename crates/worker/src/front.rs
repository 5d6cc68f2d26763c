//! The cache in front: the platform's Cache API, near the client and of one data centre. What is in it rests on no
//! credentials, for it is asked behind the access check and keyed by digest or by the key of a record.

use std::time::Duration;

use entrepot_oci::Digest;
use sha2::Digest as _;
use url::Url;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, Response, ResponseInit, WorkerGlobalScope};

use crate::isolate::hex;
use crate::limits::Tally;

/// See the module.
#[derive(Clone)]
pub(crate) struct Front {
    /// Below the endpoint, where nothing of ours is answered.
    base: Url,
    tally: Tally,
}

impl Front {
    /// `secret` stands in every key: were the Worker ever passed over, the zone's cache would answer whoever guesses one.
    pub(crate) fn new(endpoint: &Url, secret: &str, tally: Tally) -> Front {
        let mut base = endpoint.clone();
        base.set_path(&format!("/.entrepot/{secret}/"));
        Front { base, tally }
    }

    pub(crate) fn object(&self, digest: &Digest) -> String {
        format!("{}objects/{digest}", self.base)
    }

    /// By hash: a key may hold any character.
    pub(crate) fn record(&self, key: &str) -> String {
        format!("{}records/{}", self.base, hex(&sha2::Sha256::digest(key.as_bytes())))
    }

    pub(crate) async fn get(&self, key: &str) -> Option<Response> {
        let _slot = self.tally.slot().await;
        let found = JsFuture::from(cache()?.match_with_str(key)).await.ok()?;
        found.dyn_into().ok()
    }

    /// Keeps `body` of `size` bytes. Nothing is ever put here that the cache refuses with an exception: it is a 200 without
    /// `Vary` and cookies, and of known length (T-WK1).
    pub(crate) async fn put(&self, key: &str, body: Body<'_>, size: u64, keep: Duration) {
        self.tally.note();
        // A cache that takes nothing costs a little time later, and nothing else.
        let _ = self.try_put(key, body, size, keep).await;
    }

    async fn try_put(&self, key: &str, body: Body<'_>, size: u64, keep: Duration) -> Result<(), JsValue> {
        let headers = web_sys::Headers::new()?;
        headers.set("content-length", &size.to_string())?;
        headers.set("content-type", "application/octet-stream")?;
        headers.set("cache-control", &format!("public, max-age={}", keep.as_secs()))?;
        let init = ResponseInit::new();
        init.set_status(200);
        init.set_headers(&headers);
        let response = match body {
            Body::Stream(stream) => Response::new_with_opt_readable_stream_and_init(Some(&stream), &init)?,
            Body::Bytes(bytes) => {
                let bytes = js_sys::Uint8Array::from(bytes);
                Response::new_with_opt_js_u8_array_and_init(Some(&bytes), &init)?
            }
        };
        let cache = cache().ok_or(JsValue::NULL)?;
        JsFuture::from(cache.put_with_str(key, &response)).await.map(drop)
    }

    pub(crate) async fn remove(&self, key: &str) {
        self.tally.note();
        if let Some(cache) = cache() {
            let _ = JsFuture::from(cache.delete_with_str(key)).await;
        }
    }
}

/// What is put.
pub(crate) enum Body<'a> {
    Stream(ReadableStream),
    Bytes(&'a [u8]),
}

/// The platform's one default cache.
fn cache() -> Option<web_sys::Cache> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    let caches: JsValue = scope.caches().ok()?.into();
    js_sys::Reflect::get(&caches, &"default".into()).ok().map(JsCast::unchecked_into)
}
