//! Nothing unfinished leaves: the check of what helm printed.
//!
//! A reference that nobody resolved, a value that is still encrypted, SOPS metadata, a document that is no object,
//! or no object at all is an error that names every object and path. Objects that a controller in the cluster
//! decrypts are let through, and so are the references that a value wrote as literal text. The text itself is not changed.

use std::fmt::{self, Write as _};

use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::document::{Kind, Node, ParseError};
use crate::fault::{Class, Fault};
use crate::redact::{Redactor, base64_cores};
use crate::refs::grammar::spelled_in;
use crate::render::output::{Manifest, Object, decoded, manifests, objects};
use crate::secret::Secret;

/// What every reference holds.
const REFERENCE: &str = "ref+";
/// How every value that SOPS encrypted begins.
const ENCRYPTED: &str = "ENC[AES256_GCM,";
/// More findings are counted and not listed.
const LISTED: usize = 20;

/// What is let through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow<'a> {
    /// No object at all: `allowEmpty`.
    pub empty: bool,
    /// References and encrypted values: `allowUnresolved`.
    pub unresolved: bool,
    /// References that are meant to be text, sorted.
    pub literals: &'a [Secret<String>],
}

impl Allow<'_> {
    fn unfinished(&self, text: &str) -> Option<What> {
        if text.contains(ENCRYPTED) {
            Some(What::Encrypted)
        } else if spelled_in(text).any(|reference| !is_literal(self.literals, reference)) {
            Some(What::Reference)
        } else {
            None
        }
    }
}

/// Whether `reference` is one of `literals`, which are sorted.
pub(super) fn is_literal(literals: &[Secret<String>], reference: &str) -> bool {
    literals.binary_search_by(|literal| literal.expose().as_str().cmp(reference)).is_ok()
}

/// Output that must not be deployed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No object.
    #[error(
        "nothing was rendered, and deploying nothing can delete everything\n\
         help: set allowEmpty if this application may be empty"
    )]
    Empty,
    /// A document that is no object.
    #[error("{place} has no {field}, so it is no Kubernetes object")]
    NotAnObject {
        /// Which document.
        place: String,
        /// `kind` or `apiVersion`.
        field: &'static str,
    },
    /// Not YAML.
    #[error("{place} cannot be read")]
    Syntax {
        /// Which document.
        place: String,
        /// Place and reason.
        #[source]
        source: ParseError,
    },
    /// References or encrypted values are left.
    #[error("{0}")]
    Unfinished(Findings),
}

impl Fault for CheckError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl CheckError {
    /// Without what `redactor` knows: names of objects and keys can hold what was opened.
    #[must_use]
    pub fn redacted(self, redactor: &Redactor) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::NotAnObject { place, field } => Self::NotAnObject { place: redactor.redact(&place), field },
            Self::Syntax { place, source } => Self::Syntax { place: redactor.redact(&place), source },
            Self::Unfinished(Findings(findings)) => {
                let redacted = |Finding { object, path, what }| Finding {
                    object: redactor.redact(&object),
                    path: redactor.redact(&path),
                    what,
                };
                Self::Unfinished(Findings(findings.into_iter().map(redacted).collect()))
            }
        }
    }
}

/// What is unfinished, in the order of the output.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

#[derive(Debug)]
struct Finding {
    object: String,
    path: String,
    what: What,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Encrypted,
    Metadata,
    Reference,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests are unfinished:")?;
        for Finding { object, path, what } in self.0.iter().take(LISTED) {
            let what = match what {
                What::Encrypted => "is still encrypted",
                What::Metadata => "is metadata of SOPS",
                What::Reference => "holds an unresolved reference",
            };
            write!(f, "\n  {object}: {path} {what}")?;
        }
        if self.0.len() > LISTED {
            write!(f, "\n  and {} more", self.0.len() - LISTED)?;
        }
        f.write_str("\nhelp: set allowUnresolved if this is meant to reach the cluster as it is")
    }
}

/// Checks a stream of manifests.
pub fn check(stream: &str, allow: Allow<'_>) -> Result<(), CheckError> {
    let signs = Signs::new();
    let mut count = 0;
    let mut findings = Findings::default();
    for (number, manifest) in manifests(stream).enumerate() {
        let is_object = manifest.field("kind").is_some() && manifest.field("apiVersion").is_some();
        if is_object && (allow.unresolved || !signs.stand_in(manifest.text)) {
            count += 1;
            continue;
        }
        let place = || place(number, &manifest);
        let parsed = manifest.parse().map_err(|source| CheckError::Syntax { place: place(), source })?;
        for object in parsed.documents.iter().flat_map(objects) {
            count += 1;
            let missing = match (object.kind(), object.api_version()) {
                (None, _) => Some("kind"),
                (_, None) => Some("apiVersion"),
                _ => None,
            };
            if let Some(field) = missing {
                return Err(CheckError::NotAnObject { place: place(), field });
            }
            if !allow.unresolved {
                findings.search(object, allow);
            }
        }
    }
    if !findings.0.is_empty() {
        return Err(CheckError::Unfinished(findings));
    }
    if count == 0 && !allow.empty { Err(CheckError::Empty) } else { Ok(()) }
}

fn place(number: usize, manifest: &Manifest<'_>) -> String {
    match manifest.source() {
        Some(source) => format!("document {number} ({source})"),
        None => format!("document {number}"),
    }
}

/// Cheap signs that a document may hold something unfinished; most documents show none and are not parsed.
pub(super) struct Signs(Vec<String>);

impl Signs {
    pub(super) fn new() -> Self {
        let mut signs = vec![REFERENCE.to_owned(), ENCRYPTED.to_owned(), "sops".to_owned()];
        for sign in [REFERENCE, ENCRYPTED] {
            signs.extend(base64_cores(&STANDARD_NO_PAD, sign.as_bytes()));
        }
        Self(signs)
    }

    pub(super) fn stand_in(&self, text: &str) -> bool {
        self.0.iter().any(|sign| text.contains(sign.as_str()))
            // Escapes and folded lines can hide a sign from a search in the text.
            || text.contains("\\x") || text.contains("\\u") || text.contains("\\U") || text.contains("\\\n")
    }
}

impl Findings {
    fn search(&mut self, object: Object<'_>, allow: Allow<'_>) {
        if object.is_encrypted_for_a_controller() {
            return;
        }
        let mut search =
            Search { object, allow, name: None, path: String::new(), decode: false, findings: self };
        search.entries(object.node.entries(), true);
    }
}

/// A walk through one object.
struct Search<'a> {
    object: Object<'a>,
    allow: Allow<'a>,
    name: Option<String>,
    path: String,
    /// Whether values stand in base64 here.
    decode: bool,
    findings: &'a mut Findings,
}

impl Search<'_> {
    fn entries(&mut self, entries: &[(Node, Node)], top: bool) {
        for (key, value) in entries {
            let length = self.path.len();
            let name = key.text().unwrap_or("?");
            push_key(&mut self.path, name);
            if top {
                self.decode = name == "data" && self.object.kind() == Some("Secret");
                if name == "sops" && matches!(value.kind, Kind::Mapping(_)) {
                    self.found(What::Metadata);
                }
            }
            if let Some(what) = key.text().and_then(|key| self.allow.unfinished(key)) {
                self.found(what);
            }
            self.node(value);
            self.path.truncate(length);
        }
    }

    fn node(&mut self, node: &Node) {
        match &node.kind {
            Kind::Mapping(entries) => self.entries(entries, false),
            Kind::Sequence(items) => {
                let length = self.path.len();
                for (index, item) in items.iter().enumerate() {
                    let _ = write!(self.path, "[{index}]");
                    self.node(item);
                    self.path.truncate(length);
                }
            }
            Kind::Scalar { value, .. } => {
                let decoded = if self.decode { decoded(value.expose()) } else { None };
                let hidden = || decoded.as_ref().and_then(|text| self.allow.unfinished(text.expose()));
                if let Some(what) = self.allow.unfinished(value.expose()).or_else(hidden) {
                    self.found(what);
                }
            }
            Kind::Alias(_) => {}
        }
    }

    fn found(&mut self, what: What) {
        let object = self.name.get_or_insert_with(|| self.object.name()).clone();
        self.findings.0.push(Finding { object, path: self.path.clone(), what });
    }
}

/// Puts one more key behind a path: `data["a.b"]`.
pub(super) fn push_key(path: &mut String, key: &str) {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && !key.is_empty() {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        let _ = write!(path, "[{key:?}]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\n";

    fn checked(stream: &str) -> Result<(), String> {
        check(stream, Allow::default()).map_err(|error| crate::fault::report(&error))
    }

    /// The findings in one document of this kind with these further lines.
    fn found(kind: &str, lines: &str) -> String {
        let stream = format!("---\n# Source: x/y.yaml\n{}{lines}\n", HEAD.replace("ConfigMap", kind));
        let Err(report) = checked(&stream) else { return String::new() };
        let lines = report.lines().filter_map(|line| line.strip_prefix("  "));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn finished_manifests_pass() {
        for stream in [
            format!(
                "---\n# Source: a\n{HEAD}---\n# nothing\n---\n{HEAD}data: {{a: 'ref + encoded', b: ref+}}\n"
            ),
            "{\"apiVersion\": \"v1\", \"kind\": \"A\"}".to_owned(),
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: A}]".to_owned(),
            format!("{HEAD}# ref+echo://only/a/comment\n"),
            format!("{HEAD}data: {{sops: text}}\n"),
        ] {
            assert_eq!(checked(&stream), Ok(()), "{stream}");
        }
    }

    #[test]
    fn unfinished_values_are_named_by_object_and_path() {
        let reference = "holds an unresolved reference";
        for (kind, lines, expected) in [
            ("ConfigMap", "data: {a: ref+awssecrets://b/c}", format!("ConfigMap b/a: data.a {reference}")),
            (
                "ConfigMap",
                "data:\n  a.b: |\n    x\n    y: ref+vault://c#/d\n",
                format!("ConfigMap b/a: data[\"a.b\"] {reference}"),
            ),
            (
                "Pod",
                "spec: {c: [{e: [1, {v: 'secretref+ssm://x'}]}]}",
                format!("Pod b/a: spec.c[0].e[1].v {reference}"),
            ),
            ("Secret", "data: {a: cmVmK2VjaG86Ly94}", format!("Secret b/a: data.a {reference}")),
            ("Secret", "data: {a: YTpyZWYrZWNobzovL3g=}", format!("Secret b/a: data.a {reference}")),
            (
                "Secret",
                "stringData: {a: \"ref\\u002becho://x\"}",
                format!("Secret b/a: stringData.a {reference}"),
            ),
            (
                "Secret",
                "stringData: {\"ref+echo://x\": a}",
                format!("Secret b/a: stringData[\"ref+echo://x\"] {reference}"),
            ),
            (
                "Secret",
                "data: {a: 'ENC[AES256_GCM,data:x]'}",
                "Secret b/a: data.a is still encrypted".to_owned(),
            ),
            (
                "Secret",
                "data: {a: RU5DW0FFUzI1Nl9HQ00sZGF0YTp4XQ==}",
                "Secret b/a: data.a is still encrypted".to_owned(),
            ),
            (
                "Secret",
                "a: ref+echo://x\nsops: {mac: 'ENC[AES256_GCM,x]'}",
                format!(
                    "Secret b/a: a {reference}; Secret b/a: sops is metadata of SOPS; Secret b/a: sops.mac is still encrypted"
                ),
            ),
            (
                "List",
                "items: [{kind: A, apiVersion: v1, metadata: {name: c}, x: 'ref+echo://y'}]",
                format!("A c: x {reference}"),
            ),
        ] {
            assert_eq!(found(kind, lines), expected, "{lines}");
        }
    }

    #[test]
    fn objects_of_controllers_that_decrypt_pass() {
        for kind in ["SopsSecret", "SealedSecret", "GlobalSopsSecret"] {
            assert_eq!(found(kind, "spec: {a: 'ENC[AES256_GCM,x]'}\nsops: {mac: x}"), "");
        }
    }

    #[test]
    fn many_findings_are_counted() {
        let lines: Vec<_> = (0..30).map(|i| format!("a{i}: ref+echo://x")).collect();
        let findings = found("ConfigMap", &lines.join("\n"));
        assert!(findings.contains("a19 holds") && !findings.contains("a20 holds"), "{findings}");
        assert!(findings.ends_with("; and 10 more"), "{findings}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (stream, expected) in [
            (
                "",
                "nothing was rendered, and deploying nothing can delete everything\nhelp: set allowEmpty if this application may be empty",
            ),
            (
                "---\n# Source: a\n\n---\n",
                "nothing was rendered, and deploying nothing can delete everything\nhelp: set allowEmpty if this application may be empty",
            ),
            (
                "---\n# Source: a/b.yaml\nfoo: bar\n",
                "document 1 (a/b.yaml) has no kind, so it is no Kubernetes object",
            ),
            ("kind: A\n", "document 0 has no apiVersion, so it is no Kubernetes object"),
            ("just text\n", "document 0 has no kind, so it is no Kubernetes object"),
            ("kind:\napiVersion: v1\n", "document 0 has no kind, so it is no Kubernetes object"),
        ] {
            assert_eq!(checked(stream), Err(expected.to_owned()), "{stream}");
        }
        let report = checked("kind: [\n").unwrap_err();
        assert!(report.starts_with("document 0 cannot be read: "), "{report}");
    }

    #[test]
    fn the_operator_can_allow_both() {
        let allow = Allow { empty: true, unresolved: true, ..Allow::default() };
        assert!(check("", allow).is_ok());
        assert!(check(&format!("{HEAD}data: {{a: ref+echo://x}}"), allow).is_ok());
        assert!(check("", Allow { empty: false, ..allow }).is_err());
    }

    #[test]
    fn a_reference_that_was_written_as_text_passes_and_no_other() {
        let literals = [Secret::new("ref+echo://x".to_owned())];
        let allow = Allow { literals: &literals, ..Allow::default() };
        for (value, passes) in [
            ("see ref+echo://x for more", true),
            ("ref+echo://x/y", false),
            ("ref+echo://x ref+echo://z", false),
            ("ref+Echo://x", false),
        ] {
            assert_eq!(check(&format!("{HEAD}data: {{a: {value}}}"), allow).is_ok(), passes, "{value}");
        }
        let encoded = format!("apiVersion: v1\nkind: Secret\ndata: {{a: {}}}", "cmVmK2VjaG86Ly94");
        assert!(check(&encoded, allow).is_ok());
    }
}
