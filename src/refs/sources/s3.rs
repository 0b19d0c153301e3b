//! `ref+s3://bucket/key`: objects of Amazon S3.

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};

use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::aws;
use crate::refs::sources::objects::{At, Objects};
use crate::scope::Scope;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "s3",
    doc: "an object of Amazon S3",
    examples: &[
        ("ref+s3://bucket/team/app.txt", "the text of an object"),
        ("ref+s3://bucket/team/db.yaml#/password", "`password` of an object that holds JSON or YAML"),
        (
            "ref+s3://bucket/team/db.yaml?region=eu-west-1&version_id=3HL4kqtJlcpXroDTDmJ#/user",
            "of a version",
        ),
    ],
    connection: aws::CONNECTION,
    document: &[
        SchemeOption { name: "version", doc: "id of a version; the newest unless said" },
        SchemeOption { name: "version_id", doc: "the same" },
    ],
    fragment: Fragment::Walks,
    normalise,
    open: |params, ambient| Ok(Arc::new(S3(Objects::new(&ambient.aws, aws::connection(params))))),
};

fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    At::parse(path)?;
    without_dots(scope, path, params)
}

#[derive(Debug)]
struct S3(Objects);

impl Source for S3 {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::join_all(at.iter().map(|at| self.object(at))).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

impl S3 {
    async fn object(&self, at: &Locator) -> Result<Document, FetchError> {
        let version = at.params.get("version").or_else(|| at.params.get("version_id"));
        self.0.get(At::parse(&at.path)?, version.map(String::as_str)).await
    }
}
