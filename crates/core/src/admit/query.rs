//! The query of a request: `ns`, which is ours, and what goes upstream.

use entrepot_oci::digest::Digest;
use entrepot_oci::tags::Page;

use super::Request;
use crate::failure::{Failure, Reason};

/// Bytes of a query at most.
pub const MAX_QUERY: usize = 4096;

/// A query, decoded once.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// The registry that is meant.
    pub(super) ns: Option<String>,
    raw: String,
}

impl Query {
    pub(super) fn parse(raw: &str) -> Result<Query, Failure> {
        if raw.len() > MAX_QUERY {
            return Err(Failure::new(
                Reason::RequestInvalid,
                format!("a query has at most {MAX_QUERY} bytes"),
            ));
        }
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        let mut all = pairs.iter().filter(|(key, _)| key == "ns").map(|(_, value)| value.clone());
        let ns = all.next();
        if all.next().is_some() {
            return Err(Failure::new(Reason::NameUnknown, "`ns` is given more than once"));
        }
        drop(all);
        Ok(Query { pairs, ns, raw: raw.to_owned() })
    }

    fn one(&self, name: &str) -> Result<Option<String>, Failure> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Failure::new(Reason::RequestInvalid, format!("`{name}` is given more than once"))),
        }
    }

    /// The query for upstream, encoded anew: all but `ns`, which is ours, and with `n` as clamped.
    fn upstream(&self, n: Option<u64>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.pairs.iter().filter(|(key, _)| key != "ns") {
            match n {
                Some(n) if key == "n" => query.append_pair("n", &n.to_string()),
                _ => query.append_pair(key, value),
            };
        }
        query.finish()
    }
}

pub(super) fn tags(query: &Query) -> Result<Request, Failure> {
    let page = Page::parse(&query.raw)
        .map_err(|error| Failure::new(Reason::PaginationInvalid, error.to_string()))?;
    let query = query.upstream(page.n);
    Ok(Request::Tags { page, query })
}

pub(super) fn referrers(digest: Digest, query: &Query) -> Result<Request, Failure> {
    Ok(Request::Referrers { digest, artifact_type: query.one("artifactType")?, query: query.upstream(None) })
}
