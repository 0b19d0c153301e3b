//! `ref+envsubst://$NAME`: environment variables of Strongroom itself, as far as the operator lists them.
//!
//! `$NAME`, `${NAME}`, `${NAME-default}` (unset) and `${NAME:-default}` (unset or empty) are replaced, `$$` is `$`.
//! An unset variable without a default is an error, unlike in a shell and in vals. Other operators are refused.

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};

use crate::environment::Environment;
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Fragment, Locator, Scheme, Source, verbatim};
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "envsubst",
    doc: "environment variables that the operator lists in `STRONGROOM_ALLOW_ENV`",
    examples: &[
        ("ref+envsubst://$NAME", "the variable `NAME`; that it is not set is an error"),
        ("ref+envsubst://${NAME:-none}", "the variable, or `none` where it is unset or empty"),
        ("ref+envsubst://$NAME#/key", "`key` of the variable, which holds YAML or JSON"),
    ],
    connection: &[],
    document: &[],
    fragment: Fragment::Walks,
    normalise: verbatim,
    open: |_, ambient| {
        Ok(Arc::new(Envsubst { environment: ambient.environment.clone(), listed: ambient.envsubst.clone() }))
    },
};

#[derive(Debug)]
struct Envsubst {
    environment: Environment,
    listed: Option<Vec<String>>,
}

impl Source for Envsubst {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        future::ready(at.iter().map(|at| self.expand(&at.path)).collect()).boxed()
    }
}

impl Envsubst {
    fn expand(&self, template: &str) -> Result<Document, FetchError> {
        let mut expanded: Document = Secret::default();
        let mut rest = template.strip_suffix('/').unwrap_or(template).trim();
        while let Some((text, behind)) = rest.split_once('$') {
            expanded.expose_mut().extend_from_slice(text.as_bytes());
            rest = if let Some(behind) = behind.strip_prefix('$') {
                expanded.expose_mut().push(b'$');
                behind
            } else if let Some(braced) = behind.strip_prefix('{') {
                let (inside, behind) =
                    braced.split_once('}').ok_or_else(|| invalid("a ${ that no } follows"))?;
                expanded.expose_mut().extend_from_slice(self.braced(inside)?.as_bytes());
                behind
            } else {
                let (name, behind) = behind.split_at(name_length(behind));
                expanded.expose_mut().extend_from_slice(self.bare(name)?.as_bytes());
                behind
            };
        }
        expanded.expose_mut().extend_from_slice(rest.as_bytes());
        Ok(expanded)
    }

    fn bare(&self, name: &str) -> Result<&str, FetchError> {
        if name.is_empty() {
            return Ok("$");
        }
        self.variable(name)?.ok_or_else(|| FetchError::not_found(format!("variable {name} is not set")))
    }

    fn braced<'a>(&'a self, inside: &'a str) -> Result<&'a str, FetchError> {
        let (name, operator) = inside.split_at(name_length(inside));
        if name.is_empty() {
            return Err(invalid("a ${ without the name of a variable"));
        }
        if operator.is_empty() {
            return self.bare(name);
        }
        let value = self.variable(name)?;
        if let Some(default) = operator.strip_prefix(":-") {
            Ok(value.filter(|value| !value.is_empty()).unwrap_or(default))
        } else if let Some(default) = operator.strip_prefix('-') {
            Ok(value.unwrap_or(default))
        } else {
            Err(invalid("in ${…} only - and :- may follow the name of a variable"))
        }
    }

    fn variable(&self, name: &str) -> Result<Option<&str>, FetchError> {
        if self.listed.as_ref().is_some_and(|listed| !listed.iter().any(|allowed| allowed == name)) {
            return Err(FetchError::new(
                Class::Denied,
                format!(
                    "variable {name} is not listed\nhelp: the operator lists variables in STRONGROOM_ALLOW_ENV"
                ),
            ));
        }
        let Some(value) = self.environment.get_raw(name) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| invalid("the variable is not UTF-8"))
    }
}

fn name_length(text: &str) -> usize {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well {
        return 0;
    }
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

fn invalid(reason: &str) -> FetchError {
    FetchError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_in_a_shell() {
        let environment = [("A", "one"), ("A_B", "two"), ("EMPTY", ""), ("SECRET", "STRONGROOM-MARKER")];
        let listed = ["A", "A_B", "EMPTY", "UNSET"].map(str::to_owned).to_vec();
        let source = Envsubst { environment: environment.into_iter().collect(), listed: Some(listed) };
        for (template, expected) in [
            ("$A", Ok("one")),
            ("$A/", Ok("one")),
            ("x$A-$A_B.y", Ok("xone-two.y")),
            ("${A}b", Ok("oneb")),
            ("$$A", Ok("$A")),
            ("100$", Ok("100$")),
            ("$1", Ok("$1")),
            ("plain", Ok("plain")),
            ("$EMPTY", Ok("")),
            ("${UNSET-x}", Ok("x")),
            ("${EMPTY-x}", Ok("")),
            ("${EMPTY:-x}", Ok("x")),
            ("${UNSET:-}", Ok("")),
            ("$UNSET", Err(Class::NotFound)),
            ("${UNSET}", Err(Class::NotFound)),
            ("$SECRET", Err(Class::Denied)),
            ("${SECRET:-x}", Err(Class::Denied)),
            ("${A", Err(Class::Invalid)),
            ("${}", Err(Class::Invalid)),
            ("${A:=x}", Err(Class::Invalid)),
        ] {
            let expanded =
                source.expand(template).map(|text| String::from_utf8(text.expose().clone()).unwrap());
            let expected = expected.map(str::to_owned);
            assert_eq!(expanded.map_err(|error| error.class), expected, "{template}");
        }
    }
}
