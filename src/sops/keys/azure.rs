//! Azure Key Vault (`azure_kv`): one `decrypt` or `encrypt` by RSA-OAEP with SHA-256 per data key, in the vault
//! that the file or rule names.
//!
//! Unlike with sops, that vault must be one of the operator's, because a token is sent to it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{BoxFuture, FutureExt};

use crate::azure::{Azure, AzureError};
use crate::fault::Class;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};

/// What an RSA key of 4096 bits seals has 512 bytes.
const ENC_LIMIT: usize = 16 * 1024;

/// Asks Azure Key Vault.
#[derive(Debug)]
pub struct AzureKeyVault {
    azure: Arc<Azure>,
}

impl AzureKeyVault {
    /// Login and connections are those of `azure`.
    pub fn new(azure: Arc<Azure>) -> Self {
        Self { azure }
    }

    async fn decrypt(&self, url: &str, name: &str, version: &str, enc: &str) -> Result<DataKey, UnwrapError> {
        let invalid = |reason: &str| UnwrapError::new(Class::Invalid, reason);
        if enc.len() > ENC_LIMIT {
            return Err(invalid("the sealed key is too large"));
        }
        let ciphertext = URL_SAFE_NO_PAD.decode(enc.trim());
        let ciphertext = ciphertext.map_err(|_| invalid("the sealed key is not URL-safe base64"))?;
        let vault = self.azure.vault(url)?;
        Ok(self.azure.decrypt(&vault, name, version, &ciphertext).await?)
    }

    async fn encrypt(
        &self,
        url: &str,
        name: &str,
        version: &str,
        data_key: &DataKey,
    ) -> Result<String, UnwrapError> {
        let vault = self.azure.vault(url)?;
        Ok(URL_SAFE_NO_PAD.encode(self.azure.encrypt(&vault, name, version, data_key).await?))
    }

    async fn newest(&self, url: &str, name: &str) -> Result<String, UnwrapError> {
        let vault = self.azure.vault(url)?;
        Ok(self.azure.newest(&vault, name).await?)
    }
}

impl KeyUnwrap for AzureKeyVault {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let SealedKey::AzureKeyVault { vault_url, name, version, enc } = key else { return None };
            Some(self.decrypt(vault_url, name, version, enc).await)
        }
        .boxed()
    }
}

impl KeyWrap for AzureKeyVault {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move {
            let SealedKey::AzureKeyVault { vault_url, name, version, .. } = key else { return None };
            Some(self.encrypt(vault_url, name, version, data_key).await)
        }
        .boxed()
    }

    /// With a version, because a key that is rotated does not open with the next one what it sealed with this one.
    fn complete<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<SealedKey, UnwrapError>>> {
        async move {
            let SealedKey::AzureKeyVault { vault_url, name, version, enc } = key else { return None };
            if !version.is_empty() {
                return None;
            }
            let (vault_url, name, enc) = (vault_url.clone(), name.clone(), enc.clone());
            let version = self.newest(&vault_url, &name).await;
            Some(version.map(|version| SealedKey::AzureKeyVault { vault_url, name, version, enc }))
        }
        .boxed()
    }
}

impl From<AzureError> for UnwrapError {
    fn from(error: AzureError) -> Self {
        Self::new(error.class, error.reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::secret::Secret;
    use crate::sops::keys::wrap::Wrappers;
    use crate::web::mock::{Mock, Request};

    fn answer(request: &Request) -> (u16, String) {
        let body: Json = serde_json::from_str(&request.body).unwrap_or_default();
        assert_eq!(request.header("authorization"), "Bearer STRONGROOM-MARKER");
        assert_eq!(body["alg"], "RSA-OAEP-256");
        let opened =
            |text: &str| (200, json!({"kid": "k", "value": URL_SAFE_NO_PAD.encode(text)}).to_string());
        match (request.path.as_str(), body["value"].as_str().unwrap()) {
            ("/keys/k/0f/decrypt?api-version=7.4", "Z29vZA") => opened("of a version"),
            ("/keys/k//decrypt?api-version=7.4", "Z29vZA") => opened("of the newest"),
            ("/keys/k/0f/decrypt?api-version=7.4", "_-8") => {
                (403, json!({"error": {"code": "Forbidden"}}).to_string())
            }
            _ => (404, json!({"error": {"code": "KeyNotFound"}}).to_string()),
        }
    }

    #[tokio::test]
    async fn data_keys_are_sealed_by_a_mock_to_the_version_that_is_the_newest() {
        let mock = Mock::start(|request| match request.path.as_str() {
            "/keys/k?api-version=7.4" => (200, r#"{"key": {"kid": "https://v/keys/k/0f"}}"#.into()),
            "/keys/odd?api-version=7.4" => (200, r#"{"key": {"kid": "https://v/keys/odd/"}}"#.into()),
            "/keys/k/0f/encrypt?api-version=7.4" => {
                let body: Json = serde_json::from_str(&request.body).unwrap();
                assert_eq!(body, json!({"alg": "RSA-OAEP-256", "value": "U1RST05HUk9PTS1NQVJLRVI"}));
                (200, json!({"kid": "k", "value": "_-8"}).to_string())
            }
            _ => (404, json!({"error": {"code": "KeyNotFound", "message": "STRONGROOM-MARKER"}}).to_string()),
        })
        .await;
        let azure = Azure::mocked(vec![mock.url.parse().unwrap()], "t");
        let wrappers = Wrappers::new(vec![Arc::new(AzureKeyVault::new(Arc::new(azure)))]);
        let data_key = Secret::new(b"STRONGROOM-MARKER".to_vec());
        let sealed = async |vault_url: &str, name: &str, version: &str| {
            let [vault_url, name, version] = [vault_url, name, version].map(str::to_owned);
            let key = SealedKey::AzureKeyVault { vault_url, name, version, enc: String::new() };
            match wrappers.seal(&[vec![key]], None, &data_key).await {
                Ok(mut groups) => Ok(groups.swap_remove(0).swap_remove(0)),
                Err(error) => Err(error.to_string()),
            }
        };
        for version in ["", "0f"] {
            let sealed = sealed(&mock.url, "k", version).await.unwrap();
            assert_eq!(sealed.id(), format!("{}/keys/k/0f", mock.url));
            let SealedKey::AzureKeyVault { enc, .. } = sealed else { panic!() };
            assert_eq!(enc, "_-8");
        }
        for (vault_url, name, version, expected) in [
            (&*mock.url, "other", "", "/keys/other/: Azure Key Vault says HTTP 404 KeyNotFound"),
            (&mock.url, "odd", "", "/keys/odd/: what Azure Key Vault answers is not what it should be"),
            (&mock.url, "k", "0e", "/keys/k/0e: Azure Key Vault says HTTP 404 KeyNotFound"),
            (&mock.url, "k/x", "", "/keys/k/x/: not the name of a key of Azure Key Vault"),
            (
                "https://evil.example",
                "k",
                "",
                "https://evil.example is not an address that the operator names",
            ),
        ] {
            let error = sealed(vault_url, name, version).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn data_keys_are_opened_by_a_mock_and_failures_are_classified() {
        let mock = Mock::start(answer).await;
        let azure = Azure::mocked(vec![mock.url.parse().unwrap()], "STRONGROOM-MARKER");
        let holder = AzureKeyVault::new(Arc::new(azure));
        let told = async |vault_url: &str, name: &str, version: &str, enc: &str| {
            let [vault_url, name, version, enc] = [vault_url, name, version, enc].map(str::to_owned);
            let key = SealedKey::AzureKeyVault { vault_url, name, version, enc };
            match holder.unwrap_key(&key).await.unwrap() {
                Ok(data_key) => String::from_utf8(data_key.expose().clone()).unwrap(),
                Err(error) => format!("{:?}: {}", error.class, error.reason.lines().next().unwrap()),
            }
        };
        let url = format!("{}/", mock.url);
        for (name, version, enc, expected) in [
            ("k", "0f", "Z29vZA", "of a version"),
            ("k", "", "Z29vZA\n", "of the newest"),
            ("k", "0f", "_-8", "Denied: Azure Key Vault says HTTP 403 Forbidden"),
            ("other", "0f", "Z29vZA", "NotFound: Azure Key Vault says HTTP 404 KeyNotFound"),
            ("k/..", "0f", "Z29vZA", "Invalid: not the name of a key of Azure Key Vault"),
            ("k", "0f/../x", "Z29vZA", "Invalid: not the name of a version of Azure Key Vault"),
            ("k", "0f", "Z29vZA==", "Invalid: the sealed key is not URL-safe base64"),
            ("k", "0f", &"A".repeat(ENC_LIMIT + 1), "Invalid: the sealed key is too large"),
        ] {
            assert_eq!(told(&url, name, version, enc).await, expected, "{name} {version} {enc:.9}");
        }
        assert_eq!(mock.seen().len(), 4, "what cannot be right is not asked");
        let told = told("https://evil.vault.azure.net", "k", "0f", "Z29vZA").await;
        assert_eq!(told, "Denied: https://evil.vault.azure.net is not an address that the operator names");
    }
}
