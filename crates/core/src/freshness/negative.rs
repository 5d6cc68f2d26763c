//! What upstream said is not there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason};
use crate::time::Wall;

/// A remembered "not there". Only upstream's own word makes one (T-CP4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NegativeRecord {
    pub absence: Absence,
    pub at: Wall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    Manifest,
    Blob,
    Name,
}

impl NegativeRecord {
    /// A record, if the failure says in so many words that the object is not there; nothing else may be remembered.
    pub fn of(failure: &Failure, now: Wall) -> Option<NegativeRecord> {
        let absence = match failure.reason {
            Reason::ManifestUnknown => Absence::Manifest,
            Reason::BlobUnknown => Absence::Blob,
            Reason::NameUnknown => Absence::Name,
            _ => return None,
        };
        Some(NegativeRecord { absence, at: now })
    }

    /// The failure again, while the record stands: less than `ttl` after it was made.
    pub fn stands(&self, ttl: Duration, now: Wall) -> Option<Failure> {
        if self.at > now || now.since(self.at) >= ttl {
            return None;
        }
        Some(match self.absence {
            Absence::Manifest => Failure::new(
                Reason::ManifestUnknown,
                "upstream has no such manifest, as it said a moment ago",
            ),
            Absence::Blob => {
                Failure::new(Reason::BlobUnknown, "upstream has no such blob, as it said a moment ago")
            }
            Absence::Name => {
                Failure::new(Reason::NameUnknown, "upstream has no such repository, as it said a moment ago")
            }
        })
    }
}
