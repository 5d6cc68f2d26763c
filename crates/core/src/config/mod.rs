//! The configuration: what the operator wrote, checked whole and turned into values that need no second look.

mod build;
mod claims;
pub mod edge;
mod model;
mod overlap;
mod problem;
mod read;
pub mod schema;
#[cfg(feature = "yaml")]
mod show;
mod source;
mod tree;
mod units;
mod value;
mod warm;

use std::fmt;

pub use model::*;
pub use problem::{Problem, Problems};
#[cfg(feature = "yaml")]
pub use show::show;

use problem::Complaint;
use read::{At, Reader, Site};
use tree::{Node, Unread, Value};

/// The configuration that holds when there is no file: well-known registries, on the loopback address.
pub const DEFAULT: &str = include_str!("default.yml");

/// Where a secret is kept. The host fetches it; core never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// A path, as the file spells it.
    File(String),
    /// The name of an environment variable.
    Env(String),
}

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What works, but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration. `file` is the name that problems are to bear. `secrets` fetches the content of a file or
/// variable, without the line break at its end, or says why it cannot; it is asked once for each reference, and also for
/// the files of `tls`, whose content is not kept.
///
/// # Errors
/// *All* that is wrong, in the order of the lines, unless the text is not YAML at all: then where it ceases to be.
pub fn parse(
    text: &str,
    file: &str,
    secrets: &mut dyn FnMut(&SecretRef) -> Result<String, String>,
) -> Result<Loaded, Problems> {
    read_all(Node::parse(text), Reader::new(file, Site::Home, secrets))
}

fn read_all(parsed: Result<Node, Unread>, mut reader: Reader<'_>) -> Result<Loaded, Problems> {
    let config = match parsed {
        Err((line, column, complaint)) => {
            reader.complain(&At { key: String::new(), line, column }, complaint);
            None
        }
        Ok(Node { value: Value::Null, .. }) => {
            let complaint = Complaint::new("the file is empty", "begin it with `proxy:`");
            reader.complain(&At { key: String::new(), line: 0, column: 0 }, complaint);
            None
        }
        Ok(root) => {
            edge::judge(&mut reader, &root);
            build::config(&mut reader, &root)
        }
    };
    let (mut problems, warnings) = (reader.problems, reader.warnings);
    problems.sort_by_key(|problem| (problem.line, problem.column));
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        _ => Err(Problems(problems)),
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::File(path) => write!(f, "the file `{path}`"),
            SecretRef::Env(name) => write!(f, "the environment variable `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests;
