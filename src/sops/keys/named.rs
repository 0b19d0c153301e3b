//! Master keys as people name them on a command line and in `.sops.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::fault::{Class, Fault};
use crate::sops::keys::SealedKey;

static AZURE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^(https://[^/]+)/keys/([^/]+)(?:/([^/]*))?$").expect("a valid pattern"));
static VAULT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^(https?://[^/]+)/v[0-9]+/([^/]+(?:/[^/]+)*)/[^/]+/([^/]+)/?$").expect("a valid pattern")
});

/// An age recipient or SSH public key.
pub fn age(name: &str) -> Result<SealedKey, NameError> {
    let name = name.trim();
    if name.to_ascii_uppercase().starts_with("AGE-") {
        return Err(NameError::Secret);
    }
    Ok(SealedKey::Age { recipient: name.to_owned(), enc: String::new() })
}

/// The fingerprint of an OpenPGP key.
pub fn pgp(name: &str) -> SealedKey {
    SealedKey::Pgp { fingerprint: name.replace(' ', ""), enc: String::new() }
}

/// The ARN of a key of AWS KMS, and that of a role behind a `+`.
pub fn kms(name: &str, context: &[(String, String)], profile: Option<&str>) -> SealedKey {
    let name = name.replace(' ', "");
    let (arn, role) = match name.split_once("+arn:") {
        Some((arn, role)) => (arn.to_owned(), Some(format!("arn:{role}"))),
        None => (name, None),
    };
    SealedKey::Kms {
        arn,
        role,
        context: context.to_vec(),
        profile: profile.filter(|profile| !profile.is_empty()).map(str::to_owned),
        enc: String::new(),
    }
}

/// The resource of a key of Google Cloud KMS.
pub fn gcp_kms(name: &str) -> SealedKey {
    SealedKey::GcpKms { resource_id: name.replace(' ', ""), enc: String::new() }
}

/// `region:uuid` of a key of HuaweiCloud KMS.
pub fn hckms(name: &str) -> Result<SealedKey, NameError> {
    let name = name.trim();
    match name.split_once(':') {
        Some((region, key)) if !region.is_empty() && !key.is_empty() => {
            Ok(SealedKey::HuaweiKms { key_id: name.to_owned(), enc: String::new() })
        }
        _ => Err(NameError::form("region:uuid", name)),
    }
}

/// `https://VAULT/keys/NAME/VERSION` of Azure Key Vault.
pub fn azure(name: &str) -> Result<SealedKey, NameError> {
    let parts = AZURE
        .captures(name.trim())
        .ok_or_else(|| NameError::form("https://VAULT/keys/NAME/VERSION", name))?;
    let part = |at| parts.get(at).map_or("", |part| part.as_str()).to_owned();
    Ok(SealedKey::AzureKeyVault { vault_url: part(1), name: part(2), version: part(3), enc: String::new() })
}

/// `https://VAULT/v1/ENGINE/keys/NAME` of transit.
pub fn transit(name: &str) -> Result<SealedKey, NameError> {
    let parts = VAULT
        .captures(name.trim())
        .ok_or_else(|| NameError::form("https://VAULT/v1/ENGINE/keys/NAME", name))?;
    Ok(SealedKey::VaultTransit {
        address: parts[1].to_owned(),
        engine_path: parts[2].to_owned(),
        key_name: parts[3].to_owned(),
        enc: String::new(),
    })
}

/// Names of master keys of every kind, each kind a comma-separated list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists<'a> {
    /// [`mod@age`].
    pub age: &'a str,
    /// [`pgp`].
    pub pgp: &'a str,
    /// [`kms`].
    pub kms: &'a str,
    /// Encryption context of all of [`Self::kms`].
    pub context: &'a [(String, String)],
    /// Profile of the AWS configuration for all of [`Self::kms`].
    pub profile: Option<&'a str>,
    /// [`gcp_kms`].
    pub gcp_kms: &'a str,
    /// [`hckms`].
    pub hckms: &'a str,
    /// [`azure`].
    pub azure: &'a str,
    /// [`transit`].
    pub transit: &'a str,
}

impl Lists<'_> {
    /// All that are named.
    pub fn keys(&self) -> Result<Vec<SealedKey>, NameError> {
        let mut keys = Vec::new();
        for name in list(self.age) {
            keys.push(age(name)?);
        }
        keys.extend(list(self.pgp).map(pgp));
        keys.extend(list(self.kms).map(|name| kms(name, self.context, self.profile)));
        keys.extend(list(self.gcp_kms).map(gcp_kms));
        let hckms = list(self.hckms).map(hckms);
        let checked = hckms.chain(list(self.azure).map(azure)).chain(list(self.transit).map(transit));
        for key in checked {
            keys.push(key?);
        }
        Ok(keys)
    }
}

/// An encryption context of AWS KMS: `name:value`, separated by commas, in the order of names.
pub fn context(text: &str) -> Result<Vec<(String, String)>, NameError> {
    let mut context = BTreeMap::new();
    for entry in text.split(',').filter(|_| !text.is_empty()) {
        let entry = entry.split_once(':').filter(|(_, value)| !value.contains(':'));
        let (name, value) = entry.ok_or_else(|| NameError::form("name:value,name:value", text))?;
        context.insert(name.to_owned(), value.to_owned());
    }
    Ok(context.into_iter().collect())
}

/// The names of a comma-separated list.
pub fn list(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// What is named is no key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// It is not shown.
    #[error(
        "a secret age identity is named, not a recipient\nhelp: `age-keygen -y` prints the recipient of an identity"
    )]
    Secret,
    /// Not of the form that such names have.
    #[error("{name:?} is not of the form {expected}")]
    Form {
        /// The form.
        expected: &'static str,
        /// What stands there.
        name: String,
    },
}

impl NameError {
    fn form(expected: &'static str, name: &str) -> Self {
        Self::Form { expected, name: name.chars().take(200).collect() }
    }
}

impl Fault for NameError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_sops_names_them() {
        let table = [
            (age(" age1x "), "age1x"),
            (Ok(pgp("AAAA BBBB CCCC")), "AAAABBBBCCCC"),
            (Ok(kms("arn:aws:kms:r:1:key/k + arn:aws:iam::1:role/r", &[], None)), "arn:aws:kms:r:1:key/k"),
            (
                Ok(gcp_kms("projects/p/locations/l/keyRings/r/cryptoKeys/k")),
                "projects/p/locations/l/keyRings/r/cryptoKeys/k",
            ),
            (hckms("r:u"), "r:u"),
            (azure("https://v.vault.azure.net/keys/k/1"), "https://v.vault.azure.net/keys/k/1"),
            (azure("https://v.vault.azure.net/keys/k"), "https://v.vault.azure.net/keys/k/"),
            (transit("https://v:8200/v1/a/transit/keys/k"), "https://v:8200/v1/a/transit/keys/k"),
        ];
        for (key, id) in table {
            assert_eq!(key.unwrap().id(), id);
        }
        let SealedKey::Kms { role, .. } = kms("arn:k+arn:r", &[], Some("")) else { panic!() };
        assert_eq!(role.as_deref(), Some("arn:r"));
    }

    #[test]
    fn lists_hold_keys_of_every_kind() {
        let context = context("b:2,a:,b:3").unwrap();
        assert_eq!(context, [("a".to_owned(), String::new()), ("b".to_owned(), "3".to_owned())]);
        let lists = Lists {
            age: "age1x, age1y,",
            pgp: "AA BB",
            kms: "arn:k+arn:r,arn:l",
            context: &context,
            profile: Some("p"),
            gcp_kms: "projects/p",
            hckms: "r:u",
            azure: "https://v/keys/k,https://v/keys/l/1",
            transit: "https://v/v1/t/keys/k",
        };
        let ids: Vec<_> = lists.keys().unwrap().iter().map(SealedKey::id).collect();
        let expected = [
            "age1x",
            "age1y",
            "AABB",
            "arn:k",
            "arn:l",
            "projects/p",
            "r:u",
            "https://v/keys/k/",
            "https://v/keys/l/1",
            "https://v/v1/t/keys/k",
        ];
        assert_eq!(ids, expected);
        let SealedKey::Kms { role, context: said, profile, .. } = &lists.keys().unwrap()[3] else { panic!() };
        assert_eq!((role.as_deref(), profile.as_deref(), said), (Some("arn:r"), Some("p"), &context));
        assert_eq!(Lists::default().keys(), Ok(Vec::new()));
        for text in ["a", "a:b:c", "a:b,", ","] {
            assert!(super::context(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_and_a_secret_is_not_shown() {
        for (error, message) in [
            (age("AGE-SECRET-KEY-1STRONGROOM-MARKER"), "a secret age identity is named, not a recipient"),
            (hckms("uuid"), "\"uuid\" is not of the form region:uuid"),
            (
                azure("http://v/keys/k"),
                "\"http://v/keys/k\" is not of the form https://VAULT/keys/NAME/VERSION",
            ),
            (transit("v/keys/k"), "\"v/keys/k\" is not of the form https://VAULT/v1/ENGINE/keys/NAME"),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(message) && !error.contains("MARKER"), "{error}");
        }
    }
}
