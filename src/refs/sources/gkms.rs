//! `ref+gkms://ciphertext`: text that Google Cloud KMS decrypts.
//!
//! The path is the ciphertext in URL-safe base64, with or without its `=`. The key is of four options, which a policy
//! sees. As with `awskms`, a key that is gone is an error that nothing forgives: the ciphertext is there.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::google::Google;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source,
};
use crate::refs::sources::ciphertext;
use crate::refs::sources::google::{each, failure};
use crate::scope::Scope;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "gkms",
    doc: "Google Cloud KMS; the login is that of `gcpsecrets`",
    examples: &[(
        "ref+gkms://CiQAqD-x4w?project=p&location=global&keyring=r&crypto_key=k#/password",
        "`password` of JSON or YAML that this ciphertext, in URL-safe base64, says",
    )],
    connection: &[
        SchemeOption { name: "project", doc: "project of the key" },
        SchemeOption { name: "location", doc: "location of the key" },
        SchemeOption { name: "keyring", doc: "key ring" },
        SchemeOption { name: "crypto_key", doc: "name of the key" },
    ],
    document: &[],
    fragment: Fragment::Walks,
    normalise: ciphertext::normalise,
    open,
};

fn open(params: &Params, ambient: &Ambient) -> Result<Arc<dyn Source>, OpenError> {
    let option = |name: &str| {
        let said = params.get(name).filter(|said| !said.is_empty());
        said.ok_or_else(|| OpenError::new(Class::Invalid, format!("option {name} is not said")))
    };
    let (project, location) = (option("project")?, option("location")?);
    let (ring, name) = (option("keyring")?, option("crypto_key")?);
    let key = format!("projects/{project}/locations/{location}/keyRings/{ring}/cryptoKeys/{name}");
    Ok(Arc::new(Kms { google: Arc::clone(&ambient.google), key }))
}

#[derive(Debug)]
struct Kms {
    google: Arc<Google>,
    key: String,
}

impl Source for Kms {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        each(at, |at| self.decrypt(at)).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

impl Kms {
    async fn decrypt(&self, at: &Locator) -> Result<Document, FetchError> {
        let sealed = ciphertext::decode(&at.path)?;
        let answer = self.google.decrypt(&self.key, &sealed).await;
        answer.map_err(|error| ciphertext::unforgiven(failure(&error, &self.key)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::refs::sources::mock::{ambient, locator, locators, told};
    use crate::web::mock::Mock;

    const KEY: [(&str, &str); 4] =
        [("project", "p"), ("location", "global"), ("keyring", "r"), ("crypto_key", "k")];

    #[tokio::test]
    async fn ciphertexts_are_decrypted_by_a_mock_and_fail_by_themselves() {
        let mock = Mock::start(|request| {
            assert_eq!(request.path, "/v1/projects/p/locations/global/keyRings/r/cryptoKeys/k:decrypt");
            match request.body.as_str() {
                body if body.contains("Z29vZA==") => {
                    (200, json!({"plaintext": "U1RST05HUk9PTQ=="}).to_string())
                }
                body if body.contains("Z29uZQ==") => (404, String::new()),
                _ => (403, String::new()),
            }
        })
        .await;
        let variables = [("SOPS_GCP_KMS_ENDPOINT", mock.url.as_str()), ("GOOGLE_OAUTH_ACCESS_TOKEN", "t")];
        let ambient = ambient(&variables, &[]);
        let source = (SCHEME.open)(&locator("", false, &KEY).params, &ambient).unwrap();
        let at = locators(["Z29vZA", "Z29uZQ", "c2h1dA"], false);
        let key = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
        assert_eq!(
            told(source.fetch(&Scope::default(), &at).await),
            [
                "STRONGROOM".to_owned(),
                format!("Invalid: Google KMS says HTTP 404 for {key}"),
                format!("Denied: Google KMS says HTTP 403 for {key}"),
            ]
        );
        let error = (SCHEME.open)(&locator("", false, &KEY[..3]).params, &ambient).unwrap_err();
        assert_eq!(error.reason, "option crypto_key is not said");
        let outside = [KEY[0], KEY[1], KEY[2], ("crypto_key", "k/../x")];
        let source = (SCHEME.open)(&locator("", false, &outside).params, &ambient).unwrap();
        let told = told(source.fetch(&Scope::default(), &at[..1]).await);
        assert!(told[0].starts_with("Invalid: not the name of a key of Google KMS"), "{told:?}");
    }
}
