//! `ref+azurekeyvault://vault/secret`: Azure Key Vault.
//!
//! A vault without a dot in its name is one of Azure's public cloud. Unlike with vals, it must be one that the operator
//! names, because a token is sent to it.

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};

use crate::azure::{Azure, AzureError};
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Fragment, Locator, Params, Scheme, Source};
use crate::refs::sources::http;
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "azurekeyvault",
    doc: "Azure Key Vault, in vaults of `STRONGROOM_ALLOW_ADDRESSES`; the login is the operator's, see [Azure](keys.md#azure)",
    examples: &[
        (
            "ref+azurekeyvault://my-vault/db-password",
            "the secret `db-password` of `https://my-vault.vault.azure.net`",
        ),
        (
            "ref+azurekeyvault://my-vault/db/0123456789abcdef0123456789abcdef#/password",
            "`password` of JSON or YAML in a version of a secret",
        ),
        ("ref+azurekeyvault://my-vault.vault.azure.cn/db-password", "of a vault of another cloud"),
    ],
    connection: &[],
    document: &[],
    fragment: Fragment::Walks,
    normalise,
    open: |_, ambient| Ok(Arc::new(KeyVault { azure: Arc::clone(&ambient.azure) })),
};

/// `host/secret` or `host/secret/version`.
fn normalise(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (vault, rest) = path.split_once('/').unwrap_or((path, ""));
    if vault.is_empty() {
        return Err(malformed());
    }
    let vault = if vault.contains('.') { vault.to_owned() } else { format!("{vault}.vault.azure.net") };
    let path = format!("{}/{rest}", http::host(&vault)?);
    parts(&path).map(|_| path.clone())
}

fn parts(path: &str) -> Result<(&str, &str, Option<&str>), FetchError> {
    let mut parts = path.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(host), Some(secret), version, None) if !secret.is_empty() => Ok((host, secret, version)),
        _ => Err(malformed()),
    }
}

fn malformed() -> FetchError {
    FetchError::new(Class::Invalid, "it must be vault/secret or vault/secret/version")
}

#[derive(Debug)]
struct KeyVault {
    azure: Arc<Azure>,
}

impl Source for KeyVault {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::join_all(at.iter().map(|at| self.secret(at))).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

impl KeyVault {
    async fn secret(&self, at: &Locator) -> Result<Document, FetchError> {
        let (host, secret, version) = parts(&at.path)?;
        let read = async {
            let vault = self.azure.vault_of_host(host)?;
            self.azure.secret(&vault, secret, version).await
        };
        let value = read
            .await
            .map_err(|AzureError { class, reason, busy }| FetchError::new(class, reason).busy(busy))?;
        Ok(Secret::new(value.expose().clone().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refs::sources::mock::{ambient, locators, told};
    use crate::web::mock::Mock;

    #[test]
    fn a_secret_has_one_spelling() {
        let version = "0123456789abcdef0123456789abcdef";
        for (path, expected) in [
            ("Team/db".to_owned(), Some("team.vault.azure.net/db".to_owned())),
            ("team/db/".to_owned(), Some("team.vault.azure.net/db".to_owned())),
            (format!("team/db/{version}"), Some(format!("team.vault.azure.net/db/{version}"))),
            ("team.vault.azure.CN:443/db".to_owned(), Some("team.vault.azure.cn/db".to_owned())),
            ("me@team.vault.azure.net/db".to_owned(), None),
            ("team".to_owned(), None),
            ("/db".to_owned(), None),
            ("team//v".to_owned(), None),
            ("team/db/v/x".to_owned(), None),
        ] {
            assert_eq!(normalise(&Scope::default(), &path, &Params::new()).ok(), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn secrets_are_read_from_a_mock_and_fail_by_themselves() {
        let mock = Mock::start(|request| match request.path.as_str() {
            "/secrets/a?api-version=7.4" => (200, r#"{"value": "one"}"#.into()),
            "/secrets/a/0f?api-version=7.4" => (200, r#"{"value": "of a version"}"#.into()),
            "/secrets/shut?api-version=7.4" => (403, r#"{"error": {"code": "Forbidden"}}"#.into()),
            _ => (404, r#"{"error": {"code": "SecretNotFound"}}"#.into()),
        })
        .await;
        let host = mock.url.trim_start_matches("http://");
        let source = (SCHEME.open)(&Params::new(), &ambient(&[], &[&mock.url])).unwrap();
        let paths = ["a", "a/0f", "shut", "none", "a_b"].map(|path| format!("{host}/{path}"));
        let paths = paths.iter().map(String::as_str).chain(["evil.vault.azure.net/a"]);
        let answers = told(source.fetch(&Scope::default(), &locators(paths, false)).await);
        assert_eq!(
            answers[..5],
            [
                "one",
                "of a version",
                "Denied: Azure Key Vault says HTTP 403 Forbidden",
                "NotFound: Azure Key Vault says HTTP 404 SecretNotFound",
                "Invalid: not the name of a secret of Azure Key Vault",
            ]
        );
        assert!(
            answers[5].starts_with("Denied: https://evil.vault.azure.net is not an address"),
            "{}",
            answers[5]
        );
        assert_eq!(mock.seen().len(), 4);
    }
}
