//! AWS KMS: one `Decrypt` or `Encrypt` call per data key, in the region that the key's ARN names.
//!
//! Region, role, profile and encryption context come from the file, credentials from [`Aws`]. KMS itself refuses
//! when the ciphertext belongs to another key than the ARN says.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt};
use regex::Regex;

use crate::aws::{Aws, AwsError, Connection};
use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// KMS takes ciphertexts of up to 6144 bytes.
const ENC_LIMIT: usize = 16 * 1024;
/// STS takes session names of up to 64 characters.
const SESSION_NAME_LIMIT: usize = 64;

static ARN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]+:(?:key|alias)/.+$").expect("a valid pattern")
});

/// Asks AWS KMS.
#[derive(Debug)]
pub struct Kms {
    aws: Arc<Aws>,
}

impl Kms {
    /// Credentials and connections are those of `aws`.
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    async fn decrypt(&self, key: &MasterKey<'_>, enc: &str) -> Result<DataKey, UnwrapError> {
        let blob = ciphertext(enc)?;
        let asked = self.client(key).await?.decrypt().key_id(key.arn).ciphertext_blob(blob);
        let answer = asked.set_encryption_context(Some(key.context())).send().await;
        let answer = answer.map_err(|error| AwsError::of(&error))?;
        let plaintext = answer.plaintext.map(Blob::into_inner).unwrap_or_default();
        Ok(Secret::new(plaintext))
    }

    async fn encrypt(&self, key: &MasterKey<'_>, data_key: &DataKey) -> Result<String, UnwrapError> {
        let plaintext = Blob::new(data_key.expose().as_slice());
        let asked = self.client(key).await?.encrypt().key_id(key.arn).plaintext(plaintext);
        let answer = asked.set_encryption_context(Some(key.context())).send().await;
        let answer = answer.map_err(|error| AwsError::of(&error))?;
        let sealed = answer.ciphertext_blob.filter(|blob| !blob.as_ref().is_empty());
        let sealed = sealed.ok_or_else(|| UnwrapError::new(Class::Invalid, "AWS gave no ciphertext"))?;
        Ok(STANDARD.encode(sealed))
    }

    /// In the key's region, with its role and profile.
    async fn client(&self, key: &MasterKey<'_>) -> Result<Client, UnwrapError> {
        let region = region(key.arn)
            .ok_or_else(|| UnwrapError::new(Class::Invalid, "not the ARN of an AWS KMS key or alias"))?;
        let connection = Connection {
            region: Some(region.to_owned()),
            profile: key.profile.map(str::to_owned),
            role_arn: key.role.map(str::to_owned),
            session_name: key.role.map(|_| session_name()),
        };
        Ok(Client::new(&self.aws.config(&connection).await?))
    }
}

impl KeyUnwrap for Kms {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let (key, enc) = MasterKey::of(key)?;
            Some(self.decrypt(&key, enc).await)
        }
        .boxed()
    }
}

impl KeyWrap for Kms {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            let (key, _) = MasterKey::of(key)?;
            Some(self.encrypt(&key, data_key).await)
        }
        .boxed()
    }
}

/// The fields of [`SealedKey::Kms`].
struct MasterKey<'a> {
    arn: &'a str,
    role: Option<&'a str>,
    context: &'a [(String, String)],
    profile: Option<&'a str>,
}

impl<'a> MasterKey<'a> {
    /// With what is sealed to it.
    fn of(key: &'a SealedKey) -> Option<(Self, &'a str)> {
        let SealedKey::Kms { arn, role, context, profile, enc } = key else { return None };
        // sops writes fields that say nothing as empty ones.
        let said = |field: &'a Option<String>| field.as_deref().filter(|text| !text.is_empty());
        Some((Self { arn, role: said(role), context, profile: said(profile) }, enc))
    }

    fn context(&self) -> HashMap<String, String> {
        self.context.iter().cloned().collect()
    }
}

impl From<AwsError> for UnwrapError {
    fn from(error: AwsError) -> Self {
        let mut reason = error.reason;
        if error.code.as_deref() == Some("InvalidCiphertextException") {
            reason.push_str(": the sealed key, or its encryption context, is not what this key sealed");
        }
        Self::new(error.class, reason)
    }
}

fn region(arn: &str) -> Option<&str> {
    Some(ARN.captures(arn)?.get(1)?.as_str())
}

fn ciphertext(enc: &str) -> Result<Blob, UnwrapError> {
    if enc.len() > ENC_LIMIT {
        return Err(UnwrapError::new(Class::Invalid, "the sealed key is too large"));
    }
    let bytes = STANDARD
        .decode(enc.trim())
        .map_err(|_| UnwrapError::new(Class::Invalid, "the sealed key is not base64"))?;
    Ok(Blob::new(bytes))
}

/// `sops@HOST`, as sops names its sessions, because trust policies may ask for it.
fn session_name() -> String {
    session_name_of(&rustix::system::uname().nodename().to_string_lossy())
}

fn session_name_of(host: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "+=,.@-_".contains(c) { c } else { '-' };
    format!("sops@{host}").chars().map(allowed).take(SESSION_NAME_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_the_one_of_the_arn() {
        let table = [
            ("arn:aws:kms:eu-west-1:111122223333:key/1234abcd", Some("eu-west-1")),
            ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/team/key", Some("us-gov-west-1")),
            ("arn:aws-cn:kms:cn-north-1:1:key/mrk-1", Some("cn-north-1")),
            ("arn:aws:kms:evil.example/:1:key/x", None),
            ("arn:aws:s3:eu-west-1:1:key/x", None),
            ("arn:aws:kms:eu-west-1:1:key/", None),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", None),
            ("", None),
        ];
        for (arn, expected) in table {
            assert_eq!(region(arn), expected, "{arn}");
        }
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name_of("pod-0.ns"), "sops@pod-0.ns");
        assert_eq!(session_name_of("bücher host"), "sops@b-cher-host");
        assert_eq!(session_name_of(&"x".repeat(100)).len(), SESSION_NAME_LIMIT);
    }

    #[test]
    fn a_sealed_key_that_is_not_base64_is_refused_without_a_call() {
        let error = ciphertext("%STRONGROOM-MARKER").unwrap_err();
        assert_eq!((error.class, error.reason.as_str()), (Class::Invalid, "the sealed key is not base64"));
        let error = ciphertext(&"A".repeat(ENC_LIMIT + 1)).unwrap_err();
        assert_eq!((error.class, error.reason.as_str()), (Class::Invalid, "the sealed key is too large"));
    }
}
