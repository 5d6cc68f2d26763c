//! Whom the limit counts as one client.

use std::net::{Ipv6Addr, TcpListener};

use entrepot_testkit::http;

use super::limits::{TAG, limited, pulls, warmed};
use crate::common::Bench;

/// T-RL4: IPv4 counts by address, IPv6 by /64, however it is written.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl4_ipv4_by_address_and_ipv6_by_64() {
    let (bench, _) = warmed(limited("1/d", 2)).await;
    for (clients, passes, why) in [
        (&["192.0.2.1", "192.0.2.1", "192.0.2.1"][..], 2, "one address"),
        (&["192.0.2.2", "192.0.2.3", "192.0.2.4"], 3, "three addresses"),
        (&["2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:1:ffff:ffff:ffff:ffff"], 2, "one /64"),
        (&["2001:db8:1:1::3", "2001:DB8:1:1:0:0:0:4"], 0, "the same /64, which is spent"),
        (&["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:4::1"], 3, "three /64"),
        (&["::ffff:192.0.2.5", "192.0.2.5", "::ffff:c000:205"], 2, "one IPv4 address, mapped or not"),
        (&["[2001:db8:9::1]:4711", "[2001:db8:9::2]", "2001:db8:9::3"], 2, "with a port, and without"),
        (&["192.0.2.6:1", "192.0.2.6:2", "192.0.2.6"], 2, "a port makes no other client"),
    ] {
        let mut passed = 0;
        for client in clients {
            passed += pulls(&bench, client, 1).await;
        }
        assert_eq!(passed, passes, "{why}: {clients:?}");
    }
}

/// T-RL4: on IPv6 sockets too.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl4_peers_on_ipv6_sockets() {
    let Ok(probe) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("there is no IPv6 here");
        return;
    };
    let port = probe.local_addr().expect("an address").port();
    drop(probe);
    let setup = limited("1/d", 2)
        .proxy("trusted_proxies", "[\"127.0.0.1/32\"]")
        .proxy("listen", format!("[\"__LISTEN__\", \"[::]:{port}\"]"));
    let (_bench, _) = warmed(setup).await;
    let six = format!("http://[::1]:{port}{TAG}");
    let mapped = format!("http://127.0.0.1:{port}{TAG}");
    let mut statuses = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        statuses.push(http::get(&six).header("x-forwarded-for", client).send().await.status);
    }
    assert_eq!(statuses, [200, 200, 429], "::1 is no trusted proxy, so it is one client");
    // 127.0.0.1 comes in as ::ffff:127.0.0.1 here, and is the trusted proxy all the same.
    for client in ["192.0.2.4", "192.0.2.5", "192.0.2.6"] {
        let answer = http::get(&mapped).header("x-forwarded-for", client).send().await;
        assert_eq!(answer.status, 200, "{client}: {answer:?}");
    }
}

/// T-RL5: a stranger's word on who it is counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl5_strangers_are_not_believed() {
    let setup = limited("1/d", 4)
        .proxy("trusted_proxies", "[\"192.0.2.0/24\"]")
        .proxy("access", "{ networks: [\"10.0.0.0/8\"] }");
    let bench = setup.start();
    let image = entrepot_testkit::script::Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let mut passed = 0;
    for n in 0..12 {
        let answer = bench
            .get(TAG)
            .header("x-forwarded-for", format!("10.0.0.{n}"))
            .header("forwarded", format!("for=10.0.0.{n}"))
            .header("x-real-ip", format!("10.0.0.{n}"))
            .header("x-client-ip", format!("10.0.0.{n}"))
            .header("true-client-ip", format!("10.0.0.{n}"))
            .header("cf-connecting-ip", format!("10.0.0.{n}"))
            .send()
            .await;
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        passed += usize::from(answer.status == 200);
    }
    assert_eq!(passed, 4, "one client, and no known one");
}

/// T-RL5: of what a trusted proxy passes on, the right-most address that is not trusted counts.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl5_the_right_most_address_that_is_not_trusted() {
    let setup =
        limited("1/d", 2).proxy("trusted_proxies", "[\"127.0.0.1/32\", \"10.0.0.0/8\", \"2001:db8:f::/48\"]");
    let (bench, _) = warmed(setup).await;
    // Lines of one request, and whom they make the client.
    for (lines, client) in [
        (&["203.0.113.1"][..], "203.0.113.1"),
        (&["198.51.100.7, 203.0.113.2"], "203.0.113.2"),
        (&["198.51.100.8, 203.0.113.3, 10.1.1.1"], "203.0.113.3"),
        (&["198.51.100.9,203.0.113.4,10.1.1.1,127.0.0.1,2001:db8:f::1"], "203.0.113.4"),
        (&["198.51.100.10", "203.0.113.5", "10.1.1.1"], "203.0.113.5"),
        (&["nonsense, 203.0.113.6, 10.2.2.2"], "203.0.113.6"),
    ] {
        assert_eq!(pulls(&bench, client, 1).await, 1, "{client} is new");
        let (second, third) = (forwarded(&bench, lines).await, forwarded(&bench, lines).await);
        assert_eq!((second, third), (200, 429), "{lines:?} is {client}");
        assert_eq!(pulls(&bench, client, 1).await, 0, "{client} is spent");
    }
    // What is no address where one is needed leaves the proxy itself to be counted, which is one client.
    let mut statuses = Vec::new();
    for nonsense in ["unknown", "203.0.113.9, unknown", "203.0.113.10, 999.1.1.1", "_hidden, 10.1.1.1"] {
        statuses.push(forwarded(&bench, &[nonsense]).await);
    }
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!(passed <= 2, "{statuses:?}");
    for spoof in ["203.0.113.11", "203.0.113.12"] {
        let answer = bench.get(TAG).header("forwarded", format!("for={spoof}")).send().await;
        assert_eq!(answer.status, 429, "no other header is believed: {answer:?}");
    }
}

async fn forwarded(bench: &Bench, lines: &[&str]) -> u16 {
    let call = lines.iter().fold(bench.get(TAG), |call, line| call.header("x-forwarded-for", *line));
    call.send().await.status
}
