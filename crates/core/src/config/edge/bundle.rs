//! What is deployed: one value that holds no secret, and a list of the secrets that it needs.

use super::super::model::Secret;
use super::super::problem::{Complaint, Problems};
use super::super::read::{At, Reader, Site};
use super::super::tree::{Entry, Node, Value};
use super::{Place, check, stand_in};

/// The configuration of a Worker.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// JSON on one line, which [`super::parse`] reads. The same file gives the same text.
    pub value: String,
    /// In the order of the file, each once.
    pub wanted: Vec<Wanted>,
}

/// A secret that must be put where the Worker finds it.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub kept: Kept,
    /// The name of the Worker's secret, or the key in its KV namespace.
    pub name: String,
    /// What needs it: `the password of source dockerhub`.
    pub purpose: String,
    /// What is to be put there, if it stood in the file. It is to be handed on, never shown.
    pub value: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A secret of the Worker.
    Secret,
    /// The Worker's KV namespace.
    Kv,
}

/// Makes of a file what the edge gets: without what means nothing there, and with a secret named where a password stood.
///
/// # Errors
/// As [`check`].
pub fn bundle(text: &str, file: &str, place: Place) -> Result<Bundle, Problems> {
    check(text, file, place)?;
    let mut root = Node::parse(text).map_err(|(_, _, complaint)| failed(file, complaint))?;
    let mut wanted = List(Vec::new());
    if let Some(proxy) = root.entry_mut("proxy") {
        edit(&mut proxy.node, &mut wanted);
    }
    let value = serde_json::to_string(&root).map_err(|error| {
        failed(file, Complaint::new(error.to_string(), "write plain texts, numbers, lists and sections"))
    })?;
    Ok(Bundle { value, wanted: wanted.0 })
}

fn edit(proxy: &mut Node, wanted: &mut List) {
    remove(proxy, &["listen", "admin", "tls"]);
    if let Some(cache) = proxy.entry_mut("cache") {
        remove(&mut cache.node, &["dir"]);
    }
    if let Some(access) = proxy.entry("access") {
        for (key, what) in [
            ("tokens_env", "clients' tokens"),
            ("secret_hosts_env", "clients' secret hosts"),
            ("secret_paths_env", "clients' secret paths"),
        ] {
            wanted.named(Kept::Secret, access.node.entry(key), what);
        }
    }
    let Some(Entry { node: Node { value: Value::List(sources), .. }, .. }) = proxy.entry_mut("sources")
    else {
        return;
    };
    // First the names that the file gives, so that none of ours is one of them.
    for source in sources.iter() {
        let purpose = purpose(source);
        let Some(auth) = source.entry("auth") else { continue };
        wanted.named(Kept::Secret, auth.node.entry("password_env"), &purpose);
        wanted.named(Kept::Kv, auth.node.entry("password_kv"), &purpose);
    }
    for source in sources {
        let (name, purpose) = (wanted.free(&variable(source)), purpose(source));
        let password = source.entry_mut("auth").and_then(|auth| auth.node.entry_mut("password"));
        let Some(entry) = password else { continue };
        let value = Value::Text(name.clone());
        if let Value::Text(password) = std::mem::replace(&mut entry.node.value, value) {
            entry.key = "password_env".into();
            let value = Some(Secret::new(password));
            wanted.0.push(Wanted { kept: Kept::Secret, name, purpose, value });
        }
    }
}

fn remove(section: &mut Node, keys: &[&str]) {
    if let Value::Map(entries) = &mut section.value {
        entries.retain(|entry| !keys.contains(&entry.key.as_str()));
    }
}

fn name(source: &Node) -> &str {
    match source.entry("name").map(|entry| &entry.node.value) {
        Some(Value::Text(name)) => name,
        _ => "",
    }
}

fn purpose(source: &Node) -> String {
    format!("the password of source {}", name(source))
}

/// `ENTREPOT_PASSWORD_DOCKERHUB`
fn variable(source: &Node) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("ENTREPOT_PASSWORD_{}", name(source).chars().map(word).collect::<String>())
}

struct List(Vec<Wanted>);

impl List {
    /// One that the file names.
    fn named(&mut self, kept: Kept, entry: Option<&Entry>, purpose: &str) {
        let Some(Value::Text(name)) = entry.map(|entry| &entry.node.value) else { return };
        match self.0.iter_mut().find(|wanted| wanted.kept == kept && wanted.name == *name) {
            Some(known) => known.purpose = format!("{} and {purpose}", known.purpose),
            None => {
                self.0.push(Wanted { kept, name: name.clone(), purpose: purpose.to_owned(), value: None });
            }
        }
    }

    /// This name, or one like it that nothing else has: `a-b` and `a_b` make the same variable.
    fn free(&self, name: &str) -> String {
        let taken = |name: &str| self.0.iter().any(|wanted| wanted.name == name);
        let others = (2..).map(|number| format!("{name}_{number}"));
        std::iter::once(name.to_owned()).chain(others).find(|name| !taken(name)).unwrap_or_default()
    }
}

fn failed(file: &str, complaint: Complaint) -> Problems {
    let mut secrets = stand_in;
    let mut reader = Reader::new(file, Site::EdgeToBe, &mut secrets);
    reader.complain(&At { key: String::new(), line: 0, column: 0 }, complaint);
    Problems(reader.problems)
}
