//! JSON, whose reader tells the place of what it cannot read, and no other.

use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer};

use super::{Node, Placed, Places, Tree, Unread};
use crate::config::problem::Complaint;

/// See [`Node::parse`].
pub(in crate::config) fn read(text: &str) -> Result<Node, Unread> {
    serde_json::from_str::<Placed<Tree<Json>, Json>>(text).map(Placed::node).map_err(|error| {
        let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let complaint = Complaint::new(
            format!("this is not JSON: {error}"),
            "deploy it as `entrepot worker init` writes it",
        );
        (place(error.line()), place(error.column()), complaint)
    })
}

struct Json;

impl Places for Json {
    fn placed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Placed<T, Json>, D::Error> {
        let value = T::deserialize(deserializer)?;
        Ok(Placed { line: 0, column: 0, value, by: PhantomData })
    }
}
