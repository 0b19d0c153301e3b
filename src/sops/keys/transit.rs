//! Transit of HashiCorp Vault or OpenBao (`hc_vault`): one `decrypt` or `encrypt` per data key, at the address that the file
//! or rule names.
//!
//! Unlike with sops, that address must be one of the operator's, because a token is sent to it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DataKey, KeyUnwrap, SealedKey, UnwrapError};
use crate::vault::{Body, Call, Connection, Vault, VaultError};

/// A sealed data key has about a hundred bytes.
const ENC_LIMIT: usize = 16 * 1024;

/// Asks Vault.
#[derive(Debug)]
pub struct Transit {
    vault: Arc<Vault>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: String,
}

#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

impl Transit {
    /// Logins and connections are those of `vault`.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    async fn decrypt(&self, key: &MasterKey<'_>, enc: &str) -> Result<DataKey, UnwrapError> {
        if enc.len() > ENC_LIMIT {
            return Err(invalid("the sealed key is too large"));
        }
        let answer = self.ask(key, "decrypt", &json!({ "ciphertext": enc })).await?;
        let plaintext = serde_json::from_slice::<Envelope<Plaintext>>(answer.expose()).ok();
        let plaintext = plaintext.map(|answer| Secret::new(answer.data.plaintext));
        let plaintext = plaintext.and_then(|plaintext| STANDARD.decode(plaintext.expose()).ok());
        plaintext.map(Secret::new).ok_or_else(|| invalid("the answer holds no plaintext"))
    }

    async fn encrypt(&self, key: &MasterKey<'_>, data_key: &DataKey) -> Result<String, UnwrapError> {
        let body = Secret::new(Body(json!({ "plaintext": STANDARD.encode(data_key.expose()) })));
        let answer = self.ask(key, "encrypt", &body.expose().0).await?;
        let sealed = serde_json::from_slice::<Envelope<Ciphertext>>(answer.expose()).ok();
        sealed.map(|answer| answer.data.ciphertext).ok_or_else(|| invalid("the answer holds no ciphertext"))
    }

    async fn ask(
        &self,
        key: &MasterKey<'_>,
        action: &str,
        body: &Json,
    ) -> Result<Secret<Vec<u8>>, UnwrapError> {
        let engine = key.engine_path.trim_end_matches('/').split('/');
        let path: Vec<_> = engine.chain([action, key.name]).collect();
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(invalid("the path of the engine or the name of the key is not well formed"));
        }
        let brand = self.vault.brand_of(key.address);
        let connection = Connection { address: Some(key.address.to_owned()), ..Connection::of(brand) };
        let server = self.vault.server(&connection)?;
        let answer = server.ask(Call::write(&path, body)).await?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(server.failure(&answer, &path.join("/")).into())
    }
}

/// The fields of [`SealedKey::VaultTransit`].
struct MasterKey<'a> {
    address: &'a str,
    engine_path: &'a str,
    name: &'a str,
}

impl<'a> MasterKey<'a> {
    /// With what is sealed to it.
    fn of(key: &'a SealedKey) -> Option<(Self, &'a str)> {
        let SealedKey::VaultTransit { address, engine_path, key_name, enc } = key else { return None };
        Some((Self { address, engine_path, name: key_name }, enc))
    }
}

impl KeyUnwrap for Transit {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move {
            let (key, enc) = MasterKey::of(key)?;
            Some(self.decrypt(&key, enc).await)
        }
        .boxed()
    }
}

impl KeyWrap for Transit {
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

impl From<VaultError> for UnwrapError {
    fn from(error: VaultError) -> Self {
        Self::new(error.class, error.reason)
    }
}

fn invalid(reason: &str) -> UnwrapError {
    UnwrapError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::vault::Settings;

    #[tokio::test]
    async fn only_an_address_of_the_operator_is_asked() {
        let environment: Environment =
            [("VAULT_ADDR", "https://vault.example"), ("VAULT_TOKEN", "STRONGROOM-MARKER")]
                .into_iter()
                .collect();
        let transit = Transit::new(Arc::new(Vault::new(environment, Settings::default())));
        let key = |address: &str, engine_path: &str, key_name: &str, enc: String| SealedKey::VaultTransit {
            address: address.into(),
            engine_path: engine_path.into(),
            key_name: key_name.into(),
            enc,
        };
        let (sealed, long) = (|| "vault:v1:STRONGROOM-MARKER".to_owned(), "x".repeat(ENC_LIMIT + 1));
        for (key, class, reason) in [
            (
                key("https://evil.example", "transit", "k", sealed()),
                Class::Denied,
                "https://evil.example is not an address that the operator names\nhelp: the operator allows addresses with STRONGROOM_ALLOW_ADDRESSES, or names the one with VAULT_ADDR",
            ),
            (
                key("https://vault.example@evil.example", "transit", "k", sealed()),
                Class::Invalid,
                "what is named is no address of Vault: it must be without user, query and fragment",
            ),
            (
                key("https://vault.example", "transit/..", "k", sealed()),
                Class::Invalid,
                "the path of the engine or the name of the key is not well formed",
            ),
            (
                key("https://vault.example", "transit", "k", long),
                Class::Invalid,
                "the sealed key is too large",
            ),
        ] {
            let error = transit.unwrap_key(&key).await.unwrap().unwrap_err();
            assert_eq!((error.class, error.reason.as_str()), (class, reason));
        }
    }
}
