//! `ref+gcs://bucket/object`: Google Cloud Storage.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::fault::Class;
use crate::google::{Google, STORAGE};
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::google::{each, failure};
use crate::scope::Scope;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "gcs",
    doc: "Google Cloud Storage; the login is that of `gcpsecrets`",
    examples: &[
        ("ref+gcs://my-bucket/path/to/secret.yaml#/password", "`password` of a YAML or JSON object"),
        ("ref+gcs://my-bucket/path/to/file?generation=1639567476974625", "an older generation of an object"),
    ],
    connection: &[],
    document: &[SchemeOption { name: "generation", doc: "number of a generation" }],
    fragment: Fragment::Walks,
    normalise,
    open: |_, ambient| Ok(Arc::new(Storage { google: Arc::clone(&ambient.google) })),
};

fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path, params)?;
    parts(&path).map(|_| path.clone())
}

fn parts(path: &str) -> Result<(&str, &str), FetchError> {
    let parts = path.split_once('/').filter(|(bucket, object)| !bucket.is_empty() && !object.is_empty());
    parts.ok_or_else(|| FetchError::new(Class::Invalid, "it must be bucket/object"))
}

#[derive(Debug)]
struct Storage {
    google: Arc<Google>,
}

impl Source for Storage {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        each(at, |at| self.object(at)).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

impl Storage {
    async fn object(&self, at: &Locator) -> Result<Document, FetchError> {
        let (bucket, object) = parts(&at.path)?;
        let mut query = vec![("alt", "media")];
        if let Some(generation) = at.params.get("generation") {
            if generation.is_empty() || !generation.bytes().all(|c| c.is_ascii_digit()) {
                return Err(FetchError::new(Class::Invalid, "option generation is no number"));
            }
            query.push(("generation", generation));
        }
        let path = ["storage", "v1", "b", bucket, "o", object];
        self.google.get(&STORAGE, path, &query).await.map_err(|error| failure(&error, &at.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::Mock;

    #[tokio::test]
    async fn objects_are_read_from_a_mock_and_fail_by_themselves() {
        let mock = Mock::start(|request| match request.path.strip_prefix("/storage/v1/b/").unwrap() {
            "bucket/o/a%2Fb%3Fc.yaml?alt=media" => (200, "a: b".into()),
            "bucket/o/a?alt=media&generation=7" => (200, "seven".into()),
            "shut/o/a?alt=media" => (403, "STRONGROOM-MARKER".into()),
            _ => (404, "STRONGROOM-MARKER".into()),
        })
        .await;
        let variables = [("STORAGE_EMULATOR_HOST", mock.url.as_str()), ("GOOGLE_OAUTH_ACCESS_TOKEN", "t")];
        let source = (SCHEME.open)(&Params::new(), &ambient(&variables, &[])).unwrap();
        let at = [
            locator("bucket/a/b?c.yaml", false, &[]),
            locator("bucket/a", false, &[("generation", "7")]),
            locator("shut/a", false, &[]),
            locator("bucket/none", false, &[]),
            locator("bucket/a", false, &[("generation", "x")]),
        ];
        assert_eq!(
            told(source.fetch(&Scope::default(), &at).await),
            [
                "a: b",
                "seven",
                "Denied: Google Cloud Storage says HTTP 403 for shut/a",
                "NotFound: Google Cloud Storage says HTTP 404 for bucket/none",
                "Invalid: option generation is no number",
            ]
        );
        for path in ["bucket", "bucket/", "/a", "bucket/../a"] {
            assert!(normalise(&Scope::default(), path, &Params::new()).is_err(), "{path}");
        }
    }
}
