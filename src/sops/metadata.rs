//! The `sops` block of a YAML or JSON file, read leniently: files of every sops since 1.0, and of tools that
//! reformat them, are taken as long as nothing that is needed is missing.
//!
//! Names are matched without regard to case, unknown ones are ignored, and any scalar is taken for a string.

use std::collections::HashMap;

use crate::document::scalar::{self, Scalar};
use crate::document::{Kind, Node};

use super::keys::SealedKey;
use super::rules::{Rule, Stated};

/// What a file says about how it is encrypted.
#[derive(Debug)]
pub struct Metadata {
    /// Sealed data keys; more than one group means shares.
    pub groups: Vec<Vec<SealedKey>>,
    /// How many groups must be opened.
    pub threshold: Option<usize>,
    /// RFC 3339 without a fraction: the path of the MAC.
    pub last_modified: String,
    /// Encrypted.
    pub mac: Option<String>,
    /// Only encrypted values are in the MAC.
    pub mac_only_encrypted: bool,
    /// Which values are encrypted.
    pub rule: Rule,
    /// The same as the file says it.
    pub stated: Option<Stated>,
    /// Of the sops that wrote the file; empty where it did not say.
    pub version: String,
    /// When the file got each of its master keys, which are without their sealed data key here.
    pub created: HashMap<SealedKey, String>,
}

/// Reads one item of a list of master keys.
type ReadKey = fn(&Entry<'_>) -> Result<SealedKey, MetadataError>;

/// The lists of master keys, in the order in which sops reads them.
const KINDS: [(&str, ReadKey); 7] = [
    ("kms", kms),
    ("gcp_kms", gcp_kms),
    ("hckms", hckms),
    ("azure_kv", azure_kv),
    ("hc_vault", hc_vault),
    ("pgp", pgp),
    ("age", age),
];

impl Metadata {
    /// Reads the value of the key `sops`.
    pub fn read(node: &Node) -> Result<Self, MetadataError> {
        let Kind::Mapping(_) = node.kind else { return Err(MetadataError::NotAMapping) };
        let block = Entry { node, at: "sops".to_owned() };
        let last_modified = block.required("lastmodified")?;
        let last_modified =
            timestamp(last_modified).ok_or_else(|| block.invalid("lastmodified", "a time"))?;
        let threshold = match block.text("shamir_threshold") {
            None => None,
            Some(text) => Some(count(text).ok_or_else(|| block.invalid("shamir_threshold", "a number"))?),
        };
        let stated = stated_rule(&block)?;
        Ok(Self {
            groups: groups(&block)?,
            threshold: threshold.filter(|threshold| *threshold > 0),
            last_modified,
            mac: block.text("mac").filter(|mac| !mac.is_empty()).map(str::to_owned),
            mac_only_encrypted: block
                .text("mac_only_encrypted")
                .is_some_and(|text| text.eq_ignore_ascii_case("true")),
            rule: stated.clone().unwrap_or_else(Stated::usual).rule(),
            stated,
            version: block.text("version").unwrap_or_default().to_owned(),
            created: created(&block),
        })
    }
}

/// Whether the value of a key `sops` is metadata of sops, whole or not, and not some program's settings.
pub fn looks_like_metadata(node: &Node) -> bool {
    let block = Entry { node, at: String::new() };
    let has = |name: &str| block.get(name).is_some();
    let sealed = KINDS.iter().any(|(kind, _)| block.list(kind).iter().any(|key| key.get("enc").is_some()));
    sealed || has("mac") || has("lastmodified") || has("key_groups") && has("version")
}

fn groups(block: &Entry<'_>) -> Result<Vec<Vec<SealedKey>>, MetadataError> {
    let flat = group(block)?;
    if !flat.is_empty() {
        return Ok(vec![flat]);
    }
    let mut groups = Vec::new();
    for entry in block.list("key_groups") {
        let group = group(&entry)?;
        if !group.is_empty() {
            groups.push(group);
        }
    }
    if groups.is_empty() { Err(no_keys(block)) } else { Ok(groups) }
}

fn group(entry: &Entry<'_>) -> Result<Vec<SealedKey>, MetadataError> {
    let mut keys = Vec::new();
    for (kind, read) in KINDS {
        for key in entry.list(kind) {
            keys.push(read(&key)?);
        }
    }
    Ok(keys)
}

fn created(block: &Entry<'_>) -> HashMap<SealedKey, String> {
    let blocks = block.list("key_groups").into_iter().chain([Entry { node: block.node, at: String::new() }]);
    let keys = blocks.flat_map(|entry| {
        KINDS
            .into_iter()
            .flat_map(move |(kind, read)| entry.list(kind).into_iter().map(move |key| (read, key)))
    });
    keys.filter_map(|(read, key)| {
        Some((read(&key).ok()?.sealing(String::new()), key.text("created_at")?.to_owned()))
    })
    .collect()
}

/// Names the lists that may be of a kind that is not known, so that a reader sees why there is no key.
fn no_keys(block: &Entry<'_>) -> MetadataError {
    let known = |name: &str| name == "key_groups" || KINDS.iter().any(|(kind, _)| *kind == name);
    let mut blocks = block.list("key_groups");
    blocks.push(Entry { node: block.node, at: String::new() });
    let unknown: Vec<String> = blocks
        .iter()
        .flat_map(|entry| entry.node.entries())
        .filter(|(_, value)| matches!(&value.kind, Kind::Sequence(items) if !items.is_empty()))
        .filter_map(|(key, _)| key.text().map(str::to_lowercase))
        .filter(|name| !known(name))
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect();
    if unknown.is_empty() {
        MetadataError::NoKeys
    } else {
        MetadataError::UnknownKeys { kinds: unknown.join(", ") }
    }
}

fn stated_rule(block: &Entry<'_>) -> Result<Option<Stated>, MetadataError> {
    let stated = Stated::FIELDS.into_iter().filter_map(|field| {
        let text = block.text(field).filter(|text| !text.is_empty())?;
        Some(Stated { field, text: text.to_owned() })
    });
    let mut stated: Vec<_> = stated.collect();
    match stated.as_slice() {
        [first, second, ..] => Err(MetadataError::Rules { first: first.field, second: second.field }),
        _ => Ok(stated.pop()),
    }
}

fn age(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::Age { recipient: key.owned("recipient")?, enc: key.owned("enc")? })
}

fn pgp(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::Pgp { fingerprint: key.owned("fp")?, enc: key.owned("enc")? })
}

fn kms(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    let optional = |name| key.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let context = key.get("context").map_or(&[][..], Node::entries).iter();
    let context = context.filter(|(_, value)| scalar::of(value) != Some(Scalar::Null));
    Ok(SealedKey::Kms {
        arn: key.owned("arn")?,
        role: optional("role"),
        context: context.filter_map(|(k, v)| Some((k.text()?.to_owned(), v.text()?.to_owned()))).collect(),
        profile: optional("aws_profile"),
        enc: key.owned("enc")?,
    })
}

fn gcp_kms(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::GcpKms { resource_id: key.owned("resource_id")?, enc: key.owned("enc")? })
}

fn hckms(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::HuaweiKms { key_id: key.owned("key_id")?, enc: key.owned("enc")? })
}

fn azure_kv(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::AzureKeyVault {
        vault_url: key.owned("vault_url")?,
        name: key.owned("name")?,
        version: key.text("version").unwrap_or_default().to_owned(),
        enc: key.owned("enc")?,
    })
}

fn hc_vault(key: &Entry<'_>) -> Result<SealedKey, MetadataError> {
    Ok(SealedKey::VaultTransit {
        address: key.owned("vault_address")?,
        engine_path: key.owned("engine_path")?,
        key_name: key.owned("key_name")?,
        enc: key.owned("enc")?,
    })
}

/// A mapping of the metadata, and where it is, for errors.
struct Entry<'a> {
    node: &'a Node,
    at: String,
}

impl<'a> Entry<'a> {
    fn get(&self, name: &str) -> Option<&'a Node> {
        let named = |key: &Node| key.text().is_some_and(|text| text.eq_ignore_ascii_case(name));
        self.node.entries().iter().find(|(key, _)| named(key)).map(|(_, value)| value)
    }

    /// The text of any scalar but null.
    fn text(&self, name: &str) -> Option<&'a str> {
        let node = self.get(name).filter(|node| scalar::of(node) != Some(Scalar::Null))?;
        node.text()
    }

    fn required(&self, name: &'static str) -> Result<&'a str, MetadataError> {
        self.text(name).ok_or_else(|| MetadataError::Missing { field: format!("{}.{name}", self.at) })
    }

    fn owned(&self, name: &'static str) -> Result<String, MetadataError> {
        self.required(name).map(str::to_owned)
    }

    /// The items of a list; none where it is missing or null.
    fn list(&self, name: &str) -> Vec<Self> {
        let Some(Kind::Sequence(items)) = self.get(name).map(|node| &node.kind) else { return Vec::new() };
        let entry = |(index, node)| Self { node, at: format!("{}.{name}[{index}]", self.at) };
        items.iter().enumerate().map(entry).collect()
    }

    fn invalid(&self, name: &str, expected: &'static str) -> MetadataError {
        MetadataError::Invalid { field: format!("{}.{name}", self.at), expected }
    }
}

/// RFC 3339 without a fraction, as Go formats it.
fn timestamp(text: &str) -> Option<String> {
    let Scalar::Time(time) = scalar::plain(text) else { return None };
    let (clock, rest) = time.split_at_checked("2006-01-02T15:04:05".len())?;
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    Some(format!("{clock}{zone}"))
}

/// `2`, or `2.000000` as sops wrote it before 3.11.
fn count(text: &str) -> Option<usize> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    whole.parse().ok().filter(|_| fraction.bytes().all(|byte| byte == b'0'))
}

/// The `sops` block of a file cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MetadataError {
    /// `sops: text`.
    #[error("the key `sops` is not a mapping")]
    NotAMapping,
    /// A field that is needed is not there.
    #[error("the SOPS metadata lacks `{field}`")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A field of another kind.
    #[error("`{field}` in the SOPS metadata is not {expected}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No master key at all.
    #[error("the SOPS metadata lists no master key")]
    NoKeys,
    /// No master key of a known kind.
    #[error("the SOPS metadata lists no master key of a known kind, only {kinds}")]
    UnknownKeys {
        /// What it lists.
        kinds: String,
    },
    /// More than one rule.
    #[error("the SOPS metadata has both `{first}` and `{second}`, and may have one of them only")]
    Rules {
        /// One.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, parse};

    fn read(block: &str) -> Result<Metadata, MetadataError> {
        let stream = parse(block, Format::Yaml).unwrap();
        Metadata::read(&stream.documents[0])
    }

    const AGE: &str = "age: [{recipient: r, enc: e}]\n";

    #[test]
    fn keys_of_all_kinds_come_in_the_order_of_sops() {
        let metadata = read(
            "lastmodified: '2020-01-02T03:04:05+00:00'
age: [{recipient: r, enc: e}]
pgp: [{fp: F, created_at: x, enc: e}]
kms: [{arn: a, role: '', context: {k: v, n: null}, aws_profile: p, enc: e}]
gcp_kms: [{resource_id: g, enc: e}]
azure_kv: [{vault_url: u, name: n, version: v, enc: e}]
hc_vault: [{vault_address: h, engine_path: t, key_name: k, enc: e}]
hckms: [{key_id: h, enc: e}]
unknown: [1]
mac: m
version: 1.7",
        )
        .unwrap();
        let kinds: Vec<_> = metadata.groups[0].iter().map(SealedKey::kind).collect();
        assert_eq!(kinds, ["kms", "gcp_kms", "hckms", "azure_kv", "hc_vault", "pgp", "age"]);
        let SealedKey::Kms { role, context, profile, .. } = &metadata.groups[0][0] else { panic!() };
        assert_eq!((role, profile.as_deref()), (&None, Some("p")));
        assert_eq!(context, &[("k".to_owned(), "v".to_owned())]);
        assert_eq!(metadata.last_modified, "2020-01-02T03:04:05Z");
        assert_eq!(metadata.version, "1.7");
        let pgp = SealedKey::Pgp { fingerprint: "F".to_owned(), enc: String::new() };
        assert_eq!(metadata.created, HashMap::from([(pgp, "x".to_owned())]));
    }

    #[test]
    fn groups_are_read_where_no_flat_list_has_a_key() {
        let groups = "key_groups: [{age: [{recipient: a, enc: e}]}, {pgp: [], age: [{recipient: b, enc: e}]}, {hc_vault: []}]
shamir_threshold: 2.000000
age: []
kms: null
LastModified: 2020-01-02T03:04:05.5Z
";
        let metadata = read(groups).unwrap();
        assert_eq!((metadata.groups.len(), metadata.threshold), (2, Some(2)));
        assert_eq!(metadata.last_modified, "2020-01-02T03:04:05Z");
        assert_eq!(metadata.mac, None);
        let flat = groups.replace("age: []", "age: [{recipient: c, enc: e}]");
        assert_eq!(read(&flat).unwrap().groups.len(), 1);
    }

    #[test]
    fn what_is_missing_is_named() {
        let time = "lastmodified: 2020-01-02T03:04:05Z\n";
        let table = [
            (AGE.to_owned(), "the SOPS metadata lacks `sops.lastmodified`"),
            (
                format!("{AGE}lastmodified: yesterday"),
                "`sops.lastmodified` in the SOPS metadata is not a time",
            ),
            (format!("{time}age: [{{recipient: r}}]"), "the SOPS metadata lacks `sops.age[0].enc`"),
            (
                format!("{time}key_groups: [{{kms: [{{enc: e}}]}}]"),
                "the SOPS metadata lacks `sops.key_groups[0].kms[0].arn`",
            ),
            (time.to_owned(), "the SOPS metadata lists no master key"),
            (
                format!("{time}quantum: [{{enc: e}}]"),
                "the SOPS metadata lists no master key of a known kind, only `quantum`",
            ),
            (
                format!("{time}{AGE}shamir_threshold: many"),
                "`sops.shamir_threshold` in the SOPS metadata is not a number",
            ),
            (
                format!("{time}{AGE}encrypted_regex: a\nunencrypted_suffix: b"),
                "the SOPS metadata has both `unencrypted_suffix` and `encrypted_regex`, and may have one of them only",
            ),
            ("text".to_owned(), "the key `sops` is not a mapping"),
        ];
        for (block, message) in table {
            assert_eq!(read(&block).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn settings_of_a_program_that_is_called_sops_are_not_metadata() {
        let table = [
            ("{mac: m, lastmodified: l}", true),
            ("{age: [{recipient: r, enc: e}]}", true),
            ("{key_groups: [], version: 3.9.0}", true),
            ("{enabled: true, version: 3.9.0}", false),
            ("{age: [{secretName: keys}]}", false),
            ("text", false),
        ];
        for (block, expected) in table {
            let stream = parse(block, Format::Yaml).unwrap();
            assert_eq!(looks_like_metadata(&stream.documents[0]), expected, "{block}");
        }
    }
}
