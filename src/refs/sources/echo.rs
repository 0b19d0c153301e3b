//! `ref+echo://a/b`: the path itself. For trying out references and for tests; it opens nothing.

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};

use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Fragment, Locator, Scheme, Source, verbatim};
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "echo",
    doc: "the path itself, to try things out",
    examples: &[
        ("ref+echo://hello/world", "the text `hello/world`"),
        ("ref+echo://hello/world#/hello", "the text `world`: the path as a map in a map"),
    ],
    connection: &[],
    document: &[],
    fragment: Fragment::Asks,
    normalise: verbatim,
    open: |_, _| Ok(Arc::new(Echo)),
};

#[derive(Debug)]
struct Echo;

impl Source for Echo {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::ready(at.iter().map(answer).collect()).boxed()
    }
}

fn answer(at: &Locator) -> Result<Document, FetchError> {
    if !at.fragment {
        return Ok(Secret::new(at.path.trim_end_matches('/').as_bytes().to_vec()));
    }
    let (keys, last) = at.path.rsplit_once('/').ok_or_else(|| {
        FetchError::new(Class::Invalid, "with a fragment the path has two or more components separated by /")
    })?;
    let wrap = |inner, key: &str| Value::Mapping(vec![(key.to_owned(), inner)]);
    let tree = keys.rsplit('/').fold(Value::from(last), wrap);
    Ok(Secret::new(tree.to_flow().expose().as_bytes().to_vec()))
}
