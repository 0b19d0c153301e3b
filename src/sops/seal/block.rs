//! The metadata of a file as it is written: in YAML, in JSON, and flattened.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Envelope, VERSION};
use crate::document::edit::word;
use crate::sops::keys::SealedKey;
use crate::sops::rules::Stated;

/// Blanks of one level, as `stores` of `.sops.yaml` say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Indent {
    /// Of YAML; sops takes four by itself.
    pub yaml: Option<usize>,
    /// Of the JSON around binary content; sops takes a tab by itself.
    pub json_binary: Option<usize>,
}

impl Indent {
    pub(super) fn json(self) -> String {
        self.json_binary.map_or_else(|| "\t".to_owned(), |blanks| " ".repeat(blanks))
    }
}

/// The value of the key `sops`, given when the values were changed last, with their MAC. Names are in alphabetical order,
/// as sops writes them.
pub(super) fn metadata(
    envelope: &Envelope,
    rule: Option<&Stated>,
    now: &str,
    (last_modified, mac): (&str, &str),
) -> Value {
    let keys = |group| keys(group, &envelope.created, now);
    let mut fields = match envelope.groups.as_slice() {
        [group] => keys(group),
        groups => {
            let groups: Vec<_> = groups.iter().map(|group| Value::Object(keys(group))).collect();
            Map::from_iter([("key_groups".to_owned(), Value::Array(groups))])
        }
    };
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("lastmodified", last_modified.into());
    put("mac", mac.into());
    put("version", envelope.version.as_deref().unwrap_or(VERSION).into());
    if let Some(rule) = rule {
        put(rule.field, rule.text.as_str().into());
    }
    if envelope.mac_only_encrypted {
        put("mac_only_encrypted", true.into());
    }
    if let Some(threshold) = envelope.threshold.filter(|_| envelope.groups.len() > 1) {
        put("shamir_threshold", threshold.into());
    }
    fields.sort_keys();
    Value::Object(fields)
}

/// The lists of one group.
fn keys(group: &[SealedKey], created: &HashMap<SealedKey, String>, now: &str) -> Map<String, Value> {
    let mut lists = Map::new();
    for key in group {
        let now = created.get(&key.sealing(String::new())).map_or(now, String::as_str);
        let list = lists.entry(key.kind()).or_insert_with(|| json!([]));
        list.as_array_mut().expect("only lists are put there").push(entry(key, now));
    }
    lists
}

fn entry(key: &SealedKey, now: &str) -> Value {
    let mut entry = match key {
        SealedKey::Age { recipient, enc } => return json!({ "enc": enc, "recipient": recipient }),
        SealedKey::Pgp { fingerprint, enc } => json!({ "enc": enc, "fp": fingerprint }),
        SealedKey::Kms { arn, role, context, profile, enc } => {
            let mut entry = json!({ "arn": arn, "aws_profile": profile.as_deref().unwrap_or_default() });
            if !context.is_empty() {
                let context = context.iter().map(|(name, value)| (name.clone(), json!(value)));
                entry["context"] = Value::Object(context.collect());
            }
            entry["enc"] = json!(enc);
            if let Some(role) = role {
                entry["role"] = json!(role);
            }
            entry
        }
        SealedKey::GcpKms { resource_id, enc } => json!({ "enc": enc, "resource_id": resource_id }),
        SealedKey::AzureKeyVault { vault_url, name, version, enc } => {
            json!({ "enc": enc, "name": name, "vault_url": vault_url, "version": version })
        }
        SealedKey::VaultTransit { address, engine_path, key_name, enc } => {
            json!({ "enc": enc, "engine_path": engine_path, "key_name": key_name, "vault_address": address })
        }
        SealedKey::HuaweiKms { key_id, enc } => json!({ "enc": enc, "key_id": key_id }),
    };
    entry["created_at"] = json!(now);
    if let Value::Object(fields) = &mut entry {
        fields.sort_keys();
    }
    entry
}

/// `sops: …` as lines of a block mapping whose keys stand behind `margin`.
pub(super) fn yaml(metadata: &Value, step: usize, margin: &str) -> String {
    let mut lines = format!("{margin}sops:");
    yaml_value(metadata, &" ".repeat(step), margin, &mut lines);
    lines
}

/// What stands behind a key or a `-` of a line that is indented by `margin`, to the end of the line.
fn yaml_value(value: &Value, step: &str, margin: &str, lines: &mut String) {
    let inner = format!("{margin}{step}");
    match value {
        Value::Object(fields) => {
            lines.push('\n');
            yaml_fields(fields, step, &inner, (&inner, &inner), lines);
        }
        Value::Array(items) => {
            lines.push('\n');
            // The keys of an item stand below its first, however far apart levels are; what is below them, below the dash.
            let (dash, below) = (format!("{inner}- "), format!("{inner}  "));
            let outer = if step.len() > 2 { &inner } else { &below };
            for item in items {
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        yaml_fields(fields, step, &dash, (&below, outer), lines);
                    }
                    _ => {
                        lines.push_str(&dash);
                        lines.push_str("{}\n");
                    }
                }
            }
        }
        Value::String(text) if text.contains('\n') => {
            lines.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in text.lines() {
                let indented = if line.is_empty() { String::new() } else { format!("{inner}{line}") };
                lines.push_str(&indented);
                lines.push('\n');
            }
        }
        Value::String(text) => {
            lines.push(' ');
            lines.push_str(word(text).expose());
            lines.push('\n');
        }
        other => {
            lines.push_str(&format!(" {other}\n"));
        }
    }
}

fn yaml_fields(
    fields: &Map<String, Value>,
    step: &str,
    first: &str,
    (margin, outer): (&str, &str),
    lines: &mut String,
) {
    for (nth, (name, value)) in fields.iter().enumerate() {
        lines.push_str(if nth == 0 { first } else { margin });
        lines.push_str(word(name).expose());
        lines.push(':');
        yaml_value(value, step, outer, lines);
    }
}

/// JSON, one field a line, of a value whose line is indented `level` times; on one line where `step` is empty.
pub(super) fn json(value: &Value, step: &str, level: usize) -> String {
    let (open, close, items): (_, _, Vec<String>) = match value {
        Value::Object(fields) if !fields.is_empty() => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), json(value, step, level + 1))
            };
            ('{', '}', fields.iter().map(field).collect())
        }
        Value::Array(items) if !items.is_empty() => {
            ('[', ']', items.iter().map(|item| json(item, step, level + 1)).collect())
        }
        other => return other.to_string(),
    };
    if step.is_empty() {
        return format!("{open}{}{close}", items.join(", "));
    }
    let (inner, outer) = (step.repeat(level + 1), step.repeat(level));
    format!("{open}\n{inner}{}\n{outer}{close}", items.join(&format!(",\n{inner}")))
}

/// Names and texts of flattened metadata, as in `age__list_0__map_enc`.
pub(super) fn flattened(metadata: &Value) -> Vec<(String, String)> {
    fn flatten(name: String, value: &Value, found: &mut Vec<(String, String)>) {
        let below = |step: String| if name.is_empty() { step } else { format!("{name}__map_{step}") };
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(step, value)| flatten(below(step.clone()), value, found));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                items.for_each(|(at, value)| flatten(format!("{name}__list_{at}"), value, found));
            }
            Value::String(text) => found.push((name, text.clone())),
            other => found.push((name, other.to_string())),
        }
    }
    let mut found = Vec::new();
    flatten(String::new(), metadata, &mut found);
    found
}
