//! The shapes that a manifest's values take, as serde reads them: each stops at the first thing that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::read::{DescriptorFields, Fields, Reader, skip};
use super::{Descriptor, ManifestError};

/// An object whose known keys are read strictly.
pub(super) struct Object<'r, T> {
    pub(super) reader: &'r Reader,
    pub(super) at: &'static str,
    pub(super) fields: PhantomData<T>,
}

impl<'de, T: Fields> DeserializeSeed<'de> for Object<'_, T> {
    type Value = T::Whole;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Whole, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<'_, T> {
    type Value = T::Whole;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T::Whole, A::Error> {
        let mut fields = T::default();
        let mut seen = 0_u32;
        while let Some(key) =
            map.next_key_seed(Key { reader: self.reader, at: self.at, known: T::KEYS, seen: &mut seen })?
        {
            match key {
                Some(key) => fields.field(key, self.at, &mut map, self.reader)?,
                None => skip(&mut map)?,
            }
        }
        fields.finish(self.at).map_err(|fault| self.reader.fail(fault))
    }
}

/// A key: the known one it is, or `None`. Refused where it comes twice, or where a reader that folds case, as Go's does,
/// would take it for a known one.
struct Key<'r> {
    reader: &'r Reader,
    at: &'static str,
    known: &'static [&'static str],
    seen: &'r mut u32,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<&'static str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<&'static str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let Some(index) = self.known.iter().position(|known| folds_to(text, known)) else {
            return Ok(None);
        };
        let (key, at, bit) = (self.known[index], self.at, 1 << index);
        if text != key {
            return Err(self.reader.fail(ManifestError::KeyCase { at, key }));
        }
        if *self.seen & bit != 0 {
            return Err(self.reader.fail(ManifestError::DuplicateKey { at, key }));
        }
        *self.seen |= bit;
        Ok(Some(key))
    }
}

/// Equality as Go's encoding/json sees it: ASCII case, and the two other letters that fold to ASCII.
fn folds_to(text: &str, known: &str) -> bool {
    // The long s and the Kelvin sign take two and three bytes.
    if text.len() < known.len() || text.len() > known.len() * 3 {
        return false;
    }
    let fold = |character| match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    text.chars().map(fold).eq(known.chars().map(fold))
}

/// A value or `null`.
pub(super) struct Nullable<S>(pub(super) S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nullable<S> {
    type Value = Option<S::Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Nullable<S> {
    type Value = Option<S::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }
    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// A list of descriptors.
pub(super) struct List<'r> {
    pub(super) reader: &'r Reader,
    pub(super) at: &'static str,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Descriptor>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Descriptor>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(descriptor) = seq.next_element_seed(self.reader.object::<DescriptorFields>(self.at))? {
            self.reader.count()?;
            list.push(descriptor);
        }
        Ok(list)
    }
}

pub(super) struct Urls<'r> {
    pub(super) reader: &'r Reader,
}

impl<'de> DeserializeSeed<'de> for Urls<'_> {
    type Value = Vec<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Urls<'_> {
    type Value = Vec<String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of URLs")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut urls = Vec::new();
        while let Some(url) = seq.next_element()? {
            self.reader.count()?;
            urls.push(url);
        }
        Ok(urls)
    }
}

pub(super) struct Annotations<'r> {
    pub(super) reader: &'r Reader,
    pub(super) at: &'static str,
}

impl<'de> DeserializeSeed<'de> for Annotations<'_> {
    type Value = BTreeMap<String, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Annotations<'_> {
    type Value = BTreeMap<String, String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut annotations = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            self.reader.count()?;
            if annotations.insert(key, value).is_some() {
                return Err(self.reader.fail(ManifestError::DuplicateAnnotation { at: self.at }));
            }
        }
        Ok(annotations)
    }
}

/// A text with a grammar of its own.
pub(super) struct Text<'r, F> {
    pub(super) reader: &'r Reader,
    pub(super) parse: F,
}

impl<'de, T, F: FnOnce(&str) -> Result<T, ManifestError>> DeserializeSeed<'de> for Text<'_, F> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> Result<T, ManifestError>> Visitor<'_> for Text<'_, F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|fault| self.reader.fail(fault))
    }
}

pub(super) struct Size<'r> {
    pub(super) reader: &'r Reader,
    pub(super) at: &'static str,
}

impl Size<'_> {
    fn refuse<E: Error>(&self) -> E {
        self.reader.fail(ManifestError::Size { at: self.at })
    }
}

impl<'de> DeserializeSeed<'de> for Size<'_> {
    type Value = u64;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl Visitor<'_> for Size<'_> {
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes")
    }
    fn visit_u64<E: Error>(self, size: u64) -> Result<u64, E> {
        if i64::try_from(size).is_ok() { Ok(size) } else { Err(self.refuse()) }
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<u64, E> {
        Err(self.refuse())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<u64, E> {
        Err(self.refuse())
    }
}
