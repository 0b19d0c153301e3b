//! AWS KMS: one `Decrypt` call per data key, in the region that the key's ARN names.
//!
//! Region, role, profile and encryption context come from the file, credentials from [`Aws`]. KMS itself refuses
//! when the ciphertext belongs to another key than the ARN says.

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

    async fn decrypt(&self, sealed: Sealed<'_>) -> Result<DataKey, UnwrapError> {
        let region = region(sealed.arn)
            .ok_or_else(|| UnwrapError::new(Class::Invalid, "not the ARN of an AWS KMS key or alias"))?;
        let blob = ciphertext(sealed.enc)?;
        let connection = Connection {
            region: Some(region.to_owned()),
            profile: sealed.profile.map(str::to_owned),
            role_arn: sealed.role.map(str::to_owned),
            session_name: sealed.role.map(|_| session_name()),
        };
        let config = self.aws.config(&connection).await?;
        let context = sealed.context.iter().cloned().collect();
        let answer = Client::new(&config)
            .decrypt()
            .key_id(sealed.arn)
            .ciphertext_blob(blob)
            .set_encryption_context(Some(context))
            .send()
            .await
            .map_err(|error| AwsError::of(&error))?;
        let plaintext = answer.plaintext.map(Blob::into_inner).unwrap_or_default();
        Ok(Secret::new(plaintext))
    }
}

impl KeyUnwrap for Kms {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let SealedKey::Kms { arn, role, context, profile, enc } = key else { return None };
            // sops writes fields that say nothing as empty ones.
            let said = |field: &'a Option<String>| field.as_deref().filter(|text| !text.is_empty());
            let (role, profile) = (said(role), said(profile));
            Some(self.decrypt(Sealed { arn, role, context, profile, enc }).await)
        }
        .boxed()
    }
}

/// The fields of [`SealedKey::Kms`].
struct Sealed<'a> {
    arn: &'a str,
    role: Option<&'a str>,
    context: &'a [(String, String)],
    profile: Option<&'a str>,
    enc: &'a str,
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
