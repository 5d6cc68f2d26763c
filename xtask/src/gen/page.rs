//! `docs/configuration.md`: the reference.

use std::fmt::Write;

use entrepot_core::config::DEFAULT;
use entrepot_core::config::schema::{Default, Kind, PROXY, Section};
use entrepot_core::registries::REGISTRIES;

use super::NOTE;

const INTRODUCTION: &str = r#"
The configuration is one YAML file. It is looked for in this order, and the first that is found is the only one read:

1. the argument of `--config`,
2. the file that the environment variable `ENTREPOT_CONFIG` names,
3. `./config.yml`,
4. `/etc/proxy/config.yml`.

Without any of them [the embedded one](#without-a-file) holds, which serves this machine only.

`entrepot check` reads the file and says *all* that is wrong with it, each with its line, its key and what to do; `serve`
refuses to start with such a file. `entrepot config` prints what holds in the end, defaults and derived values included, with
secrets masked. A running mirror reads the file again when it changes, or on SIGHUP; if the new one is wrong it keeps the old
one and says so.

At the edge (a Cloudflare Worker) the same file holds, read more strictly: `access.anonymous` is `false` and `rate_limit` is
`100/min` unless the file says otherwise, and what needs files, programs or private addresses is refused.

A complete file may be as short as this:

```yaml
proxy:
  endpoint: "https://docker-proxy.example.com"
  sources:
    - name: "dockerhub"
      url: "https://registry-1.docker.io"
    - name: "private"
      url: "https://private-registry.example.com"
      auth:
        username: "user"
        password_file: "/run/secrets/private"
```

[config.sample.yml](config.sample.yml) shows every key. [config.schema.json](config.schema.json) is for editors: begin the
file with `# yaml-language-server: $schema=…/config.schema.json`.
"#;

const VALUES: &str = r#"
## How values are written

| value | examples | |
|---|---|---|
| duration | `500ms`, `10s`, `5m`, `1h`, `7d`, `1h30m`, `0` | without a unit only `0`; at most ten years |
| size | `500MB`, `50GiB`, `1500` | `KB`, `MB`, `GB`, `TB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB` of 1024; without a unit bytes |
| rate | `10/s`, `100/min`, `1000/h`, `5000/d` | |
| address | `0.0.0.0:8080`, `[::]:8080` | an IP address and a port |
| network | `10.0.0.0/8`, `fd00::/8`, `127.0.0.1` | |
| URL | `https://registry.example.com`, `https://host:5000` | scheme, host and port; no path, no credentials |
| name | `dockerhub` | 1 to 64 letters, digits, `-`, `_` and `.` |
| name pattern | `library/*`, `team/**`, `nightly*`, `*` | `*` is anything but `/`, `**` between slashes is anything, `?` one character but `/`, `[ab]` and `[!a]` likewise, `{a,b}` either (three times at most); a lone `*` matches all |
| image | `docker.io/library/alpine:3.20`, `ghcr.io/org/app@sha256:…` | registry, repository, and tag or digest |
| platform | `linux/amd64`, `linux/arm/v7` | |
| schedule | `*/5 * * * *` | minute, hour, day, month and weekday, as cron has them |
| host pattern | `auth.example.com`, `*.cdn.example.com`, `host:5000` | a star stands for whole labels; without a port the scheme's own is meant |

Relative paths begin in the directory in which the mirror is started.

Texts that YAML would read as a number or as true or false (a password of digits, say) need quotes.

A token is given as its SHA-256, which `printf %s TOKEN | sha256sum` prints. A file or variable of tokens has one on each line:

```text
# name:sha256
ci:0000000000000000000000000000000000000000000000000000000000000000
```
"#;

pub(super) fn text() -> String {
    let mut page = format!("<!-- {NOTE} -->\n\n# Configuration\n{INTRODUCTION}\n## Keys\n");
    section("proxy", &PROXY, &mut page);
    page.push_str(VALUES);
    registries(&mut page);
    page.push_str("\n## Without a file\n\nThis holds when no file is found:\n\n```yaml\n");
    page.push_str(DEFAULT);
    page.push_str("```\n");
    page
}

/// The table of a section's keys, and after it those of the sections in it.
fn section(path: &str, section: &Section, page: &mut String) {
    line(page, format_args!("\n### `{path}`\n\n| key | value | when absent | |\n|---|---|---|---|"));
    for key in section.keys {
        let absent = match key.default {
            Default::Required => "**required**".into(),
            Default::Nothing => "–".into(),
            Default::Value(text) => format!("`{text}`"),
            Default::Follows(text) => text.to_owned(),
        };
        let kind = match key.kind {
            Kind::Section(_) => format!("[section](#{})", anchor(&format!("{path}.{}", key.name))),
            Kind::Sections(_) => {
                format!("list of [sections](#{})", anchor(&format!("{path}.{}[]", key.name)))
            }
            other => noun(&other),
        };
        line(page, format_args!("| `{}` | {kind} | {absent} | {} |", key.name, key.doc.replace('|', "\\|")));
    }
    for key in section.keys {
        match key.kind {
            Kind::Section(inner) => self::section(&format!("{path}.{}", key.name), inner, page),
            Kind::Sections(inner) => self::section(&format!("{path}.{}[]", key.name), inner, page),
            _ => {}
        }
    }
}

fn noun(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "`true` or `false`".into(),
        Kind::Text => "text".into(),
        Kind::Path => "path".into(),
        Kind::Label => "name".into(),
        Kind::Duration => "duration".into(),
        Kind::Size => "size".into(),
        Kind::Rate => "rate".into(),
        Kind::Count => "number from 1".into(),
        Kind::Address => "address".into(),
        Kind::Url => "URL".into(),
        Kind::Network => "network".into(),
        Kind::NamePattern => "name pattern".into(),
        Kind::HostPattern => "host pattern".into(),
        Kind::RegistryName => "host or prefix".into(),
        Kind::HostName => "host".into(),
        Kind::Sha256 => "SHA-256".into(),
        Kind::Image => "image".into(),
        Kind::Platform => "platform".into(),
        Kind::Schedule => "schedule".into(),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        Kind::List(inner) => format!("list of {}s", noun(inner)),
        Kind::OneOrMore(inner) => format!("{}, or a list of them", noun(inner)),
        Kind::Section(_) => "section".into(),
        Kind::Sections(_) => "list of sections".into(),
    }
}

/// How Markdown viewers name a heading of code.
fn anchor(path: &str) -> String {
    path.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-').collect()
}

fn registries(page: &mut String) {
    page.push_str(
        "\n## Known registries\n\nFor these, `names`, `token_hosts` and `blob_hosts` need not be given. The label selects the registry under the\n\
         endpoint's host (`ghcr.docker-proxy.example.com`), as every source's own name does.\n\n\
         | host of `url` | label | credentials may also go to | redirects may lead to |\n|---|---|---|---|\n",
    );
    let code = |hosts: &[&str]| hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ");
    for registry in REGISTRIES {
        let label = registry.label.map_or("–".into(), |label| format!("`{label}`"));
        let tokens = if registry.token_hosts.is_empty() { "–".into() } else { code(registry.token_hosts) };
        let blobs = registry.blob_hosts.map_or("any public host".into(), code);
        line(page, format_args!("| {} | {label} | {tokens} | {blobs} |", code(registry.hosts)));
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    _ = page.write_fmt(text);
    page.push('\n');
}
