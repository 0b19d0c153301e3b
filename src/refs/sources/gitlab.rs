//! `ref+gitlab://host/projects/id/variable`: CI/CD variables of GitLab, of projects and groups.
//!
//! The token goes only to hosts of the operator's list, over TLS that is verified; vals verifies it the other way
//! round, and takes an error page for an empty value.

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};
use serde::Deserialize;

use crate::fault::Class;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::http::{self, Credential, Servers, Text};
use crate::scope::Scope;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "gitlab",
    doc: "CI/CD variables of GitLab, with `GITLAB_TOKEN`, on hosts of `STRONGROOM_ALLOW_ADDRESSES`",
    examples: &[
        ("ref+gitlab://gitlab.example/projects/17/PASSWORD", "the variable `PASSWORD` of project 17"),
        ("ref+gitlab://gitlab.example/17/PASSWORD", "the same"),
        (
            "ref+gitlab://gitlab.example/groups/3/CONFIG#/db/user",
            "out of a variable of a group that holds YAML",
        ),
    ],
    connection: &[
        SchemeOption { name: "scheme", doc: "`http` or `https` (unless said)" },
        SchemeOption { name: "api_version", doc: "version of the API; `v4` unless said" },
        SchemeOption { name: "ssl_verify", doc: "`true`; TLS is always verified" },
    ],
    document: &[],
    fragment: Fragment::Walks,
    normalise,
    open,
};

/// `host/projects/id/variable`, also where vals takes `host/id/variable`.
fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path, params)?;
    let segments: Vec<_> = path.split('/').collect();
    let (host, kind, id, name) = match segments[..] {
        [host, id, name] => (host, "projects", id, name),
        [host, kind @ ("projects" | "groups"), id, name] => (host, kind, id, name),
        _ => return Err(malformed()),
    };
    if id.is_empty() || name.is_empty() {
        return Err(malformed());
    }
    Ok(format!("{}/{kind}/{id}/{name}", http::host(host)?))
}

fn malformed() -> FetchError {
    FetchError::new(Class::Invalid, "it must be host/projects/id/variable, or host/groups/id/variable")
}

fn open(params: &Params, ambient: &Ambient) -> Result<Arc<dyn Source>, OpenError> {
    let option = |name: &str, default: &str| params.get(name).map_or(default, String::as_str).to_owned();
    http::verified("ssl_verify", option("ssl_verify", "true") == "true")?;
    let token = Credential::of(&ambient.environment, "GITLAB_TOKEN", "private-token", "")?;
    Ok(Arc::new(GitLab {
        servers: Servers::new("GitLab", &ambient.addresses, Some(token)),
        scheme: option("scheme", "https"),
        api_version: option("api_version", "v4"),
    }))
}

#[derive(Debug)]
struct GitLab {
    servers: Servers,
    scheme: String,
    api_version: String,
}

impl Source for GitLab {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::join_all(at.iter().map(|at| self.variable(&at.path))).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

#[derive(Deserialize)]
struct Variable {
    value: Option<Text>,
}

impl GitLab {
    async fn variable(&self, path: &str) -> Result<Document, FetchError> {
        let segments: Vec<_> = path.split('/').collect();
        let [host, kind, id, name] = segments[..] else { return Err(malformed()) };
        let server = self.servers.at(&self.scheme, host)?;
        let url = server.url(["api", &self.api_version, kind, id, "variables", name], &[]);
        let variable: Variable = server.json(url, path).await?;
        let hidden = || FetchError::new(Class::Denied, format!("GitLab hides the value of {path}"));
        Ok(variable.value.ok_or_else(hidden)?.document())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_one_spelling() {
        for (path, expected) in [
            ("GitLab.example:443/17/A", Ok("gitlab.example/projects/17/A")),
            ("gitlab.example:8443/groups/3/A", Ok("gitlab.example:8443/groups/3/A")),
            ("gitlab.example/users/3/A", Err(Class::Invalid)),
            ("gitlab.example/projects/3/A/B", Err(Class::Invalid)),
            ("gitlab.example/projects//A", Err(Class::Invalid)),
            ("gitlab.example/../A", Err(Class::Invalid)),
            ("me@gitlab.example/17/A", Err(Class::Invalid)),
            ("17/A", Err(Class::Invalid)),
        ] {
            let normalised = normalise(&Scope::default(), path, &Params::new());
            assert_eq!(normalised.map_err(|error| error.class), expected.map(str::to_owned), "{path}");
        }
    }
}
