//! Where opened values stand outside of Secrets: whoever may read such an object reads them too.
//!
//! Names of objects and paths are told, never a value. What is too short or too common to be told from other text is not
//! found; see [`crate::redact`].

use std::fmt::Write as _;

use serde::Serialize;

use crate::document::{Kind, Node};
use crate::redact::Redactor;
use crate::render::check::push_key;
use crate::render::output::{Object, manifests, objects};

/// One place that holds something opened.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Leak {
    /// `ConfigMap apps/hello`.
    pub object: String,
    /// `data.password`.
    pub path: String,
}

/// The places of `stream`, manifests as helm prints them, in their order. `opened` knows what was opened for them.
pub fn leaks(stream: &str, opened: &Redactor) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for manifest in manifests(stream).filter(|manifest| opened.occurs_in(manifest.text)) {
        let Ok(parsed) = manifest.parse() else {
            let object = opened.redact(manifest.source().unwrap_or("a document"));
            leaks.push(Leak { object, path: "it cannot be read as YAML".to_owned() });
            continue;
        };
        for object in parsed.documents.iter().flat_map(objects) {
            let mut search = Search { object, opened, path: String::new(), leaks: &mut leaks };
            search.object();
        }
    }
    leaks
}

/// A walk through one object.
struct Search<'a> {
    object: Object<'a>,
    opened: &'a Redactor,
    path: String,
    leaks: &'a mut Vec<Leak>,
}

impl Search<'_> {
    fn object(&mut self) {
        for (key, value) in self.object.node.entries() {
            if !(self.object.is_secret() && matches!(key.text(), Some("data" | "stringData"))) {
                self.entry(key, value);
            }
        }
    }

    fn entry(&mut self, key: &Node, value: &Node) {
        let length = self.path.len();
        push_key(&mut self.path, key.text().unwrap_or("?"));
        self.node(key);
        self.node(value);
        self.path.truncate(length);
    }

    fn node(&mut self, node: &Node) {
        match &node.kind {
            Kind::Mapping(entries) => entries.iter().for_each(|(key, value)| self.entry(key, value)),
            Kind::Sequence(items) => {
                let length = self.path.len();
                for (index, item) in items.iter().enumerate() {
                    let _ = write!(self.path, "[{index}]");
                    self.node(item);
                    self.path.truncate(length);
                }
            }
            Kind::Scalar { value, .. } if self.opened.occurs_in(value.expose()) => {
                // Names and keys can hold what was opened themselves.
                let object = self.opened.redact(&self.object.name());
                self.leaks.push(Leak { object, path: self.opened.redact(&self.path) });
            }
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn found(stream: &str) -> Vec<String> {
        let opened = Redactor::new(&[Secret::new("STRONGROOM-MARKER".to_owned())]);
        leaks(stream, &opened).into_iter().map(|leak| format!("{}: {}", leak.object, leak.path)).collect()
    }

    #[test]
    fn opened_values_outside_of_secrets_are_named_by_object_and_path() {
        let base64 = "U1RST05HUk9PTS1NQVJLRVI=";
        for (object, expected) in [
            ("kind: Secret\ndata: {a: U1RST05HUk9PTS1NQVJLRVI=}\nstringData: {b: STRONGROOM-MARKER}", vec![]),
            ("kind: ConfigMap\ndata: {a: nothing}", vec![]),
            ("kind: ConfigMap\n# STRONGROOM-MARKER\ndata: {a: nothing}", vec![]),
            ("kind: ConfigMap\ndata: {a.b: 'x=STRONGROOM-MARKER'}", vec!["ConfigMap a: data[\"a.b\"]"]),
            (&format!("kind: ConfigMap\ndata: {{a: {base64}}}"), vec!["ConfigMap a: data.a"]),
            ("kind: Secret\ntype: STRONGROOM-MARKER", vec!["Secret a: type"]),
            (
                "kind: Pod\nspec: {containers: [{args: [a, STRONGROOM-MARKER], env: [{value: STRONGROOM-MARKER}]}]}",
                vec!["Pod a: spec.containers[0].args[1]", "Pod a: spec.containers[0].env[0].value"],
            ),
            ("kind: ConfigMap\ndata: {STRONGROOM-MARKER: a}", vec!["ConfigMap a: data.<redacted>"]),
        ] {
            let stream = format!("---\napiVersion: v1\nmetadata: {{name: a}}\n{object}\n");
            assert_eq!(found(&stream), expected, "{object}");
        }
    }

    #[test]
    fn a_document_that_cannot_be_read_is_named() {
        assert_eq!(
            found("---\n# Source: a/b.yaml\na: [STRONGROOM-MARKER\n"),
            ["a/b.yaml: it cannot be read as YAML"]
        );
    }

    #[test]
    fn the_name_of_an_object_is_not_told_where_it_was_opened() {
        let stream = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: STRONGROOM-MARKER}\n";
        assert_eq!(found(stream), ["ConfigMap <redacted>: metadata.name"]);
    }
}
