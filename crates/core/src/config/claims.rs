//! Who answers to which name: no registry name and no `Host` may mean two sources.

use std::collections::BTreeMap;

use url::{Host, Url};

use super::read::{Found, Reader, spot};
use super::source::Draft;

/// Checks the names and hosts of all sources against each other, and gives each source those that follow from the rest.
pub(super) fn settle(reader: &mut Reader<'_>, drafts: &mut [Draft], endpoint: Option<&Url>) {
    own_names(reader, drafts);
    urls(reader, drafts, endpoint);
    let names = |draft: &Draft| draft.names.clone();
    claim(reader, drafts, "name", names);
    claim(reader, drafts, "host", |draft| draft.hosts.clone());
    for draft in drafts.iter_mut() {
        draft.source.names = values(&draft.names);
        draft.source.hosts = values(&draft.hosts);
    }
    if let Some(Host::Domain(domain)) = endpoint.and_then(Url::host) {
        aliases(drafts, domain);
    }
}

fn values(found: &[Found<String>]) -> Vec<String> {
    found.iter().map(|found| found.value.clone()).collect()
}

fn own_names(reader: &mut Reader<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for draft in drafts {
        if let Some(line) = seen.insert(draft.source.name.to_lowercase(), draft.name_at.line) {
            let message = format!("the source in {} has the name `{}` too", spot(line), draft.source.name);
            reader.problem(&draft.name_at, message, "give each source its own name");
        }
    }
}

/// Two sources of one registry are possible (two identities, say), but then their names must tell them apart.
fn urls(reader: &mut Reader<'_>, drafts: &mut [Draft], endpoint: Option<&Url>) {
    for index in 0..drafts.len() {
        let (before, rest) = drafts.split_at_mut(index);
        let Some(draft) = rest.first_mut() else { return };
        if endpoint.is_some_and(|endpoint| endpoint.origin() == draft.source.url.origin()) {
            let remedy = "put the registry's own URL here";
            reader.problem(&draft.url_at, "this is the mirror's own endpoint: it would ask itself", remedy);
        }
        let derived = |draft: &Draft| draft.names.first().is_some_and(|name| name.at.key == draft.url_at.key);
        let twin = before.iter().find(|other| other.source.url.origin() == draft.source.url.origin());
        if let Some(twin) = twin.filter(|twin| derived(draft) && derived(twin)) {
            let message = format!(
                "the source `{}` in {} is this registry too",
                twin.source.name,
                spot(twin.url_at.line)
            );
            reader.problem(&draft.url_at, message, "make them one, or give each its own `names`");
            draft.names.clear();
        }
    }
}

fn claim(
    reader: &mut Reader<'_>,
    drafts: &[Draft],
    what: &str,
    claims: impl Fn(&Draft) -> Vec<Found<String>>,
) {
    let mut owners: BTreeMap<String, (usize, u32)> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        for claim in claims(draft) {
            match owners.get(&claim.value) {
                None => _ = owners.insert(claim.value, (index, claim.at.line)),
                Some((owner, line)) if *owner == index => {
                    let message = format!("the {what} `{}` is already in {}", claim.value, spot(*line));
                    reader.problem(&claim.at, message, "keep one of the two");
                }
                Some((owner, line)) => {
                    let other = &drafts[*owner].source.name;
                    let message = format!(
                        "the {what} `{}` already means the source `{other}` ({})",
                        claim.value,
                        spot(*line)
                    );
                    reader.problem(&claim.at, message, format!("give this source `{what}s` of its own"));
                }
            }
        }
    }
}

/// Labels under the endpoint's host: what the file says comes first, then the sources' own names, then the short labels
/// of known registries, the first source of each.
fn aliases(drafts: &mut [Draft], domain: &str) {
    let own = |draft: &Draft| Some(draft.source.name.to_lowercase());
    let known = |draft: &Draft| draft.known.and_then(|known| known.label).map(str::to_owned);
    for label in [&own as &dyn Fn(&Draft) -> Option<String>, &known] {
        for index in 0..drafts.len() {
            let Some(label) = label(&drafts[index]).filter(|label| is_dns_label(label)) else {
                continue;
            };
            let host = format!("{label}.{domain}");
            if !drafts.iter().any(|draft| draft.source.hosts.contains(&host)) {
                drafts[index].source.hosts.push(host);
            }
        }
    }
}

fn is_dns_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
}
