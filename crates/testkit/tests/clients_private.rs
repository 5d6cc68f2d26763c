//! A repository that the registry shows to nobody without a password, which the mirror has: whom it serves, cold and warm
//! and with the upstream stopped (T-AZ1 by real programs).

use std::slice;

use base64::Engine;
use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::need;
use entrepot_testkit::real::{Credentials, Image, Registry, Skopeo, fetch, three_times};
use entrepot_testkit::script::sha256;

const CLIENT_PASSWORD: &str = "a token of the client's";

/// The mirror has the password; `access` decides who is known to it.
fn mirror_with_password(registry: &Registry, access: &str) -> Mirror {
    let Credentials { username, password } = Credentials::TEST;
    let mut mirror = Mirror::start(format!(
        r#"proxy:
  endpoint: "__ENDPOINT__"
  listen: "__LISTEN__"
  admin: "__ADMIN__"
  cache: {{ dir: "__CACHE__", manifest_ttl: "1h" }}
  access: {access}
  sources:
    - name: "origin"
      names: ["origin.test"]
      auth: {{ username: "{username}", password: "{password}" }}
      mirror: true
{}"#,
        registry.source("      ")
    ));
    mirror.canary(password);
    mirror
}

/// A private image and a public one, on a registry that redirects.
fn filled() -> (Registry, Image, Image) {
    let registry = Registry::redirecting();
    let (private, public) = (Image::multi_arch("private"), Image::small("public"));
    registry.push("private/app", Some("1"), &private);
    registry.push("team/app", Some("1"), &public);
    (registry, private, public)
}

#[test]
fn a_known_client_gets_what_the_password_opens() {
    need!("a_known_client_gets_what_the_password_opens", "docker-registry", "openssl", "skopeo");
    let (mut registry, private, _) = filled();
    Skopeo::copy(&format!("{}/private/app:1", registry.address()))
        .expect_err("the registry shows it to nobody");
    let mirror = mirror_with_password(&registry, r#"{ networks: ["127.0.0.0/8"] }"#);
    let reference = format!("{}/origin.test/private/app:1", mirror.address());
    let whole = Skopeo::copy(&reference).expect("a known client may have it");
    assert_eq!(whole["manifest.json"], private.digest());
    assert_eq!(whole.len(), private.digests().len() + 1);
    let mirror = mirror_with_password(&registry, r#"{ networks: ["127.0.0.0/8"] }"#);
    let reference = format!("{}/origin.test/private/app:1", mirror.address());
    three_times(&mut registry, &mirror, slice::from_ref(&private), &whole, || Skopeo::copy(&reference));
}

#[test]
fn an_anonymous_client_gets_only_what_the_registry_shows_to_anyone() {
    let name = "an_anonymous_client_gets_only_what_the_registry_shows_to_anyone";
    need!(name, "docker-registry", "openssl", "skopeo");
    let (registry, private, public) = filled();
    let access = format!(
        "{{ tokens: [{{ name: \"ci\", sha256: \"{}\" }}] }}",
        sha256(CLIENT_PASSWORD.as_bytes()).trim_start_matches("sha256:")
    );
    let mut mirror = mirror_with_password(&registry, &access);
    mirror.canary(CLIENT_PASSWORD);
    let app = |repository: &str| format!("{}/origin.test/{repository}/app:1", mirror.address());
    let got = Skopeo::copy(&app("team")).expect("public upstream, so public here");
    assert_eq!(got["manifest.json"], public.digest());
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let url = format!("{}/v2/origin.test/private/app/{path}", mirror.url());
        fetch("GET", &url, headers).expect("an answer").status
    };
    let known = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("ci:{CLIENT_PASSWORD}"))
    );
    for round in ["cold", "warm"] {
        let refused = Skopeo::copy(&app("private")).expect_err(round);
        assert!(
            refused.contains("unauthorized") || refused.contains("authentication required"),
            "{round}: {refused}"
        );
        for path in private_paths(&private) {
            assert_eq!(ask(&path, &[]), 401, "{round}: {path}");
            // Which makes the next round warm.
            assert_eq!(ask(&path, &[("authorization", &known)]), 200, "{round}: {path}");
        }
    }
}

fn private_paths(image: &Image) -> Vec<String> {
    let manifests = image.documents.iter().map(|document| format!("manifests/{}", document.digest));
    manifests.chain(image.blobs.iter().map(|blob| format!("blobs/{}", blob.digest))).collect()
}
