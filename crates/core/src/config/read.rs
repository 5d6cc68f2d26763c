//! Walks the tree by the table: finds unknown, repeated, missing and mistyped keys, and hands out typed values.

use std::sync::Arc;

use super::SecretRef;
use super::problem::{Complaint, Problem};
use super::schema::{self, Default, Key, Kind};
use super::tree::{Node, Value};
use super::value::Scalar;

/// More problems than anyone reads; those after them show when these are put right.
const MAX_PROBLEMS: usize = 200;

/// Where the configuration is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A machine, with files, programs and an environment.
    Home,
    /// A Worker, with secrets and a KV namespace.
    Edge,
    /// A Worker, judged before it is deployed. A local runtime reaches private addresses, which the platform does not.
    EdgeToBe,
}

impl Site {
    pub(super) fn is_edge(self) -> bool {
        self != Site::Home
    }
}

/// Collects what is wrong.
pub(super) struct Reader<'a> {
    file: Arc<str>,
    pub(super) site: Site,
    secrets: &'a mut dyn FnMut(&SecretRef) -> Result<String, String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The path of a key, and its place in the file.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) at: At,
    pub(super) value: T,
}

/// A mapping of the file that has been held against its table. An absent one has no entries, and so only defaults.
pub(super) struct Section<'n> {
    pub(super) at: At,
    table: &'static schema::Section,
    entries: Vec<(&'static Key, Found<&'n Node>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        file: &str,
        site: Site,
        secrets: &'a mut dyn FnMut(&SecretRef) -> Result<String, String>,
    ) -> Reader<'a> {
        Reader { file: file.into(), site, secrets, problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem(&mut self, at: &At, message: impl Into<String>, remedy: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = self.place(at, message.into(), remedy.into());
            self.problems.push(problem);
        }
    }

    pub(super) fn complain(&mut self, at: &At, complaint: Complaint) {
        self.problem(at, complaint.message, complaint.remedy);
    }

    pub(super) fn warn(&mut self, at: &At, message: impl Into<String>, remedy: impl Into<String>) {
        let warning = self.place(at, message.into(), remedy.into());
        self.warnings.push(warning);
    }

    /// Asks the host for a secret; what it says when it cannot is a problem.
    pub(super) fn secret(&mut self, at: &At, reference: &SecretRef) -> Option<String> {
        if self.site.is_edge() && matches!(reference, SecretRef::File(_)) {
            let remedy =
                "put its content into a secret of the Worker, and name that with the key that ends in `_env`";
            self.problem(at, "there are no files at the edge", remedy);
            return None;
        }
        match (self.secrets)(reference) {
            Ok(secret) if secret.is_empty() => {
                self.problem(at, format!("{reference} is empty"), "put the secret there");
                None
            }
            Ok(secret) => Some(secret),
            Err(why) => {
                let remedy = match (reference, self.site) {
                    (SecretRef::File(_), _) => {
                        "create the file, and let the user who runs the mirror read it"
                    }
                    (SecretRef::Env(_), Site::Home) => "set the variable in the environment of the mirror",
                    (SecretRef::Env(_), Site::Edge | Site::EdgeToBe) => {
                        "set the secret with `wrangler secret put`"
                    }
                };
                self.problem(at, format!("{reference} cannot be read: {why}"), remedy);
                None
            }
        }
    }

    fn place(&self, at: &At, message: String, remedy: String) -> Problem {
        let file = self.file.clone();
        Problem { file, line: at.line, column: at.column, key: at.key.clone(), message, remedy }
    }
}

impl At {
    pub(super) fn of(key: String, node: &Node) -> At {
        At { key, line: node.line, column: node.column }
    }

    fn child(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }
}

/// What messages call another place. Readers of JSON know none.
pub(super) fn spot(line: u32) -> String {
    if line == 0 { "another place".to_owned() } else { format!("line {line}") }
}

impl<'n> Section<'n> {
    /// Holds a mapping against its table.
    pub(super) fn open(
        reader: &mut Reader<'_>,
        at: At,
        node: &'n Node,
        table: &'static schema::Section,
    ) -> Section<'n> {
        let mut section = Section { at, table, entries: Vec::new() };
        let Value::Map(entries) = &node.value else {
            let known: Vec<_> = table.keys.iter().map(|key| key.name).collect();
            reader.problem(
                &section.at,
                format!("this is {}, but a section is wanted", node.noun()),
                format!("write keys and values below it; it knows {}", known.join(", ")),
            );
            return section;
        };
        for entry in entries {
            let at =
                At { key: section.at.child(&printable(&entry.key)), line: entry.line, column: entry.column };
            match table.key(&entry.key) {
                None => reader.problem(&at, "this key is unknown", unknown_key(table, &entry.key)),
                Some(key) => section.admit(reader, at, key, &entry.node),
            }
        }
        for key in table.keys.iter().filter(|key| key.default == Default::Required) {
            if !section.has(key.name) {
                let at = At { key: section.at.child(key.name), ..section.at.clone() };
                let remedy = match key.example {
                    "" => format!("add `{}:`", key.name),
                    example => format!("add it, for example `{}: {example}`", key.name),
                };
                reader.problem(&at, "this key is missing", remedy);
            }
        }
        section
    }

    fn admit(&mut self, reader: &mut Reader<'_>, at: At, key: &'static Key, node: &'n Node) {
        if let Some((_, first)) = self.entries.iter().find(|(known, _)| known.name == key.name) {
            let message = format!("this key is already in {}", spot(first.at.line));
            return reader.problem(&at, message, "keep one of the two");
        }
        // An empty value counts as given, so that a required key is not reported twice.
        if matches!(node.value, Value::Null) {
            reader.problem(&at, "this key has no value", "give it a value, or remove the key");
        }
        let line = if node.line == 0 { at.line } else { node.line };
        let column = if node.line == 0 { at.column } else { node.column };
        self.entries.push((key, Found { at: At { key: at.key, line, column }, value: node }));
    }

    pub(super) fn absent(at: At, table: &'static schema::Section) -> Section<'n> {
        Section { at, table, entries: Vec::new() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The place of a key, or where it would stand.
    pub(super) fn at(&self, name: &str) -> At {
        match self.entries.iter().find(|(key, _)| key.name == name) {
            Some((_, found)) => found.at.clone(),
            None => At { key: self.at.child(name), ..self.at.clone() },
        }
    }

    fn node(&self, name: &str) -> Option<&Found<&'n Node>> {
        let found = self.entries.iter().find(|(key, _)| key.name == name).map(|(_, found)| found)?;
        (!matches!(found.value.value, Value::Null)).then_some(found)
    }

    fn default_text(&self, name: &str) -> Option<&'static str> {
        match self.table.key(name)?.default {
            Default::Value(text) => Some(text),
            _ => None,
        }
    }

    /// The value of the file, or, where that is absent or wrong, of the table.
    pub(super) fn get<T: Scalar>(&self, reader: &mut Reader<'_>, name: &str) -> Option<T> {
        debug_assert_eq!(self.table.key(name).map(|key| key.kind), Some(T::KIND), "{name}");
        let given = self.node(name).and_then(|found| scalar(reader, &found.at, found.value));
        given.or_else(|| T::read(self.default_text(name)?).ok())
    }

    /// The values of a list, each with its place; `None` when it is absent and the table has no default.
    pub(super) fn list<T: Scalar>(&self, reader: &mut Reader<'_>, name: &str) -> Option<Vec<Found<T>>> {
        let kind = self.table.key(name).map(|key| key.kind);
        debug_assert!(
            kind == Some(Kind::List(&T::KIND)) || kind == Some(Kind::OneOrMore(&T::KIND)),
            "{name}"
        );
        let Some(found) = self.node(name) else {
            let value = T::read(self.default_text(name)?).ok()?;
            return Some(vec![Found { at: self.at(name), value }]);
        };
        match &found.value.value {
            Value::List(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, node)| {
                        let at = At::of(format!("{}[{index}]", found.at.key), node);
                        Some(Found { value: scalar(reader, &at, node)?, at })
                    })
                    .collect(),
            ),
            _ if matches!(kind, Some(Kind::OneOrMore(_))) => {
                let value = scalar(reader, &found.at, found.value)?;
                Some(vec![Found { at: found.at.clone(), value }])
            }
            _ => {
                let message = format!("this is {}, but a list is wanted", found.value.noun());
                reader.problem(&found.at, message, "put it in brackets: [\"…\"]");
                None
            }
        }
    }

    pub(super) fn section(&self, reader: &mut Reader<'_>, name: &str) -> Option<Section<'n>> {
        let found = self.node(name)?;
        let Some(Kind::Section(table)) = self.table.key(name).map(|key| key.kind) else {
            return None;
        };
        Some(Section::open(reader, found.at.clone(), found.value, table))
    }

    /// The section, or one that has only defaults.
    pub(super) fn section_or_defaults(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        table: &'static schema::Section,
    ) -> Section<'n> {
        self.section(reader, name).unwrap_or_else(|| Section::absent(self.at(name), table))
    }

    pub(super) fn sections(&self, reader: &mut Reader<'_>, name: &str) -> Vec<Section<'n>> {
        let Some(found) = self.node(name) else {
            return Vec::new();
        };
        let Some(Kind::Sections(table)) = self.table.key(name).map(|key| key.kind) else {
            return Vec::new();
        };
        let Value::List(items) = &found.value.value else {
            let message = format!("this is {}, but a list is wanted", found.value.noun());
            reader.problem(&found.at, message, "begin each of its sections with `- `");
            return Vec::new();
        };
        let open = |(index, node)| {
            Section::open(reader, At::of(format!("{}[{index}]", found.at.key), node), node, table)
        };
        items.iter().enumerate().map(open).collect()
    }
}

fn scalar<T: Scalar>(reader: &mut Reader<'_>, at: &At, node: &Node) -> Option<T> {
    let wants_number = matches!(T::KIND, Kind::Duration | Kind::Size | Kind::Count);
    let text = match &node.value {
        Value::Text(text) if !matches!(T::KIND, Kind::Bool | Kind::Count) => text.as_str(),
        Value::Number(text) if wants_number => text.as_str(),
        Value::Bool(true) if T::KIND == Kind::Bool => "true",
        Value::Bool(false) if T::KIND == Kind::Bool => "false",
        _ => {
            let (wanted, remedy) = match T::KIND {
                Kind::Bool => ("true or false", "write true or false, without quotes"),
                Kind::Count => ("a number", "write a number, without quotes"),
                _ if matches!(node.value, Value::Number(_) | Value::Bool(_)) => {
                    ("a text", "put it in double quotes")
                }
                _ => ("a text", "write one value"),
            };
            reader.problem(at, format!("this is {}, but {wanted} is wanted", node.noun()), remedy);
            return None;
        }
    };
    match T::read(text) {
        Ok(value) => Some(value),
        Err(complaint) => {
            reader.complain(at, complaint);
            None
        }
    }
}

fn unknown_key(table: &schema::Section, key: &str) -> String {
    let names = table.keys.iter().map(|key| key.name);
    match closest(key, names) {
        Some(name) => format!("did you mean `{name}`? Otherwise remove it"),
        None => {
            let known: Vec<_> = table.keys.iter().map(|key| key.name).collect();
            format!("remove it; known here are {}", known.join(", "))
        }
    }
}

/// The known name that `text` most resembles, if it resembles one at all.
pub(super) fn closest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if text.len() > 64 {
        return None;
    }
    let text = text.to_lowercase().replace('-', "_");
    known
        .map(|name| (strsim::jaro_winkler(&text, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A key of the file for a message: bounded, and without control characters.
fn printable(key: &str) -> String {
    key.chars()
        .take(64)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}
