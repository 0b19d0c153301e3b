//! References that templates built, resolved in helm's output: `resolveManifests`.
//!
//! Strings are resolved where they stand, and in `data` of a Secret behind their base64 too. What Kubernetes takes as
//! text only (`data` of Secrets and of `ConfigMap`s, `stringData`, `metadata`) becomes text; elsewhere a reference with a
//! fragment has the type of its value. Keys are left to the check of the output, and so is what cannot be parsed.
//!
//! A template has seen every value of this render, so a reference can be made of them. One that holds an opened value
//! is refused before anything is asked, as its path would show that value to a backend and to logs; so is one that
//! stands in an opened value, or holds one that does, as that would be the word of a secret store and not of the
//! chart. A value in another shape (hashed, reversed, shorter than three characters) is not recognised: a chart that
//! hides one from its own operator is trusted with it. What a reference resolves to is never looked at again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::document::edit::{EditError, Edits, push, quote};
use crate::document::scalar::{self, Scalar};
use crate::document::value::Value;
use crate::document::{Kind, Node, Stream};
use crate::fault::{Class, Fault};
use crate::redact::Redactor;
use crate::refs::grammar::{Expression, spelled_in};
use crate::refs::resolve::Resolver;
use crate::refs::scan::{Step, spell};
use crate::render::check::{Signs, is_literal};
use crate::render::output::{Manifest, Object, manifests, objects};
use crate::render::values::{ReferencesError, Resolved, all_of};
use crate::scope::Scope;
use crate::secret::Secret;

/// A reference in the output that must not be resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the reference holds a value that was opened in this render, or comes from one\n\
     help: build references of values that are not secret"
)]
struct Tainted;

impl Fault for Tainted {
    fn class(&self) -> Class {
        Class::Denied
    }
}

/// `stream`, manifests as helm prints them, with its references resolved, and what came of them. `before` is what came
/// of the references of values.
pub async fn resolve(
    resolver: &Resolver,
    stream: &Secret<String>,
    before: &Resolved,
    scope: &Scope,
) -> Result<(Secret<String>, Resolved), ReferencesError> {
    let signs = Signs::new();
    let parsed = |manifest: Manifest<'_>| signs.stand_in(manifest.text).then(|| manifest.parse().ok())?;
    let manifests: Vec<_> = manifests(stream.expose()).map(|manifest| (manifest, parsed(manifest))).collect();
    let known = Known::of(before);
    let found: Vec<_> = manifests.iter().map(|(_, parsed)| known.scan(parsed.as_ref())).collect();
    refuse(&found)?;
    let expressions: Vec<_> = found.iter().flatten().map(|found| &found.expression).collect();
    let results = resolver.resolve(scope, &expressions).await;
    let values = all_of(results, found.iter().flatten().map(|found| found.place.clone()))?;
    let came = Resolved::of(&values, expressions.into_iter());
    let edited = edit(&manifests, &found, values).map_err(|error| ReferencesError::of("manifests", error))?;
    Ok((edited, came))
}

fn refuse(found: &[Vec<Found<'_>>]) -> Result<(), ReferencesError> {
    let tainted = found.iter().flatten().filter(|found| found.tainted);
    let errors: Vec<_> = tainted.map(|found| (found.place.clone(), Tainted)).collect();
    if errors.is_empty() { Ok(()) } else { Err(ReferencesError::all(errors)) }
}

/// The stream again, with each of `values` in the place of what was found.
fn edit(
    manifests: &[(Manifest<'_>, Option<Stream>)],
    found: &[Vec<Found<'_>>],
    values: Vec<Value>,
) -> Result<Secret<String>, EditError> {
    let (mut stream, mut values) = (Secret::<String>::default(), values.into_iter());
    for (number, ((manifest, _), found)) in manifests.iter().zip(found).enumerate() {
        let mut edits = Edits::default();
        for (found, value) in found.iter().zip(&mut values) {
            edits.replace(found.node, found.form.write(&value));
        }
        push(&mut stream, if number > 0 { "---" } else { "" });
        push(&mut stream, edits.apply(manifest.text)?.expose());
    }
    Ok(stream)
}

/// A string that holds references.
struct Found<'a> {
    node: &'a Node,
    form: Form,
    expression: Expression,
    /// Object and path, as errors call it.
    place: String,
    tainted: bool,
}

/// How a value stands in the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// With its own type.
    Typed,
    Text,
    Base64,
}

impl Form {
    fn write(self, value: &Value) -> Secret<String> {
        match self {
            Self::Typed => value.to_flow(),
            Self::Text => quote(value.to_text().expose()),
            Self::Base64 => quote(Secret::new(STANDARD.encode(value.to_text().expose())).expose()),
        }
    }

    /// Below the key `name` at the top of `object`.
    fn below(object: Object<'_>, name: &str) -> Self {
        match (name, object.kind()) {
            ("data", Some("Secret")) => Self::Base64,
            ("data", Some("ConfigMap")) | ("stringData", Some("Secret")) | ("metadata", _) => Self::Text,
            _ => Self::Typed,
        }
    }
}

/// What the render knows before its output is looked at.
struct Known<'a> {
    opened: Redactor,
    /// References that stand in opened values.
    held: Vec<&'a str>,
    literals: &'a [Secret<String>],
}

impl<'a> Known<'a> {
    fn of(before: &'a Resolved) -> Self {
        // A literal that a value wrote is no secret, however it was opened.
        let opened = || before.opened.iter().filter(|value| !is_literal(&before.literals, value.expose()));
        Self {
            opened: Redactor::new(opened()),
            held: opened().flat_map(|value| spelled_in(value.expose())).collect(),
            literals: &before.literals,
        }
    }

    fn taints(&self, reference: &str) -> bool {
        let decoded = Secret::new(percent_decode_str(reference).decode_utf8_lossy().into_owned());
        self.opened.occurs_in(reference)
            || self.opened.occurs_in(decoded.expose())
            || self.held.iter().any(|held| held.contains(reference) || reference.contains(held))
    }

    fn scan<'n>(&self, parsed: Option<&'n Stream>) -> Vec<Found<'n>> {
        let roots = parsed.map(|stream| stream.documents.as_slice()).unwrap_or_default();
        let objects = roots.iter().flat_map(objects);
        let objects = objects.filter(|object| !object.is_encrypted_for_a_controller());
        objects.flat_map(|object| Scan::of(self, object)).collect()
    }
}

/// A walk through one object.
struct Scan<'k, 'n> {
    known: &'k Known<'k>,
    object: Object<'n>,
    path: Vec<Step>,
    found: Vec<Found<'n>>,
}

impl<'k, 'n> Scan<'k, 'n> {
    fn of(known: &'k Known<'k>, object: Object<'n>) -> Vec<Found<'n>> {
        let mut scan = Self { known, object, path: Vec::new(), found: Vec::new() };
        if object.node.entries().is_empty() {
            scan.node(object.node, Form::Typed);
        }
        for (key, value) in object.node.entries() {
            let name = key.text().unwrap_or_default();
            scan.step(Step::Key(name.to_owned()), value, Form::below(object, name));
        }
        scan.found
    }

    fn node(&mut self, node: &'n Node, form: Form) {
        match &node.kind {
            Kind::Mapping(entries) => {
                for (key, value) in entries {
                    self.step(Step::Key(key.text().unwrap_or_default().to_owned()), value, form);
                }
            }
            Kind::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.step(Step::Index(index), item, form);
                }
            }
            Kind::Scalar { .. } if scalar::of(node) == Some(Scalar::Str) => self.string(node, form),
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn step(&mut self, step: Step, node: &'n Node, form: Form) {
        self.path.push(step);
        self.node(node, form);
        self.path.pop();
    }

    fn string(&mut self, node: &'n Node, form: Form) {
        let Some(text) = node.text() else { return };
        // A whole reference can stand in `data` as it is too, where it was to be encoded by nobody.
        match (form, decoded(text)) {
            (Form::Base64, Some(decoded)) => self.text(node, decoded.expose(), form),
            _ => self.text(node, text, form),
        }
    }

    fn text(&mut self, node: &'n Node, text: &str, form: Form) {
        let known = self.known;
        let is_text = |spelled: &str| is_literal(known.literals, spelled);
        let Some(expression) = Expression::parse_except(text, is_text) else { return };
        let mut references = spelled_in(text).filter(|spelled| !is_text(spelled));
        let tainted = references.any(|spelled| known.taints(spelled));
        let place = format!("{} of {}", spell(&self.path), self.object.name());
        self.found.push(Found { node, form, expression, place: known.opened.redact(&place), tainted });
    }
}

/// The text behind base64; `None` where it is none, or binary.
fn decoded(text: &str) -> Option<Secret<String>> {
    let line: Secret<String> = Secret::new(text.split_whitespace().collect());
    String::from_utf8(STANDARD.decode(line.expose()).ok()?).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::report;
    use crate::policy::AllowList;
    use crate::refs::ambient::Ambient;
    use crate::sops::open::OpenOptions;

    fn ambient() -> Ambient {
        Ambient {
            environment: [("PLAIN", "ref+echo://again"), ("N", "5432")].into_iter().collect(),
            addresses: Vec::new(),
            aws: Arc::new(crate::aws::Aws::new()),
            azure: Arc::default(),
            google: Arc::default(),
            kubernetes: Arc::default(),
            vault: Arc::default(),
            keyring: Arc::default(),
            sops: OpenOptions::default(),
            envsubst: None,
        }
    }

    fn resolved(stream: &str, before: &Resolved, policy: AllowList) -> Result<String, (Class, String)> {
        let resolver = Resolver::new(ambient(), Arc::new(policy));
        let stream = Secret::new(stream.to_owned());
        let (scope, runtime) = (Scope::default(), tokio::runtime::Builder::new_current_thread().build());
        let outcome = runtime.unwrap().block_on(resolve(&resolver, &stream, before, &scope));
        outcome.map(|(stream, _)| stream.expose().clone()).map_err(|error| (error.class(), report(&error)))
    }

    fn before(opened: &[&str], literals: &[&str]) -> Resolved {
        let secrets = |texts: &[&str]| texts.iter().map(|text| Secret::new((*text).to_owned())).collect();
        Resolved { opened: secrets(opened), literals: secrets(literals) }
    }

    #[test]
    fn references_resolve_where_they_stand_and_nothing_else_changes() {
        let stream = format!(
            "---\n# Source: a/b.yaml\napiVersion: v1\nkind: Secret\nmetadata:\n  name: a # ref+echo://comment\ndata:\n  \
             whole: {}\n  inside: {}\n  kept: b3RoZXI=\nstringData: {{n: 'ref+echo://k/7#/k', b: no}}\n---\nkind: A\n\
             apiVersion: v1\nspec: {{n: 'ref+envsubst://$N', typed: 'ref+echo://k/v#/k', on: yes, k: ref++echo://x}}\n",
            STANDARD.encode("ref+echo://foo/bar"),
            STANDARD.encode("user:ref+echo://foo+@host\n"),
        );
        let expected = stream
            .replace(&STANDARD.encode("ref+echo://foo/bar"), &format!("\"{}\"", STANDARD.encode("foo/bar")))
            .replace(
                &STANDARD.encode("user:ref+echo://foo+@host\n"),
                &format!("\"{}\"", STANDARD.encode("user:foo@host\n")),
            )
            .replace("'ref+echo://k/7#/k'", "\"7\"")
            .replace("'ref+envsubst://$N'", "\"5432\"")
            .replace("'ref+echo://k/v#/k'", "\"v\"")
            .replace("ref++echo://x", "\"ref+echo://x\"");
        assert_eq!(resolved(&stream, &Resolved::default(), AllowList::everything()), Ok(expected));
    }

    #[test]
    fn what_a_reference_resolves_to_is_not_resolved_again() {
        let stream = "kind: A\napiVersion: v1\na: ref+envsubst://$PLAIN\n";
        let once = "kind: A\napiVersion: v1\na: \"ref+echo://again\"\n";
        assert_eq!(resolved(stream, &Resolved::default(), AllowList::everything()), Ok(once.to_owned()));
    }

    #[test]
    fn references_made_of_opened_values_are_refused_before_anything_is_asked() {
        let secret = "STRONGROOM-MARKER";
        let fetched = "see ref+awssecrets://admin/root now";
        let known = before(&[secret, fetched], &[]);
        for value in [
            "ref+awsssm://x/STRONGROOM-MARKER",
            "ref+awsssm://x/%53TRONGROOM-MARKER?region=eu-west-1",
            "ref+echo://U1RST05HUk9PTS1NQVJLRVI=",
            "ref+echo://a/ref+echo://STRONGROOM-MARKER",
            "ref+vault://x#/STRONGROOM-MARKER",
            "ref+awssecrets://admin/root",
            "x ref+awssecrets://admin/root#/password",
            "ref+awssecrets://admin",
        ] {
            for (kind, text) in
                [("A", value.to_owned()), ("Secret", STANDARD.encode(format!("key: {value} x\n")))]
            {
                let stream = format!(
                    "kind: {kind}\napiVersion: v1\nmetadata: {{name: n-{secret}}}\ndata: {{a: '{text}'}}\n"
                );
                let (class, message) = resolved(&stream, &known, AllowList::everything()).unwrap_err();
                assert_eq!(class, Class::Denied, "{value}");
                assert!(
                    message
                        .starts_with(&format!("resolve data.a of {kind} n-<redacted>: the reference holds"))
                );
                assert!(!message.contains("MARKER") && !message.contains("root"), "{message}");
            }
        }
    }

    #[test]
    fn literals_stay_beside_references() {
        let known = before(&["ref+echo://lit"], &["ref+echo://lit"]);
        let stream = "kind: A\napiVersion: v1\na: ref+echo://lit ref+echo://real\nb: ref+echo://lit\n";
        let expected = "kind: A\napiVersion: v1\na: \"ref+echo://lit real\"\nb: ref+echo://lit\n";
        assert_eq!(resolved(stream, &known, AllowList::everything()), Ok(expected.to_owned()));
    }

    #[test]
    fn the_policy_is_asked_and_every_failure_is_told_with_its_place() {
        let stream = "kind: A\napiVersion: v1\nmetadata: {name: n, namespace: ns}\nx: [{y: 'ref+vault://a/b'}]\n\
                      z: ref+nosuch://a\n";
        let (class, message) = resolved(stream, &Resolved::default(), AllowList::default()).unwrap_err();
        assert_eq!(class, Class::Denied);
        assert!(
            message.starts_with("resolve 2 references:\n  x[0].y of A ns/n: ref+vault://a/b: "),
            "{message}"
        );
        assert!(message.contains("\n  z of A ns/n: ref+nosuch://a: unknown scheme"), "{message}");
    }

    #[test]
    fn objects_of_controllers_that_decrypt_and_broken_documents_stay() {
        for stream in ["kind: SopsSecret\nspec: ref+echo://x\n", "kind: [\na: ref+echo://x\n"] {
            let outcome = resolved(stream, &Resolved::default(), AllowList::everything());
            assert_eq!(outcome, Ok(stream.to_owned()));
        }
    }
}
