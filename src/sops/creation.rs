//! `.sops.yaml`: with which keys, and by which rule, a new file is encrypted.
//!
//! Read as sops reads it: the first rule whose `path_regex` matches, or that has none, is the one. Fields that are not
//! known are ignored. Finding the file is the caller's.

use std::collections::HashSet;

use super::keys::named::NameError;
use super::keys::{SealedKey, named};
use super::rules::{Stated, go_regex};
use super::seal::Indent;
use crate::document::value::{Value, ValueError};
use crate::fault::{Class, Fault};

/// What a rule says of a file.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// Master keys that have sealed nothing yet.
    pub groups: Vec<Vec<SealedKey>>,
    /// How many groups open the file.
    pub threshold: Option<usize>,
    /// Which values are encrypted.
    pub rule: Option<Stated>,
    /// Only encrypted values are in the MAC.
    pub mac_only_encrypted: bool,
}

/// A parsed `.sops.yaml`.
#[derive(Debug)]
pub struct Config {
    rules: Option<Vec<Value>>,
    context: Vec<(String, String)>,
    /// How metadata is laid out.
    pub indent: Indent,
}

impl Config {
    /// Parses the text of the file.
    pub fn parse(text: &str) -> Result<Self, CreationError> {
        let root = Value::parse(text)?;
        let rules = match field(&root, "creation_rules") {
            None => None,
            Some(Value::Sequence(rules)) => Some(rules.clone()),
            Some(_) => return Err(CreationError::kind("creation_rules", "a list")),
        };
        let indent = |store: &'static str, usual: i64| match root.pick(&["stores", store, "indent"]) {
            Err(_) | Ok(Value::Null) => Ok(None),
            Ok(value) => match text_of(value).and_then(|text| text.parse::<i64>().ok()) {
                Some(number) if number == usual => Ok(None),
                Some(number @ 0..=16) => Ok(usize::try_from(number).ok()),
                _ => Err(CreationError::kind("indent", "a number from 0 to 16")),
            },
        };
        let indent = Indent { yaml: indent("yaml", 0)?, json_binary: indent("json_binary", -1)? };
        Ok(Self { rules, context: Vec::new(), indent })
    }

    /// With an encryption context for the keys `kms` of rules that have no `key_groups`, which say their own.
    #[must_use]
    pub fn with_context(self, context: Vec<(String, String)>) -> Self {
        Self { context, ..self }
    }

    /// The rule for the file at `path`, from the folder of the configuration on. `None`: it has no rules at all.
    pub fn rule_for(&self, path: &str) -> Result<Option<Creation>, CreationError> {
        let Some(rules) = &self.rules else { return Ok(None) };
        for rule in rules {
            let pattern = text(rule, "path_regex")?.unwrap_or_default();
            let matches = match go_regex(pattern) {
                _ if pattern.is_empty() => true,
                Some(regex) => regex.is_match(path),
                None => return Err(CreationError::Pattern { pattern: pattern.to_owned() }),
            };
            if matches {
                return creation(rule, &self.context).map(Some);
            }
        }
        Err(CreationError::NoRule { path: path.to_owned() })
    }
}

fn creation(rule: &Value, context: &[(String, String)]) -> Result<Creation, CreationError> {
    let mut stated = Vec::new();
    for field in Stated::FIELDS {
        if let Some(text) = text(rule, field)?.filter(|text| !text.is_empty()) {
            stated.push(Stated { field, text: text.to_owned() });
        }
    }
    if let [first, second, ..] = stated.as_slice() {
        return Err(CreationError::Rules { first: first.field, second: second.field });
    }
    let threshold = match text(rule, "shamir_threshold")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| CreationError::kind("shamir_threshold", "a number"))?),
    };
    Ok(Creation {
        groups: groups(rule, context)?,
        threshold: threshold.filter(|threshold| *threshold > 0),
        rule: stated.pop(),
        mac_only_encrypted: matches!(field(rule, "mac_only_encrypted"), Some(Value::Bool(true))),
    })
}

fn groups(rule: &Value, context: &[(String, String)]) -> Result<Vec<Vec<SealedKey>>, CreationError> {
    let groups = items(rule, "key_groups")?;
    if !groups.is_empty() {
        return groups.iter().map(|entry| Ok(distinct(group(entry)?))).collect();
    }
    let list = |name| names(rule, name).map(|names| names.join(","));
    let lists = named::Lists {
        age: &list("age")?,
        pgp: &list("pgp")?,
        kms: &list("kms")?,
        context,
        profile: text(rule, "aws_profile")?,
        gcp_kms: &list("gcp_kms")?,
        hckms: &list("hckms")?,
        azure: &list("azure_keyvault")?,
        transit: &list("hc_vault_transit_uri")?,
    };
    Ok(vec![lists.keys()?])
}

/// One of `key_groups`, with the groups that it merges.
fn group(entry: &Value) -> Result<Vec<SealedKey>, CreationError> {
    let mut keys = Vec::new();
    for merged in items(entry, "merge")? {
        keys.extend(group(merged)?);
    }
    for name in names(entry, "age")? {
        keys.push(named::age(&name)?);
    }
    keys.extend(names(entry, "pgp")?.iter().map(|name| named::pgp(name)));
    for key in items(entry, "kms")? {
        let context: Vec<_> = match field(key, "context") {
            Some(Value::Mapping(entries)) => entries
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), text_of(value)?.to_owned())))
                .collect(),
            _ => Vec::new(),
        };
        let mut kms = named::kms(needed(key, "arn")?, &context, text(key, "aws_profile")?);
        if let (SealedKey::Kms { role, .. }, Some(said)) = (&mut kms, text(key, "role")?) {
            *role = Some(said.to_owned()).filter(|role| !role.is_empty());
        }
        keys.push(kms);
    }
    for key in items(entry, "gcp_kms")? {
        keys.push(named::gcp_kms(needed(key, "resource_id")?));
    }
    for key in items(entry, "hckms")? {
        keys.push(named::hckms(needed(key, "key_id")?)?);
    }
    for key in items(entry, "azure_keyvault")? {
        keys.push(SealedKey::AzureKeyVault {
            vault_url: needed(key, "vaultUrl")?.to_owned(),
            name: needed(key, "key")?.to_owned(),
            version: text(key, "version")?.unwrap_or_default().to_owned(),
            enc: String::new(),
        });
    }
    for name in names(entry, "hc_vault")? {
        keys.push(named::transit(&name)?);
    }
    Ok(keys)
}

fn distinct(keys: Vec<SealedKey>) -> Vec<SealedKey> {
    let mut seen = HashSet::new();
    keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.pick(&[name]).ok().filter(|value| **value != Value::Null)
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) | Value::Number(text) => Some(text.expose()),
        _ => None,
    }
}

fn text<'v>(value: &'v Value, name: &'static str) -> Result<Option<&'v str>, CreationError> {
    let Some(value) = field(value, name) else { return Ok(None) };
    text_of(value).map(Some).ok_or_else(|| CreationError::kind(name, "a text"))
}

fn needed<'v>(value: &'v Value, name: &'static str) -> Result<&'v str, CreationError> {
    text(value, name)?.ok_or(CreationError::Missing { field: name })
}

fn items<'v>(value: &'v Value, name: &'static str) -> Result<&'v [Value], CreationError> {
    match field(value, name) {
        None => Ok(&[]),
        Some(Value::Sequence(items)) => Ok(items),
        Some(_) => Err(CreationError::kind(name, "a list")),
    }
}

/// Names in a list, or in one text between commas. A text of a list may have commas too, as sops joins and splits them.
fn names(value: &Value, name: &'static str) -> Result<Vec<String>, CreationError> {
    let texts: Vec<&str> = match field(value, name) {
        None => Vec::new(),
        Some(Value::Sequence(items)) => {
            let texts = items
                .iter()
                .map(|item| text_of(item).ok_or_else(|| CreationError::kind(name, "a list of texts")));
            texts.collect::<Result<_, _>>()?
        }
        Some(value) => {
            vec![text_of(value).ok_or_else(|| CreationError::kind(name, "a text or a list of texts"))?]
        }
    };
    Ok(texts.into_iter().flat_map(named::list).map(str::to_owned).collect())
}

/// `.sops.yaml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CreationError {
    /// Not there, or not to be read.
    #[error(transparent)]
    Read(std::io::Error),
    /// Not YAML.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A field of another kind.
    #[error("`{field}` is not {expected}")]
    Kind {
        /// Which one.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A key that is not whole.
    #[error("a key lacks `{field}`")]
    Missing {
        /// Of what.
        field: &'static str,
    },
    /// A key that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No regular expression of Go's.
    #[error("`path_regex` is not a regular expression: {pattern:?}")]
    Pattern {
        /// What stands there.
        pattern: String,
    },
    /// More than one rule of values.
    #[error("a rule has both `{first}` and `{second}`, and may have one of them only")]
    Rules {
        /// One.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// None matches.
    #[error("no creation rule matches {path}")]
    NoRule {
        /// The file, from the folder of the configuration on.
        path: String,
    },
}

impl CreationError {
    const fn kind(field: &'static str, expected: &'static str) -> Self {
        Self::Kind { field, expected }
    }
}

impl Fault for CreationError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str, path: &str) -> Result<Vec<Vec<String>>, String> {
        let creation = Config::parse(text).and_then(|config| config.rule_for(path));
        let groups = creation.map_err(|error| error.to_string())?.map(|creation| creation.groups);
        let ids = |group: Vec<SealedKey>| group.iter().map(SealedKey::id).collect();
        Ok(groups.unwrap_or_default().into_iter().map(ids).collect())
    }

    const RULES: &str = r"
creation_rules:
  - path_regex: ^prod/.*\.yaml$
    age: age1prod, age1ops,
    pgp: [AAAABBBB, 'CCCC DDDD']
  - path_regex: \.env$
    key_groups:
      - age: [age1a, age1a]
      - merge:
          - hc_vault: ['https://v/v1/transit/keys/k']
        kms: [{arn: 'arn:aws:kms:r:1:key/k', role: arn:role, context: {a: b}, aws_profile: p}]
    shamir_threshold: 2
    encrypted_regex: ^data$
  - age: age1rest
stores: {yaml: {indent: 2}, json_binary: {indent: -1}}
";

    #[test]
    fn the_first_rule_that_matches_is_the_one() {
        let table: [(&str, &[&[&str]]); 4] = [
            ("prod/a.yaml", &[&["age1prod", "age1ops", "AAAABBBB", "CCCCDDDD"]]),
            ("prod/a.env", &[&["age1a"], &["https://v/v1/transit/keys/k", "arn:aws:kms:r:1:key/k"]]),
            ("dev/prod/a.yaml", &[&["age1rest"]]),
            ("", &[&["age1rest"]]),
        ];
        for (path, expected) in table {
            assert_eq!(ids(RULES, path).unwrap(), expected, "{path}");
        }
        let config = Config::parse(RULES).unwrap();
        assert_eq!(config.indent, Indent { yaml: Some(2), json_binary: None });
        let creation =
            config.with_context(vec![("x".into(), "y".into())]).rule_for("a.env").unwrap().unwrap();
        let SealedKey::Kms { role, context, profile, .. } = &creation.groups[1][1] else { panic!() };
        assert_eq!((role.as_deref(), profile.as_deref()), (Some("arn:role"), Some("p")));
        assert_eq!(context, &[("a".to_owned(), "b".to_owned())]);
        assert_eq!(creation.threshold, Some(2));
        assert_eq!(creation.rule.unwrap().field, "encrypted_regex");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            ("creation_rules: [{path_regex: x, age: a}]", "no creation rule matches a.yaml"),
            (
                "creation_rules: [{path_regex: '(', age: a}]",
                "`path_regex` is not a regular expression: \"(\"",
            ),
            (
                "creation_rules: [{encrypted_suffix: a, encrypted_regex: b}]",
                "a rule has both `encrypted_suffix` and `encrypted_regex`, and may have one of them only",
            ),
            ("creation_rules: {age: a}", "`creation_rules` is not a list"),
            ("creation_rules: [{age: {a: b}}]", "`age` is not a text or a list of texts"),
            ("creation_rules: [{key_groups: [{kms: [{role: r}]}]}]", "a key lacks `arn`"),
            ("stores: {yaml: {indent: -1}}", "`indent` is not a number from 0 to 16"),
        ] {
            assert_eq!(ids(text, "a.yaml").unwrap_err(), message);
        }
        assert_eq!(ids("stores: {}", "a.yaml"), Ok(Vec::new()));
    }
}
