//! Clients that are known.

use entrepot_testkit::script::Image;

use super::guarded::{
    CLIENT_TOKEN, CLOSED, assert_private, assert_shut_out, basic, on_account, one_token, serve, setup, start,
};
use crate::common::Bench;

async fn token_by_get(bench: &Bench) -> String {
    let answer = bench
        .get("/token?service=here&scope=repository:closed/app:pull&account=any")
        .basic(&basic("any", CLIENT_TOKEN))
        .send()
        .await;
    issued(&answer)
}

async fn token_by_post(bench: &Bench) -> String {
    let form = format!(
        "grant_type=password&service=here&client_id=test&username=any&password={CLIENT_TOKEN}&scope=repository%3Aclosed%2Fapp%3Apull"
    );
    let answer = bench
        .request("POST", "/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await;
    issued(&answer)
}

#[track_caller]
fn issued(answer: &entrepot_testkit::http::Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    let json = answer.json();
    let token = json["token"].as_str().expect("a token").to_owned();
    assert_eq!(json["access_token"].as_str(), Some(token.as_str()), "both spellings");
    assert!(json["expires_in"].as_u64().is_some_and(|seconds| (60..=300).contains(&seconds)));
    token
}

/// T-AZ5: known clients get what the account may see, marked as theirs alone.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_known_clients_get_it_for_themselves() {
    let bench = start(setup().proxy("access", one_token("")));
    let paths = serve(&bench.upstream, CLOSED, &Image::small(1));
    let (by_get, by_post) = (token_by_get(&bench).await, token_by_post(&bench).await);
    let credentials = [
        format!("Basic {}", basic("whoever", CLIENT_TOKEN)),
        format!("Bearer {by_get}"),
        format!("bearer {by_post}"),
    ];
    for round in ["cold", "warm"] {
        for credential in &credentials {
            for path in &paths {
                for method in ["GET", "HEAD"] {
                    let call = bench.request(method, path);
                    let answer = call.header("authorization", credential).send().await;
                    assert_private(&answer, &format!("{round} {method} {path}"));
                }
            }
        }
    }
    let blob = bench.get(&paths[3]).bearer(&by_get).range("bytes=1-4").send().await;
    assert_eq!((blob.status, blob.length), (206, 4));
    assert_eq!(blob.header("cache-control"), Some("private, no-store"));
    assert_eq!(blob.header("access-control-allow-origin"), None);
    let etag = format!("\"{}\"", Image::small(1).digest);
    let unchanged = bench.get(&paths[0]).bearer(&by_get).header("if-none-match", etag).send().await;
    assert_eq!(unchanged.status, 304, "{unchanged:?}");
    assert_eq!(unchanged.header("cache-control"), Some("private, no-store"));
    assert_eq!(unchanged.header("access-control-allow-origin"), None);
}

/// T-AZ5: a network is as good as a token.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_a_network_is_known() {
    let setup =
        setup().proxy("access", "{ networks: [\"10.1.0.0/16\", \"2001:db8:1::/48\"] }").behind_a_proxy();
    let bench = start(setup);
    let paths = serve(&bench.upstream, CLOSED, &Image::small(2));
    for (address, known) in [
        ("10.2.0.1", false),
        ("10.1.2.3", true),
        ("192.0.2.1", false),
        ("2001:db8:1::9", true),
        ("2001:db8:2::9", false),
        ("10.1.2.3, 192.0.2.1", false),
    ] {
        for path in &paths {
            let answer = bench.get_from(address, path).send().await;
            let what = format!("{address} {path}");
            if known {
                assert_private(&answer, &what);
            } else {
                assert_shut_out(&bench, &answer, &what);
            }
        }
    }
}

/// T-AZ5: a token for anyone is a token for no one.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_a_token_for_anyone_opens_nothing() {
    let bench = start(setup().proxy("access", one_token("")));
    let paths = serve(&bench.upstream, CLOSED, &Image::small(3));
    let anyones = issued(&bench.get("/token?service=here&scope=repository:closed/app:pull").send().await);
    for path in &paths {
        let answer = bench.get(path).bearer(&anyones).send().await;
        assert_shut_out(&bench, &answer, path);
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        assert!(challenge.contains(&format!("scope=\"repository:{CLOSED}:pull\"")), "{challenge}");
    }
    let forged = [
        anyones.replace('.', "x."),
        format!("{anyones}x"),
        anyones.split('.').next().unwrap_or_default().to_owned() + ".",
        CLIENT_TOKEN.to_owned(),
    ];
    for token in forged {
        let answer = bench.get(&paths[0]).bearer(&token).send().await;
        assert_shut_out(&bench, &answer, &token);
        let ping = bench.get("/v2/").bearer(&token).send().await;
        assert_shut_out(&bench, &ping, &token);
    }
    assert_eq!(on_account(&bench.upstream), Vec::<String>::new());
}

/// T-AZ9: being known lets nobody change anything either.
#[tokio::test(flavor = "multi_thread")]
async fn t_az9_known_clients_change_nothing() {
    let bench = start(setup().proxy("access", one_token("")));
    let image = Image::small(4);
    let mut paths = serve(&bench.upstream, CLOSED, &image);
    let credential = basic("any", CLIENT_TOKEN);
    for path in &paths {
        assert_eq!(bench.get(path).basic(&credential).send().await.status, 200);
    }
    let (store, asked) = (bench.mirror.store_hash(), bench.upstream.requests().len());
    paths.extend([
        "/v2/".to_owned(),
        format!("/v2/{CLOSED}/manifests/new"),
        format!("/v2/{CLOSED}/blobs/uploads/"),
        format!("/v2/{CLOSED}/blobs/uploads/?mount={}&from=open/app", image.layer_digests[0]),
        format!("/v2/up.test/{CLOSED}/blobs/uploads/?digest={}", image.layer_digests[0]),
        format!("/up.test/v2/{CLOSED}/manifests/1"),
        format!("/v2/{CLOSED}/manifests/1?ns=up.test"),
    ]);
    for path in &paths {
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            let answer = bench.request(method, path).basic(&credential).body("{}").send().await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (405, "UNSUPPORTED"),
                "{method} {path}: {answer:?}"
            );
        }
    }
    assert_eq!(bench.mirror.store_hash(), store);
    assert_eq!(bench.upstream.requests().len(), asked, "{:?}", bench.upstream.summary());
}
