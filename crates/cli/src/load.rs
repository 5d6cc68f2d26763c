//! Which configuration holds, and reading it.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use entrepot_core::config::{self, DEFAULT, Loaded, Problems, SecretRef};

use crate::secrets;

/// The environment variable that names a configuration.
const VARIABLE: &str = "ENTREPOT_CONFIG";

/// Where a configuration may lie when nobody names one.
const PLACES: [&str; 2] = ["config.yml", "/etc/proxy/config.yml"];

/// The largest configuration that is read, in bytes. Core reads less; this only keeps a device from filling the memory.
const MAX_FILE: u64 = 16 << 20;

/// Where the configuration comes from.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    /// The one inside the program.
    BuiltIn,
}

/// A configuration, its text, and the secrets that were read for it.
pub(crate) struct Content {
    pub(crate) text: String,
    pub(crate) loaded: Loaded,
    pub(crate) secrets: Vec<SecretRef>,
}

/// Why there is no configuration to work with.
#[derive(Debug)]
pub(crate) enum Refusal {
    Unreadable {
        path: PathBuf,
        named_by: &'static str,
        why: String,
    },
    Wrong(Problems),
    /// A file of someone else's lies where one was to be written.
    Foreign(PathBuf),
    Unwritable {
        path: PathBuf,
        why: String,
    },
}

impl Source {
    /// The first that exists of: the argument, the file that `ENTREPOT_CONFIG` names, `./config.yml`,
    /// `/etc/proxy/config.yml`. A file that was named must exist.
    ///
    /// # Errors
    /// A named file is not there, or one that is there cannot be looked at.
    pub(crate) fn find(argument: Option<PathBuf>) -> Result<Source, Refusal> {
        let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = argument.map(|path| (path, "--config")).or(variable.map(|path| (path, VARIABLE)));
        if let Some((path, named_by)) = named {
            return match std::fs::metadata(&path) {
                Ok(_) => Ok(Source::File(path)),
                Err(error) => Err(Refusal::Unreadable { path, named_by, why: error.to_string() }),
            };
        }
        for place in PLACES {
            match std::fs::metadata(place) {
                Ok(_) => return Ok(Source::File(place.into())),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(unreadable(Path::new(place), &error)),
            }
        }
        Ok(Source::BuiltIn)
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Source::File(path) => Some(path),
            Source::BuiltIn => None,
        }
    }

    /// The text of it, unread.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn text(&self) -> Result<String, Refusal> {
        match self {
            Source::File(path) => read(path),
            Source::BuiltIn => Ok(DEFAULT.to_owned()),
        }
    }

    /// Reads it, secrets included; each call reads anew.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong: then everything that is.
    pub(crate) fn load(&self) -> Result<Content, Refusal> {
        let text = self.text()?;
        let mut secrets = Vec::new();
        let mut fetch = |reference: &SecretRef| {
            let secret = secrets::fetch(reference)?;
            secrets.push(reference.clone());
            Ok(secret)
        };
        let loaded = config::parse(&text, &self.to_string(), &mut fetch).map_err(Refusal::Wrong)?;
        Ok(Content { text, loaded, secrets })
    }
}

fn read(path: &Path) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    let outcome = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    outcome.map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        let why = format!("line {line} is not UTF-8; save the file as UTF-8");
        Refusal::Unreadable { path: path.to_owned(), named_by: "", why }
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::Unreadable { path: path.to_owned(), named_by: "", why: error.to_string() }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::BuiltIn => f.write_str("built-in default"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreadable { path, named_by: "", why } => {
                write!(f, "{}: the configuration cannot be read: {why}", path.display())
            }
            Refusal::Unreadable { path, named_by, why } => {
                write!(f, "{}: the configuration that {named_by} names cannot be read: {why}", path.display())
            }
            Refusal::Wrong(problems) => problems.fmt(f),
            Refusal::Foreign(path) => {
                let remedy = "move it away, choose another --dir, or replace it with --force";
                write!(f, "{}: this program did not write this file: {remedy}", path.display())
            }
            Refusal::Unwritable { path, why } => write!(f, "{}: cannot be written: {why}", path.display()),
        }
    }
}
