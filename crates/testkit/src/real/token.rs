//! The token server that a registry with `auth: token` sends its clients to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::gateway::{Pass, now};
use super::listener::{Body, Handler, Listener, answer};
use super::process::{TempDir, run, temp_dir};
use super::registry::Credentials;

pub(crate) const SERVICE: &str = "testkit";
pub(crate) const ISSUER: &str = "testkit-issuer";
/// How long a token is good for, in seconds. Registries allow a minute of leeway on top.
const LIFE: u64 = 300;

/// Signs ES256 tokens with a certificate of its own making.
///
/// Anyone may pull from any repository but those under `private/`; [`Credentials::TEST`] may do everything.
#[derive(Debug)]
pub struct TokenServer {
    listener: Listener,
    minter: Arc<Minter>,
    dir: TempDir,
}

impl TokenServer {
    pub fn start() -> TokenServer {
        let dir = temp_dir();
        let minter = Arc::new(Minter::new(&dir));
        let shared = minter.clone();
        let handler: Handler = Arc::new(move |request| {
            let minter = shared.clone();
            Box::pin(async move { minter.handle(request).await })
        });
        let listener = Listener::start(IpAddr::V4(Ipv4Addr::LOCALHOST), handler);
        TokenServer { listener, minter, dir }
    }

    /// The URL that a challenge names.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.listener.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// The certificate that signs, as a PEM file.
    pub(crate) fn bundle(&self) -> String {
        self.dir.path().join("cert.pem").display().to_string()
    }

    /// Token requests so far, refused ones included.
    pub fn requests(&self) -> u64 {
        self.minter.asked.load(Ordering::Relaxed)
    }

    /// The scopes asked for so far, in order; an empty string where none was.
    pub fn scopes(&self) -> Vec<String> {
        self.minter.scopes.lock().expect("no holder panics").clone()
    }

    /// A token that may push to `repository`.
    pub(crate) fn push_token(&self, repository: &str) -> String {
        self.minter.mint(&[format!("repository:{repository}:pull,push")], true)
    }

    /// Lets the blob host in.
    pub(crate) fn pass(&self) -> Pass {
        let minter = self.minter.clone();
        Arc::new(move |repository| minter.mint(&[format!("repository:{repository}:pull")], true))
    }

    pub(crate) fn stop(&mut self) {
        self.listener.stop();
    }

    pub(crate) fn restart(&mut self) {
        self.listener.restart();
    }
}

#[derive(Debug)]
struct Minter {
    key: EcdsaKeyPair,
    /// The signing certificate, DER in base64.
    certificate: String,
    asked: AtomicU64,
    scopes: Mutex<Vec<String>>,
}

impl Minter {
    fn new(dir: &TempDir) -> Minter {
        let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=testkit"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert);
        let made = run(&mut command, Duration::from_secs(20));
        assert!(made.success, "openssl cannot make a key: {}", made.text());
        let pem = |path| pem_body(&std::fs::read_to_string(path).expect("openssl wrote its files"));
        let der = STANDARD.decode(pem(&key)).expect("PEM is base64");
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("openssl wrote PKCS#8");
        Minter { key, certificate: pem(&cert), asked: AtomicU64::new(0), scopes: Mutex::default() }
    }

    /// GET with a query, and POST with a form, as the distribution token specification and OAuth 2 have them.
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let basic = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let form = match *request.method() {
            Method::GET => query,
            Method::POST => match Limited::new(request.into_body(), 64 * 1024).collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(_) => return answer(StatusCode::BAD_REQUEST, &[], "unreadable form"),
            },
            _ => return answer(StatusCode::METHOD_NOT_ALLOWED, &[], ""),
        };
        let fields = Fields::parse(&form);
        let scopes: Vec<String> = fields
            .all("scope")
            .flat_map(|s| s.split(' '))
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        self.scopes.lock().expect("no holder panics").push(scopes.join(" "));
        let known = match (basic, fields.all("username").next(), fields.all("password").next()) {
            (Some(basic), _, _) => Some(basic == Credentials::TEST.basic()),
            (None, Some(user), Some(password)) => Some(Credentials::TEST.are(user, password)),
            _ => None,
        };
        match known {
            Some(false) => answer(
                StatusCode::UNAUTHORIZED,
                &[(WWW_AUTHENTICATE.as_str(), "Basic realm=\"testkit\"")],
                "",
            ),
            known => {
                let token = self.mint(&scopes, known == Some(true));
                let body = json!({ "token": token, "access_token": token, "expires_in": LIFE });
                answer(StatusCode::OK, &[("content-type", "application/json")], body.to_string())
            }
        }
    }

    fn mint(&self, scopes: &[String], known: bool) -> String {
        let access: Vec<_> = scopes.iter().filter_map(|scope| grant(scope, known)).collect();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let time = now();
        let claims = json!({
            "iss": ISSUER, "sub": if known { Credentials::TEST.username } else { "" }, "aud": SERVICE,
            "exp": time + LIFE, "nbf": time - 10, "iat": time, "jti": format!("{time}"), "access": access,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a P-256 key can sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// `repository:<name>:<actions>` as the claim of what is allowed of it.
fn grant(scope: &str, known: bool) -> Option<serde_json::Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, wanted) = rest.rsplit_once(':')?;
    let public = !name.starts_with("private/");
    let actions: Vec<&str> =
        wanted.split(',').filter(|action| known || (public && *action == "pull")).collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

/// A query or form, decoded.
struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    fn parse(text: &str) -> Fields {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            fields.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Fields(fields)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }
}

fn pem_body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}
