//! `ref+awskms://ciphertext`: text that AWS KMS decrypts.
//!
//! The path is the ciphertext in URL-safe base64, with or without its `=`. A key that is gone is an error that neither
//! `optional` nor `default` forgives: the ciphertext is there, and only cannot be read. An unknown algorithm is
//! refused, where vals takes the symmetric one.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::EncryptionAlgorithmSpec as Algorithm;
use futures::future::{BoxFuture, FutureExt};

use crate::aws::{Aws, AwsError, Connection};
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source};
use crate::refs::sources::aws::{self, Turns};
use crate::refs::sources::ciphertext;
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "awskms",
    doc: "AWS KMS",
    examples: &[
        ("ref+awskms://AQICAHhy_i8hQoGLOE46PVJyinH-Ow", "what this ciphertext, in URL-safe base64, says"),
        ("ref+awskms://AQICAHhy_i8hQoGLOE46PVJyinH-Ow#/password", "`password` of JSON or YAML in it"),
        (
            "ref+awskms://AQICAHhy_i8h?key=alias/team&alg=RSAES_OAEP_SHA_256",
            "of an asymmetric key, which must be named",
        ),
        (
            "ref+awskms://AQICAHhy_i8h?context=%7B%22team%22:%22a%22%7D",
            "with the encryption context `{\"team\":\"a\"}`",
        ),
    ],
    connection: aws::CONNECTION,
    document: &[
        SchemeOption { name: "key", doc: "id, alias or ARN of the key" },
        SchemeOption {
            name: "alg",
            doc: "`SYMMETRIC_DEFAULT` (unless said), `RSAES_OAEP_SHA_1` or `RSAES_OAEP_SHA_256`",
        },
        SchemeOption { name: "context", doc: "encryption context, a JSON object of strings" },
    ],
    fragment: Fragment::Walks,
    normalise: ciphertext::normalise,
    open: |params, ambient| {
        let aws = Arc::clone(&ambient.aws);
        Ok(Arc::new(Kms { aws, connection: aws::connection(params), turns: Turns::default() }))
    },
};

#[derive(Debug)]
struct Kms {
    aws: Arc<Aws>,
    connection: Connection,
    turns: Turns,
}

impl Source for Kms {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        aws::fetch_regions(&self.aws, &self.connection, at, move |config, connection, at| async move {
            let region = Region { client: Client::new(&config), connection, turns: &self.turns };
            let decrypt =
                async |(index, locator): (usize, Locator)| vec![(index, region.decrypt(&locator).await)];
            aws::side_by_side(at, decrypt).await
        })
        .boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

/// KMS of one region, as one identity.
struct Region<'a> {
    client: Client,
    connection: Connection,
    turns: &'a Turns,
}

impl Region<'_> {
    async fn decrypt(&self, at: &Locator) -> Result<Document, FetchError> {
        let request = self.client.decrypt().ciphertext_blob(Blob::new(ciphertext::decode(&at.path)?));
        let request = request.set_key_id(at.params.get("key").cloned());
        let request = request.set_encryption_algorithm(algorithm(&at.params)?);
        let request = request.set_encryption_context(context(&at.params)?);
        let turn = self.turns.turn().await;
        let answer = request.send().await;
        drop(turn);
        let answer = answer
            .map_err(|error| ciphertext::unforgiven(aws::failure(&AwsError::of(&error), &self.connection)))?;
        let plaintext = answer.plaintext.ok_or_else(|| invalid("KMS gave no plaintext"))?;
        Ok(Secret::new(plaintext.into_inner()))
    }
}

fn algorithm(params: &Params) -> Result<Option<Algorithm>, FetchError> {
    match params.get("alg").map(String::as_str) {
        None => Ok(None),
        Some("SYMMETRIC_DEFAULT") => Ok(Some(Algorithm::SymmetricDefault)),
        Some("RSAES_OAEP_SHA_1") => Ok(Some(Algorithm::RsaesOaepSha1)),
        Some("RSAES_OAEP_SHA_256") => Ok(Some(Algorithm::RsaesOaepSha256)),
        Some(_) => {
            Err(invalid("option alg is none of SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256"))
        }
    }
}

fn context(params: &Params) -> Result<Option<HashMap<String, String>>, FetchError> {
    let read = |text: &String| serde_json::from_str(text);
    let context = params.get("context").map(read).transpose();
    context.map_err(|_| invalid("option context is not a JSON object of strings"))
}

fn invalid(reason: &str) -> FetchError {
    FetchError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::refs::sources::mock::{self, locator, told};

    /// `Z29vZA` is `good`, `Z29uZQ` is `gone`, `c2h1dA` is `shut`; the plaintext is `STRONGROOM`.
    fn answer(operation: &str, input: &Json) -> Result<Json, &'static str> {
        assert_eq!(operation, "Decrypt");
        match input["CiphertextBlob"].as_str().unwrap() {
            "Z29vZA==" if input["EncryptionContext"] == json!({"team": "b"}) => {
                Err("InvalidCiphertextException")
            }
            "Z29vZA==" => Ok(json!({"Plaintext": "U1RST05HUk9PTQ=="})),
            "Z29uZQ==" => Err("NotFoundException"),
            _ => Err("AccessDeniedException"),
        }
    }

    #[tokio::test]
    async fn ciphertexts_are_decrypted_by_a_mock_and_fail_by_themselves() {
        let (aws, calls) = mock::aws(answer).await;
        let kms = Kms { aws, connection: Connection::default(), turns: Turns::default() };
        for (path, params, expected) in [
            ("Z29vZA", &[][..], "STRONGROOM"),
            ("Z29vZA", &[("context", r#"{"team":"a"}"#), ("alg", "RSAES_OAEP_SHA_1")], "STRONGROOM"),
            ("Z29vZA", &[("context", r#"{"team":"b"}"#)], "Invalid: AWS says InvalidCiphertextException"),
            ("Z29uZQ", &[], "Invalid: AWS says NotFoundException"),
            ("c2h1dA", &[], "Denied: AWS says AccessDeniedException: for a reason"),
            (
                "Z29vZA",
                &[("alg", "RSAES_OAEP_SHA1")],
                "Invalid: option alg is none of SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256",
            ),
            (
                "Z29vZA",
                &[("context", "STRONGROOM-MARKER")],
                "Invalid: option context is not a JSON object of strings",
            ),
        ] {
            let at = [locator(path, false, params)];
            assert_eq!(told(kms.fetch(&Scope::default(), &at).await), [expected], "{path} {params:?}");
        }
        assert_eq!(mock::counted(&calls), [("Decrypt".to_owned(), 5)]);
    }
}
