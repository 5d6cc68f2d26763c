//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::sync::Arc;

/// One thing to put right, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as the caller gave it.
    pub file: Arc<str>,
    /// From 1; 0 when the place is unknown.
    pub line: u32,
    /// From 1, in characters; 0 when the place is unknown.
    pub column: u32,
    /// The path of the key: `proxy.sources[1].auth.password_file`. Empty for the file as a whole.
    pub key: String,
    /// What is wrong. It never quotes a secret.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// All problems of a file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// A problem before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub message: String,
    pub remedy: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), remedy: remedy.into() }
    }
}

/// `config.yml:12: proxy.sources[1].url: what is wrong — what to do`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {} — {}", self.message, self.remedy)
    }
}

/// One problem per line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
