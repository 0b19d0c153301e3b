//! Google Cloud KMS (`gcp_kms`): one `decrypt` or `encrypt` per data key, of the key that the file names.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::google::{Google, GoogleError};
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// A sealed data key has about a hundred bytes.
const ENC_LIMIT: usize = 16 * 1024;

/// Asks Cloud KMS.
#[derive(Debug)]
pub struct GcpKms {
    google: Arc<Google>,
}

impl GcpKms {
    /// Login and connections are those of `google`.
    pub fn new(google: Arc<Google>) -> Self {
        Self { google }
    }

    async fn decrypt(&self, resource_id: &str, enc: &str) -> Result<DataKey, UnwrapError> {
        if enc.len() > ENC_LIMIT {
            return Err(invalid("the sealed key is too large"));
        }
        let ciphertext = STANDARD.decode(enc.trim()).map_err(|_| invalid("the sealed key is not base64"))?;
        Ok(self.google.decrypt(resource_id, &ciphertext).await?)
    }
}

impl KeyUnwrap for GcpKms {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let SealedKey::GcpKms { resource_id, enc } = key else { return None };
            Some(self.decrypt(resource_id, enc).await)
        }
        .boxed()
    }
}

impl KeyWrap for GcpKms {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            let SealedKey::GcpKms { resource_id, .. } = key else { return None };
            let sealed = self.google.encrypt(resource_id, data_key).await;
            Some(sealed.map(|sealed| STANDARD.encode(sealed)).map_err(UnwrapError::from))
        }
        .boxed()
    }
}

impl From<GoogleError> for UnwrapError {
    fn from(error: GoogleError) -> Self {
        Self::new(error.class, error.reason)
    }
}

fn invalid(reason: &str) -> UnwrapError {
    UnwrapError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::secret::Secret;
    use crate::web::mock::{Mock, Request};

    const KEY: &str = "projects/p-1/locations/global/keyRings/r/cryptoKeys/k";

    fn answer(request: &Request) -> (u16, String) {
        let body: Json = serde_json::from_str(&request.body).unwrap_or_default();
        assert_eq!(request.path, format!("/v1/{KEY}:decrypt"));
        assert_eq!(request.header("authorization"), "Bearer STRONGROOM-MARKER");
        let plaintext = |crc: &str| {
            json!({"plaintext": STANDARD.encode("123456789"), "plaintextCrc32c": crc}).to_string()
        };
        let sealed = STANDARD.decode(body["ciphertext"].as_str().unwrap()).unwrap();
        match std::str::from_utf8(&sealed).unwrap() {
            "a" => {
                assert_eq!(body["ciphertextCrc32c"], "3251651376");
                (200, plaintext("3808858755"))
            }
            "damaged" => (200, plaintext("3808858756")),
            "moved" => (307, String::new()),
            "gone" => (404, "STRONGROOM-MARKER".into()),
            "shut" => (403, r#"{"error": {"status": "PERMISSION_DENIED"}}"#.into()),
            "odd" => (200, "STRONGROOM-MARKER".into()),
            _ => (400, "STRONGROOM-MARKER".into()),
        }
    }

    #[tokio::test]
    async fn data_keys_are_sealed_by_a_mock_that_says_that_it_saw_them_whole() {
        let mock = Mock::start(|request| {
            assert_eq!(request.path, format!("/v1/{KEY}:encrypt"));
            let body: Json = serde_json::from_str(&request.body).unwrap();
            assert_eq!(body, json!({"plaintext": "YQ==", "plaintextCrc32c": "3251651376"}));
            let answer = |crc: &str| {
                json!({"ciphertext": STANDARD.encode("123456789"), "ciphertextCrc32c": crc,
                    "verifiedPlaintextCrc32c": true})
            };
            match request.number {
                1 => (200, answer("3808858755").to_string()),
                2 => (200, answer("3808858756").to_string()),
                3 => (200, json!({"ciphertext": "YQ=="}).to_string()),
                4 => (200, json!({"plaintext": "STRONGROOM-MARKER"}).to_string()),
                _ => (403, r#"{"error": {"status": "PERMISSION_DENIED"}}"#.into()),
            }
        })
        .await;
        let variables = [
            ("SOPS_GCP_KMS_ENDPOINT", mock.url.as_str()),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", "STRONGROOM-MARKER"),
        ];
        let kms = GcpKms::new(Arc::new(Google::new(variables.into_iter().collect())));
        let (resource_id, enc, data_key) = (KEY.to_owned(), String::new(), Secret::new(b"a".to_vec()));
        let key = SealedKey::GcpKms { resource_id, enc };
        for expected in [
            Ok("MTIzNDU2Nzg5"),
            Err("what Google KMS gave was damaged on its way"),
            Err("Google KMS did not see whether what it encrypted was damaged on its way"),
            Err("what Google KMS answers is not what it should be"),
            Err("Google KMS says HTTP 403 PERMISSION_DENIED"),
        ] {
            let sealed = kms.wrap_key(&key, &data_key).await.unwrap().map_err(|error| error.reason);
            assert_eq!(sealed.as_deref().map_err(String::as_str), expected);
        }
    }

    #[tokio::test]
    async fn data_keys_are_opened_by_a_mock_and_failures_are_classified() {
        let mock = Mock::start(answer).await;
        let variables = [
            ("SOPS_GCP_KMS_ENDPOINT", mock.url.as_str()),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", "STRONGROOM-MARKER"),
        ];
        let kms = GcpKms::new(Arc::new(Google::new(variables.into_iter().collect())));
        let told = async |resource_id: &str, enc: String| {
            let key = SealedKey::GcpKms { resource_id: resource_id.into(), enc };
            match kms.unwrap_key(&key).await.unwrap() {
                Ok(data_key) => String::from_utf8(data_key.expose().clone()).unwrap(),
                Err(error) => format!("{:?}: {error}", error.class),
            }
        };
        for (sealed, expected) in [
            ("a", "123456789"),
            ("damaged", "Unavailable: what Google KMS gave was damaged on its way"),
            ("gone", "NotFound: Google KMS says HTTP 404"),
            ("shut", "Denied: Google KMS says HTTP 403 PERMISSION_DENIED"),
            ("moved", "Unavailable: Google KMS says HTTP 307"),
            ("odd", "Invalid: what Google KMS answers is not what it should be"),
            ("other", "Invalid: Google KMS says HTTP 400"),
        ] {
            assert_eq!(told(KEY, STANDARD.encode(sealed)).await, expected, "{sealed}");
        }
        assert_eq!(mock.seen().len(), 7);
        for resource_id in [
            "projects/p/locations/l/keyRings/r/cryptoKeys/k/../x",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k?a=b#",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "@evil.example/",
        ] {
            let told = told(resource_id, STANDARD.encode("a")).await;
            assert_eq!(told, "Invalid: not the name of a key of Google KMS", "{resource_id}");
        }
        assert_eq!(told(KEY, "x".repeat(ENC_LIMIT + 1)).await, "Invalid: the sealed key is too large");
        assert_eq!(told(KEY, "?".into()).await, "Invalid: the sealed key is not base64");
        assert_eq!(mock.seen().len(), 7, "what cannot be right is not asked");
    }
}
