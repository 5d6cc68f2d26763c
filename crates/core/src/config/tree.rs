//! The text as a tree that remembers where each value stands: YAML, or JSON alone where the feature `yaml` is off. What is
//! deployed to the edge is JSON, and need not bring a reader of YAML along.
//!
//! The whole file is read before anything in it is judged, so that one wrong value does not hide the next.

#[cfg(any(test, not(feature = "yaml")))]
pub(super) mod json;
#[cfg(feature = "yaml")]
mod yaml;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::problem::Complaint;

/// The largest configuration that is read, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 20;

/// What is wrong with a text, and its line and column.
pub(super) type Unread = (u32, u32, Complaint);

/// A value and its place. Lines and columns count from 1; 0 is nowhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) value: Value,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    /// As it was understood, not as it was spelt: `010` and `10` look the same.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, repeated keys included.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) node: Node,
}

impl Node {
    /// Reads one document.
    ///
    /// # Errors
    /// What is wrong with the text, with line and column, when it is not YAML (JSON without that feature), is larger than
    /// [`MAX_TEXT`], is nested too deep, or expands to too much through aliases.
    pub(super) fn parse(text: &str) -> Result<Node, Unread> {
        #[cfg(not(feature = "yaml"))]
        use json::read;
        #[cfg(feature = "yaml")]
        use yaml::read;

        if text.len() > MAX_TEXT {
            let message = format!("the file has {} bytes; {MAX_TEXT} are read at most", text.len());
            return Err((0, 0, Complaint::new(message, "make it smaller")));
        }
        read(text)
    }

    /// The first of this name, if this is a section.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// As [`Node::entry`], to change it.
    pub(super) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What the value is called in messages.
    pub(super) fn noun(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a section",
        }
    }
}

/// What a reader tells of the places of values.
trait Places {
    fn placed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Placed<T, Self>, D::Error>;
}

/// A value, and where it stands.
struct Placed<T, P: ?Sized> {
    line: u32,
    column: u32,
    value: T,
    by: PhantomData<P>,
}

/// A value whose parts stand where that reader says.
struct Tree<P>(Value, PhantomData<P>);

impl<P> Placed<Tree<P>, P> {
    fn node(self) -> Node {
        Node { line: self.line, column: self.column, value: self.value.0 }
    }
}

impl<'de, T: Deserialize<'de>, P: Places> Deserialize<'de> for Placed<T, P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        P::placed(deserializer)
    }
}

impl<'de, P: Places> Deserialize<'de> for Tree<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor::<P>(PhantomData))?;
        Ok(Tree(value, PhantomData))
    }
}

struct ValueVisitor<P>(PhantomData<P>);

impl<'de, P: Places> Visitor<'de> for ValueVisitor<P> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Placed<Tree<P>, P>>()? {
            list.push(item.node());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Placed<String, P>>()? {
            let node = map.next_value::<Placed<Tree<P>, P>>()?.node();
            entries.push(Entry { key: key.value, line: key.line, column: key.column, node });
        }
        Ok(Value::Map(entries))
    }
}

/// The other way: a tree as text, in its own order.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(text) => match text.parse::<u64>() {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.serialize_str(text),
            },
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for entry in entries {
                    map.serialize_entry(&entry.key, &entry.node)?;
                }
                map.end()
            }
        }
    }
}
