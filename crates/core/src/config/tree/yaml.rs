//! YAML, within limits.

use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};

use super::{Node, Placed, Places, Tree, Unread};
use crate::config::problem::Complaint;

/// See [`Node::parse`].
pub(super) fn read(text: &str) -> Result<Node, Unread> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 24,
            max_nodes: 20_000,
            max_events: 80_000,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_recorded_anchor_events: 20_000,
            flow_nesting_limit: 24,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        emit_comments: false,
        strict_booleans: true,
    };
    let read = serde_saphyr::from_str_with_options::<Placed<Tree<Yaml>, Yaml>>(text, options);
    read.map(Placed::node).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) =
            error.location().map_or((0, 0), |place| (clamp(place.line()), clamp(place.column())));
        (line, column, Complaint::new(error.to_string(), "make it one valid YAML document"))
    })
}

struct Yaml;

impl Places for Yaml {
    fn placed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Placed<T, Yaml>, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::deserialize(deserializer)?;
        let (line, column) = (clamp(referenced.line()), clamp(referenced.column()));
        Ok(Placed { line, column, value, by: PhantomData })
    }
}

fn clamp(place: u64) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
