//! References that the product's resolver and the real vals are both asked for.

use serde_json::{Value as Json, json};
use strongroom::fault::{Fault, report};
use strongroom::refs::grammar::Expression;
use strongroom::refs::resolve::Resolver;
use strongroom::scope::Scope;

use super::MARKER;
use super::process::Run;
use super::tools::tool;

/// A reference, its value or how its failure begins, and what vals does: `None` is the same.
pub type Row = (&'static str, Result<Json, &'static str>, Option<&'static str>);

/// Asserts that each row is so, for the product and for `vals`.
pub async fn assert_rows(resolver: &Resolver, rows: Vec<Row>, vals: impl Fn(&str) -> Result<Json, String>) {
    let mut wrong = Vec::new();
    for (reference, expected, differs) in rows {
        let ours = resolve(resolver, reference).await;
        let right = match (&ours, &expected) {
            (Ok(ours), Ok(expected)) => ours == expected,
            (Err(ours), Err(expected)) => ours.starts_with(expected),
            _ => false,
        };
        if !right {
            wrong.push(format!("{reference}: {ours:?}, not {expected:?}"));
        }
        let theirs = vals(reference);
        let same = theirs.as_ref().ok() == expected.as_ref().ok();
        if same == differs.is_some() {
            wrong.push(format!("{reference}: {theirs:?} in vals"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The values as JSON, or the class and the report of the failure, in which there is no secret.
pub async fn resolve_all(resolver: &Resolver, references: &[&str]) -> Vec<Result<Json, String>> {
    let expressions: Vec<_> =
        references.iter().map(|reference| Expression::parse(reference).unwrap()).collect();
    let expressions: Vec<_> = expressions.iter().collect();
    let values = resolver.resolve(&Scope::default(), &expressions).await;
    let told = values.into_iter().map(|value| match value {
        Ok(value) => Ok(serde_json::from_str(value.to_flow().expose()).unwrap()),
        Err(errors) => {
            let said = format!("{}: {}", errors[0].class().label(), report(&errors[0].cause));
            assert!(!said.contains(MARKER), "{said}");
            Err(said)
        }
    });
    told.collect()
}

/// The same of one.
pub async fn resolve(resolver: &Resolver, reference: &str) -> Result<Json, String> {
    resolve_all(resolver, &[reference]).await.remove(0)
}

/// The value by vals with that environment, or what it says.
pub fn vals(reference: &str, environment: impl FnOnce(Run) -> Run) -> Result<Json, String> {
    let input = serde_json::to_string(&json!({ "x": reference })).unwrap();
    let run = Run::new(tool("vals")).args(["eval", "-o", "json", "-f", "-"]).stdin(input);
    let output = environment(run).output();
    if !output.status.success() {
        return Err(output.stderr);
    }
    serde_json::from_str::<Json>(&output.stdout)
        .map(|value| value["x"].clone())
        .map_err(|error| error.to_string())
}
