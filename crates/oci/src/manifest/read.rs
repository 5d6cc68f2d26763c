//! Reads a manifest's JSON in one pass: known keys strictly, everything else skipped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::{Descriptor, JsonFault, MAX_ITEMS, ManifestError, Platform};
use crate::digest::Digest;
use crate::media::{MediaType, MediaTypeError};

/// The top level of a manifest. Go writes an absent list as `null`: such a key counts as there (`has_…`), but has no
/// value, so that it neither is missing nor makes the manifest ambiguous.
#[derive(Default)]
pub(super) struct Document {
    pub(super) schema_version: Option<u64>,
    pub(super) media_type: Option<MediaType>,
    pub(super) config: Option<Descriptor>,
    pub(super) has_layers: bool,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) has_manifests: bool,
    pub(super) manifests: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) fs_layers: bool,
}

/// Reads `text`, which is one JSON object and nothing after it.
pub(super) fn document(text: &str) -> Result<Document, ManifestError> {
    let reader = Reader::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let document = reader
        .object::<Document>("the manifest")
        .deserialize(&mut json)
        .and_then(|document| {
            json.end()?;
            Ok(document)
        });
    document.map_err(|error| reader.fault.take().unwrap_or_else(|| json_error(&error)))
}

/// serde_json's own messages quote the input, so only the place is kept.
fn json_error(error: &serde_json::Error) -> ManifestError {
    let fault = match error.classify() {
        Category::Syntax | Category::Io => JsonFault::Malformed,
        Category::Eof => JsonFault::Truncated,
        Category::Data => JsonFault::WrongType,
    };
    ManifestError::Json {
        fault,
        line: error.line(),
        column: error.column(),
    }
}

/// What the parts of one reading share.
#[derive(Default)]
struct Reader {
    /// Our own reason for stopping, as serde's errors can only carry text.
    fault: Cell<Option<ManifestError>>,
    items: Cell<usize>,
    /// The last media type read: lists mostly repeat theirs.
    media_type: RefCell<Option<MediaType>>,
}

impl Reader {
    fn fail<E: Error>(&self, fault: ManifestError) -> E {
        self.fault.set(Some(fault));
        E::custom("refused")
    }

    fn count<E: Error>(&self) -> Result<(), E> {
        self.items.set(self.items.get() + 1);
        if self.items.get() > MAX_ITEMS {
            Err(self.fail(ManifestError::TooManyItems))
        } else {
            Ok(())
        }
    }

    fn parse_media_type(&self, at: &'static str, text: &str) -> Result<MediaType, ManifestError> {
        let mut last = self.media_type.borrow_mut();
        match &*last {
            Some(known) if known.as_str() == text => Ok(known.clone()),
            _ => {
                let parsed =
                    MediaType::parse(text).map_err(|source| ManifestError::MediaType { at, source })?;
                Ok(last.insert(parsed).clone())
            }
        }
    }

    fn object<T>(&self, at: &'static str) -> Object<'_, T> {
        Object {
            reader: self,
            at,
            fields: PhantomData,
        }
    }

    fn list(&self, at: &'static str) -> Nullable<List<'_>> {
        Nullable(List { reader: self, at })
    }

    fn descriptor(&self, at: &'static str) -> Nullable<Object<'_, DescriptorFields>> {
        Nullable(self.object(at))
    }

    fn annotations(&self, at: &'static str) -> Nullable<Annotations<'_>> {
        Nullable(Annotations { reader: self, at })
    }

    fn text<T, F>(&self, parse: F) -> Text<'_, F>
    where
        F: FnOnce(&str) -> Result<T, ManifestError>,
    {
        Text { reader: self, parse }
    }
}

/// What is read from an object's known keys.
trait Fields: Default {
    const KEYS: &'static [&'static str];
    /// What the fields make when all are read.
    type Whole;
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        at: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error>;
    fn finish(self, at: &'static str) -> Result<Self::Whole, ManifestError>;
}

impl Fields for Document {
    const KEYS: &'static [&'static str] = &[
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "subject",
        "artifactType",
        "annotations",
        "fsLayers",
    ];
    type Whole = Document;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        at: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match key {
            "schemaVersion" => self.schema_version = Some(map.next_value()?),
            // Clients compare this text with the header's, so nothing is folded or cut off.
            "mediaType" => {
                self.media_type = Some(map.next_value_seed(reader.text(|text| {
                    let parsed = reader.parse_media_type(at, text)?;
                    let exact = parsed.as_str() == text;
                    exact.then_some(parsed).ok_or(ManifestError::MediaType {
                        at,
                        source: MediaTypeError::Malformed,
                    })
                }))?);
            }
            "config" => self.config = map.next_value_seed(reader.descriptor("config"))?,
            "layers" => {
                self.has_layers = true;
                self.layers = map.next_value_seed(reader.list("layers"))?;
            }
            "manifests" => {
                self.has_manifests = true;
                self.manifests = map.next_value_seed(reader.list("manifests"))?;
            }
            "subject" => self.subject = map.next_value_seed(reader.descriptor("subject"))?,
            "artifactType" => self.artifact_type = map.next_value()?,
            "annotations" => {
                self.annotations = map.next_value_seed(reader.annotations(at))?.unwrap_or_default();
            }
            "fsLayers" => self.fs_layers = map.next_value::<Option<IgnoredAny>>()?.is_some(),
            _ => skip(map)?,
        }
        Ok(())
    }

    fn finish(self, _at: &'static str) -> Result<Document, ManifestError> {
        Ok(self)
    }
}

#[derive(Default)]
struct DescriptorFields {
    media_type: Option<MediaType>,
    digest: Option<Digest>,
    size: Option<u64>,
    urls: Vec<String>,
    annotations: BTreeMap<String, String>,
    artifact_type: Option<String>,
    platform: Option<Platform>,
}

impl Fields for DescriptorFields {
    const KEYS: &'static [&'static str] = &[
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "data",
        "artifactType",
        "platform",
    ];
    type Whole = Descriptor;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        at: &'static str,
        map: &mut A,
        reader: &Reader,
    ) -> Result<(), A::Error> {
        match key {
            "mediaType" => {
                let seed = reader.text(|text| reader.parse_media_type(at, text));
                self.media_type = Some(map.next_value_seed(seed)?);
            }
            "digest" => {
                let seed = reader.text(|text| {
                    text.parse()
                        .map_err(|source| ManifestError::Digest { at, source })
                });
                self.digest = Some(map.next_value_seed(seed)?);
            }
            "size" => self.size = Some(map.next_value_seed(Size { reader, at })?),
            "urls" => {
                self.urls = map
                    .next_value_seed(Nullable(Urls { reader }))?
                    .unwrap_or_default()
            }
            "annotations" => {
                self.annotations = map.next_value_seed(reader.annotations(at))?.unwrap_or_default();
            }
            "artifactType" => self.artifact_type = map.next_value()?,
            "platform" => {
                self.platform = map.next_value_seed(Nullable(reader.object::<Platform>("platform")))?;
            }
            _ => skip(map)?,
        }
        Ok(())
    }

    fn finish(self, at: &'static str) -> Result<Descriptor, ManifestError> {
        let missing = |key| ManifestError::Missing { at, key };
        Ok(Descriptor {
            media_type: self.media_type.ok_or(missing("mediaType"))?,
            digest: self.digest.ok_or(missing("digest"))?,
            size: self.size.ok_or(missing("size"))?,
            urls: self.urls,
            annotations: self.annotations,
            artifact_type: self.artifact_type,
            platform: self.platform.map(Box::new),
        })
    }
}

impl Fields for Platform {
    const KEYS: &'static [&'static str] = &[
        "architecture",
        "os",
        "os.version",
        "os.features",
        "variant",
        "features",
    ];
    type Whole = Platform;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        _at: &'static str,
        map: &mut A,
        _reader: &Reader,
    ) -> Result<(), A::Error> {
        match key {
            "architecture" => self.architecture = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "os" => self.os = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "variant" => self.variant = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn finish(self, _at: &'static str) -> Result<Platform, ManifestError> {
        Ok(self)
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}

/// An object whose known keys are read strictly.
struct Object<'r, T> {
    reader: &'r Reader,
    at: &'static str,
    fields: PhantomData<T>,
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
        while let Some(key) = map.next_key_seed(Key {
            reader: self.reader,
            at: self.at,
            known: T::KEYS,
            seen: &mut seen,
        })? {
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
struct Nullable<S>(S);

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
struct List<'r> {
    reader: &'r Reader,
    at: &'static str,
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

struct Urls<'r> {
    reader: &'r Reader,
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

struct Annotations<'r> {
    reader: &'r Reader,
    at: &'static str,
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
                return Err(self
                    .reader
                    .fail(ManifestError::DuplicateAnnotation { at: self.at }));
            }
        }
        Ok(annotations)
    }
}

/// A text with a grammar of its own.
struct Text<'r, F> {
    reader: &'r Reader,
    parse: F,
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

struct Size<'r> {
    reader: &'r Reader,
    at: &'static str,
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
        if i64::try_from(size).is_ok() {
            Ok(size)
        } else {
            Err(self.refuse())
        }
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<u64, E> {
        Err(self.refuse())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<u64, E> {
        Err(self.refuse())
    }
}
