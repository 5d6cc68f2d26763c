//! The text of `wrangler.jsonc`: what the Worker is called, where it answers, and what is bound to it.

use std::collections::BTreeMap;
use std::fmt::Write;

use entrepot_core::config::Config;
use serde_json::{Value, json};

/// How a file begins that may be written again.
const MARK: &str = "// Written by `entrepot worker init`";

/// The day whose runtime the Worker is made for. A later one changes what the runtime does.
const COMPATIBILITY_DATE: &str = "2026-04-01";

/// What holds without a `rate_limit`: manifest requests of one address, each minute.
const DEFAULT_PULLS: u64 = 100;

/// The longest name of a Worker, and of a bucket.
const LONGEST_NAME: usize = 63;

/// The namespace in which errors are kept, as the Worker calls it.
pub(super) const ERRORS: &str = "ERRORS";

/// A Worker, before it is deployed.
pub(super) struct Deployment<'a> {
    pub(super) config: &'a Config,
    /// Where the configuration came from, for the reader.
    pub(super) origin: String,
    /// The whole configuration, as the Worker reads it.
    pub(super) value: &'a str,
    /// Names of secrets without which it does not run.
    pub(super) secrets: Vec<&'a str>,
    /// The bundle, from the directory of the file.
    pub(super) main: String,
    /// For a runtime on this machine: no route leads to it.
    pub(super) local: bool,
    /// The ids of KV namespaces, by binding.
    pub(super) ids: BTreeMap<String, String>,
}

/// Where the Worker answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Without a path.
    pub(super) host: String,
    /// The domain at Cloudflare that the host belongs to.
    pub(super) zone: String,
}

impl Deployment<'_> {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let name = name(self.config);
        // Core lets no other rate pass.
        let pulls = self.config.rate_limit.map_or(DEFAULT_PULLS, |rate| rate.count.into());
        let id = |binding: &str| {
            let mut entry = json!({ "binding": binding });
            if let Some(id) = self.ids.get(binding) {
                entry["id"] = json!(id);
            }
            entry
        };
        let mut file = File(format!(
            "{MARK} from {}. Change that and run it again: what is changed here is lost,\n// but for the ids of KV \
             namespaces. Nothing in here is secret.\n{{\n",
            self.origin
        ));
        file.entry("name", &json!(name));
        file.entry("main", &json!(self.main));
        file.comment("The bundle is whole: what was tested is what is deployed.");
        file.entry("no_bundle", &json!(true));
        file.entry("compatibility_date", &json!(COMPATIBILITY_DATE));
        file.comment("Closed but for the routes.");
        file.entry("workers_dev", &json!(false));
        file.entry("preview_urls", &json!(false));
        if !self.local {
            let pattern =
                |route: Route| json!({ "pattern": format!("{}/*", route.host), "zone_name": route.zone });
            file.list("routes", routes(self.config).into_iter().map(pattern));
        }
        file.entry("vars", &json!({ "ENTREPOT_CONFIG": self.value }));
        file.comment("Set with `wrangler secret put`; without one of them wrangler does not deploy.");
        file.entry("secrets", &json!({ "required": self.secrets }));
        file.entry("kv_namespaces", &json!([id(ERRORS)]));
        file.entry("r2_buckets", &json!([{ "binding": "BLOBS", "bucket_name": name }]));
        let objects = [("FLIGHTS", "Flights"), ("LEDGER", "Ledger")];
        let bindings = objects.map(|(name, class)| json!({ "name": name, "class_name": class }));
        file.entry("durable_objects", &json!({ "bindings": bindings }));
        let classes = objects.map(|(_, class)| class);
        file.entry("migrations", &json!([{ "tag": "v1", "new_sqlite_classes": classes }]));
        file.comment("For each address, at each of Cloudflare's locations.");
        let limits = [("PULLS", pulls), ("REQUESTS", pulls * 10)].into_iter().zip(0..);
        file.list(
            "ratelimits",
            limits.map(|((binding, limit), index)| {
                let namespace = namespace(&name, index).to_string();
                json!({ "name": binding, "namespace_id": namespace, "simple": { "limit": limit, "period": 60 } })
            }),
        );
        file.entry("triggers", &json!({ "crons": [self.config.edge.cron] }));
        let dataset = name.replace('-', "_");
        file.entry("analytics_engine_datasets", &json!([{ "binding": "METRICS", "dataset": dataset }]));
        self.observability(&mut file);
        file.comment("Workers Cache would answer before the Worker does, and so before its access check. The Worker keeps");
        file.comment("what may be kept in the Cache API, behind that check.");
        file.entry("cache", &json!({ "enabled": false }));
        file.end()
    }

    /// Cloudflare keeps the address of a request beside each line that the request logs.
    fn observability(&self, file: &mut File) {
        let access = &self.config.access;
        let secret = access.secret_hosts_env.is_some() || access.secret_paths_env.is_some();
        if secret {
            file.comment("Cloudflare keeps the address of a request with what it logs, and here addresses hold secrets:");
            file.comment("lines are not kept. `wrangler tail` shows them as they come.");
        }
        file.entry(
            "observability",
            &json!({ "enabled": !secret, "logs": { "enabled": !secret, "invocation_logs": false } }),
        );
    }
}

/// What the Worker is called, and what belongs to it: one for each endpoint, so that an account can have several.
pub(super) fn name(config: &Config) -> String {
    let host = config.endpoint.host_str().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = format!("entrepot-{host}").chars().map(plain).take(LONGEST_NAME).collect();
    name.truncate(name.trim_end_matches('-').len());
    name
}

/// The endpoint's host, every label under it, and the other hosts that sources have.
pub(super) fn routes(config: &Config) -> Vec<Route> {
    let endpoint = config.endpoint.host_str().unwrap_or_default();
    let under = format!(".{endpoint}");
    let mut hosts = vec![endpoint.to_owned(), format!("*{under}")];
    for host in config.sources.iter().flat_map(|source| &source.hosts) {
        if host != endpoint && !host.ends_with(&under) && !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    let zone = |host: &str| {
        let plain = host.trim_start_matches("*.");
        psl::domain_str(plain).unwrap_or(plain).to_owned()
    };
    hosts.into_iter().map(|host| Route { zone: zone(&host), host }).collect()
}

/// The ids of KV namespaces that a file of ours was given, by binding. `None`: it is not ours, or no longer JSON with comments
/// on lines of their own.
pub(super) fn ids(text: &str) -> Option<BTreeMap<String, String>> {
    if !text.starts_with(MARK) {
        return None;
    }
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let file: Value = serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).ok()?;
    let entries = file["kv_namespaces"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(entries.iter().filter_map(|entry| Some((text(&entry["binding"])?, text(&entry["id"])?))).collect())
}

/// Counters of one namespace are shared by all Workers of an account that name it: each Worker has its own.
fn namespace(name: &str, index: u32) -> u32 {
    let sum = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    (sum % 1_000_000_000) * 2 + 1 + index
}

/// JSON with comments, one entry on a line.
struct File(String);

impl File {
    fn comment(&mut self, text: &str) {
        _ = writeln!(self.0, "  // {text}");
    }

    fn entry(&mut self, key: &str, value: &Value) {
        _ = writeln!(self.0, "  \"{key}\": {value},");
    }

    /// With a line for each item.
    fn list(&mut self, key: &str, items: impl Iterator<Item = Value>) {
        let lines: Vec<String> = items.map(|item| format!("    {item}")).collect();
        _ = writeln!(self.0, "  \"{key}\": [\n{}\n  ],", lines.join(",\n"));
    }

    /// Without the last comma, so that what strips comments can read it as JSON.
    fn end(mut self) -> String {
        self.0.truncate(self.0.trim_end_matches(",\n").len());
        self.0.push_str("\n}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use entrepot_core::config::edge::{self, Place};

    use super::*;

    fn config(endpoint: &str, source: &str) -> Config {
        let text = format!(
            "proxy:\n  endpoint: \"{endpoint}\"\n  access: {{ tokens_env: T }}\n  sources:\n    - {{ name: a, url: \"https://a.example.org\"{source} }}\n"
        );
        edge::check(&text, "c", Place::Local).unwrap().config
    }

    #[test]
    fn a_name_is_one_for_each_endpoint_and_fits_everywhere() {
        assert_eq!(name(&config("https://Mirror.example.com", "")), "entrepot-mirror-example-com");
        let long = format!("https://{}.{}.example.com", "a".repeat(53), "b".repeat(63));
        let long = name(&config(&long, ""));
        assert_eq!(long, format!("entrepot-{}", "a".repeat(53)));
        assert!(long.len() <= LONGEST_NAME);
    }

    #[test]
    fn every_host_has_a_route_in_its_zone() {
        let of = |endpoint: &str, source: &str| {
            let routes = routes(&config(endpoint, source));
            routes.into_iter().map(|route| format!("{} in {}", route.host, route.zone)).collect::<Vec<_>>()
        };
        let two = ["mirror.example.co.uk in example.co.uk", "*.mirror.example.co.uk in example.co.uk"];
        assert_eq!(of("https://mirror.example.co.uk", ""), two);
        let hosts = ", hosts: [x.mirror.example.co.uk, docker.example.net, mirror.example.co.uk]";
        let three = [two[0], two[1], "docker.example.net in example.net"];
        assert_eq!(of("https://mirror.example.co.uk", hosts), three);
        assert_eq!(
            of("https://example.net", ""),
            ["example.net in example.net", "*.example.net in example.net"]
        );
    }

    #[test]
    fn counters_are_not_shared() {
        let spaces: Vec<u32> =
            ["entrepot-a", "entrepot-b"].iter().flat_map(|name| [0, 1].map(|n| namespace(name, n))).collect();
        assert_eq!(spaces.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{spaces:?}");
        assert!(spaces.iter().all(|space| *space > 0));
    }
}
