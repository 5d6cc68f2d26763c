//! Reads a manifest's JSON in one pass: known keys strictly, everything else skipped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess};
use serde_json::error::Category;

use super::seed::{Annotations, List, Nullable, Object, Size, Text, Urls};
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
    let document = reader.object::<Document>("the manifest").deserialize(&mut json).and_then(|document| {
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
    ManifestError::Json { fault, line: error.line(), column: error.column() }
}

/// What the parts of one reading share.
#[derive(Default)]
pub(super) struct Reader {
    /// Our own reason for stopping, as serde's errors can only carry text.
    fault: Cell<Option<ManifestError>>,
    items: Cell<usize>,
    /// The last media type read: lists mostly repeat theirs.
    media_type: RefCell<Option<MediaType>>,
}

impl Reader {
    pub(super) fn fail<E: Error>(&self, fault: ManifestError) -> E {
        self.fault.set(Some(fault));
        E::custom("refused")
    }

    pub(super) fn count<E: Error>(&self) -> Result<(), E> {
        self.items.set(self.items.get() + 1);
        if self.items.get() > MAX_ITEMS { Err(self.fail(ManifestError::TooManyItems)) } else { Ok(()) }
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

    pub(super) fn object<T>(&self, at: &'static str) -> Object<'_, T> {
        Object { reader: self, at, fields: PhantomData }
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
pub(super) trait Fields: Default {
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
                    exact
                        .then_some(parsed)
                        .ok_or(ManifestError::MediaType { at, source: MediaTypeError::Malformed })
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
pub(super) struct DescriptorFields {
    media_type: Option<MediaType>,
    digest: Option<Digest>,
    size: Option<u64>,
    urls: Vec<String>,
    annotations: BTreeMap<String, String>,
    artifact_type: Option<String>,
    platform: Option<Platform>,
}

impl Fields for DescriptorFields {
    const KEYS: &'static [&'static str] =
        &["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"];
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
                let seed =
                    reader.text(|text| text.parse().map_err(|source| ManifestError::Digest { at, source }));
                self.digest = Some(map.next_value_seed(seed)?);
            }
            "size" => self.size = Some(map.next_value_seed(Size { reader, at })?),
            "urls" => self.urls = map.next_value_seed(Nullable(Urls { reader }))?.unwrap_or_default(),
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
    const KEYS: &'static [&'static str] =
        &["architecture", "os", "os.version", "os.features", "variant", "features"];
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

pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}
