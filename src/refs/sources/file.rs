//! `ref+file://path`: a file of the application's own repository, and nothing outside of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{self, BoxFuture, FutureExt};

use crate::confine;
use crate::fault::Class;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, Scheme, SchemeOption, Source, inside_repository,
};
use crate::scope::Scope;
use crate::secret::Secret;

/// A value file is not larger, so neither is what goes into it.
const MAX_BYTES: u64 = 16 << 20;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "file",
    doc: "a file of the application's own repository",
    examples: &[
        ("ref+file://conf/app.txt", "the text of a file, relative to the application's directory"),
        ("ref+file:///conf/app.yaml#/a/0", "an item of a list of a YAML file, from the repository's root"),
        ("ref+file://logo.png?encode=base64", "a file of any kind, in base64"),
    ],
    connection: &[],
    document: &[SchemeOption { name: "encode", doc: "`raw` (default) or `base64`; not with a fragment" }],
    fragment: Fragment::Asks,
    normalise: inside_repository,
    open: |_, _| Ok(Arc::new(Files)),
};

#[derive(Debug)]
struct Files;

impl Source for Files {
    fn fetch<'a>(
        &'a self,
        scope: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::ready(at.iter().map(|at| read(scope, at)).collect()).boxed()
    }
}

fn read(scope: &Scope, at: &Locator) -> Result<Document, FetchError> {
    let root = scope.repository.as_deref();
    let root = root.ok_or(FetchError::new(Class::Invalid, "the repository's root is not known"))?;
    let encoded = match at.params.get("encode").map(String::as_str) {
        None | Some("raw") => false,
        Some("base64") => !at.fragment,
        Some(_) => return Err(FetchError::new(Class::Invalid, "option encode is neither raw nor base64")),
    };
    let bytes = confine::read(&confine::resolve(root, root, &at.path)?, &at.path, MAX_BYTES)?;
    Ok(if encoded { Secret::new(STANDARD.encode(bytes.expose()).into_bytes()) } else { bytes })
}
