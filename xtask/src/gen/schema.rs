//! `docs/config.schema.json`: what an editor needs to complete and check a configuration.

use anyhow::Result;
use entrepot_core::config::schema::{Default, FILE, Key, Kind, Section};
use serde_json::{Map, Value, json};

pub(super) fn text() -> Result<String> {
    let mut root = section(&FILE);
    root.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".into(), json!("Entrepot configuration"));
    root.insert("$comment".into(), json!(super::NOTE));
    Ok(serde_json::to_string_pretty(&root)? + "\n")
}

fn section(section: &Section) -> Map<String, Value> {
    let required: Vec<_> =
        section.keys.iter().filter(|key| key.default == Default::Required).map(|key| key.name).collect();
    let properties: Map<String, Value> =
        section.keys.iter().map(|found| (found.name.to_owned(), Value::Object(key(found)))).collect();
    let mut object = Map::new();
    object.insert("type".into(), json!("object"));
    object.insert("additionalProperties".into(), json!(false));
    object.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".into(), json!(required));
    }
    object
}

fn key(key: &Key) -> Map<String, Value> {
    let mut object = kind(&key.kind);
    object.insert("description".into(), json!(key.doc));
    if let Default::Value(text) = key.default {
        let value = match key.kind {
            Kind::Bool => json!(text == "true"),
            Kind::List(_) => json!([text]),
            _ => json!(text),
        };
        object.insert("default".into(), value);
    }
    object
}

fn kind(kind: &Kind) -> Map<String, Value> {
    let value = match *kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text | Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::Label => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
        // 0 is the only duration without a unit.
        Kind::Duration => json!({
            "oneOf": [
                { "type": "string", "pattern": "^(0|([0-9]+(ms|s|m|h|d))+)$" },
                { "type": "integer", "const": 0 }
            ]
        }),
        Kind::Size => json!({
            "oneOf": [
                { "type": "string", "pattern": "^[0-9]+ *([KMGTkmgt]?[Ii]?[Bb])?$" },
                { "type": "integer", "minimum": 1 }
            ]
        }),
        Kind::Rate => json!({
            "type": "string",
            "pattern": "^ *[0-9]+ */ *(s|sec|second|m|min|minute|h|hour|d|day) *$"
        }),
        Kind::Count => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
        Kind::Address => json!({ "type": "string", "pattern": "^.+:[0-9]{1,5}$" }),
        Kind::Url => {
            json!({ "type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$" })
        }
        Kind::Network | Kind::RegistryName | Kind::HostName => json!({ "type": "string", "minLength": 1 }),
        Kind::NamePattern | Kind::HostPattern => {
            json!({ "type": "string", "minLength": 1, "maxLength": 255 })
        }
        Kind::Sha256 => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" }),
        Kind::Image => json!({ "type": "string", "pattern": "^[^/@]+/[^@]+[:@][^/]+$" }),
        Kind::Platform => {
            json!({ "type": "string", "pattern": "^[a-z0-9._-]+/[a-z0-9._-]+(/[a-z0-9._-]+)?$" })
        }
        Kind::Schedule => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9*,/#-]+( [A-Za-z0-9*,/#-]+){4}$" })
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::List(inner) => json!({ "type": "array", "items": self::kind(inner) }),
        Kind::OneOrMore(inner) => {
            let one = self::kind(inner);
            json!({ "oneOf": [one.clone(), { "type": "array", "items": one, "minItems": 1 }] })
        }
        Kind::Section(inner) => Value::Object(section(inner)),
        Kind::Sections(inner) => json!({ "type": "array", "items": section(inner) }),
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
