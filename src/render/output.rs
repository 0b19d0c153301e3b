//! What helm printed, taken apart into documents and objects.
//!
//! Only where it matters is a document parsed; text that nobody asks about is never re-printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::document::{self, Format, Kind, Node, ParseError, Stream};
use crate::secret::Secret;

/// One document of a stream of manifests.
#[derive(Clone, Copy)]
pub struct Manifest<'a> {
    /// Where `text` begins in the stream.
    pub at: usize,
    /// What stands behind the `---`, up to the next one.
    pub text: &'a str,
}

impl fmt::Debug for Manifest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({}..{})", self.at, self.at + self.text.len())
    }
}

/// The documents of `stream`, those without content included.
pub fn manifests(stream: &str) -> impl Iterator<Item = Manifest<'_>> {
    let mut at = 0;
    let mut rest = Some(stream);
    std::iter::from_fn(move || {
        let text = rest?;
        let (text, next) = split_once(text);
        let manifest = Manifest { at, text };
        at += text.len() + "---".len();
        rest = next;
        Some(manifest)
    })
}

/// The text before the first document marker, and the text behind the marker.
fn split_once(text: &str) -> (&str, Option<&str>) {
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let behind = line.strip_prefix("---");
        if behind.is_some_and(|behind| behind.is_empty() || behind.starts_with([' ', '\t', '\r', '\n'])) {
            return (&text[..line_start], Some(&text[line_start + "---".len()..]));
        }
        line_start += line.len();
    }
    (text, None)
}

impl<'a> Manifest<'a> {
    /// Parses it. A document without content has no root.
    pub fn parse(&self) -> Result<Stream, ParseError> {
        let mut stream = document::parse(self.text, Format::Yaml)?;
        stream.documents.retain(|root| root.text().is_none_or(|text| !["", "null", "~"].contains(&text)));
        Ok(stream)
    }

    /// The template that helm says it comes from.
    pub fn source(&self) -> Option<&'a str> {
        self.text.lines().find_map(|line| line.strip_prefix("# Source: "))
    }

    /// The value of a top-level key that stands on one line of block style.
    pub fn field(&self, key: &str) -> Option<&'a str> {
        let value = self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?.trim();
        (!value.is_empty() && !value.starts_with(['#', '&', '!', '|', '>', '*'])).then_some(value)
    }
}

/// A Kubernetes object in a parsed document.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Its mapping.
    pub node: &'a Node,
}

/// The objects of a root: itself, or the items of a list.
pub fn objects(root: &Node) -> Vec<Object<'_>> {
    let object = Object { node: root };
    let is_list = object.kind().is_some_and(|kind| kind.ends_with("List"));
    match root.at("items").map(|items| &items.kind) {
        Some(Kind::Sequence(items)) if is_list => items.iter().map(|node| Object { node }).collect(),
        _ => vec![object],
    }
}

impl<'a> Object<'a> {
    /// `kind`, unless it is empty.
    pub fn kind(self) -> Option<&'a str> {
        self.node.at("kind").and_then(Node::text).filter(|kind| !kind.is_empty())
    }

    /// `apiVersion`, unless it is empty.
    pub fn api_version(self) -> Option<&'a str> {
        self.node.at("apiVersion").and_then(Node::text).filter(|version| !version.is_empty())
    }

    /// Whether it is a core Secret.
    pub fn is_secret(self) -> bool {
        self.kind() == Some("Secret") && self.api_version().is_none_or(|version| version == "v1")
    }

    /// Whether a controller in the cluster decrypts it, so that it is meant to be encrypted here.
    pub fn is_encrypted_for_a_controller(self) -> bool {
        matches!(self.kind(), Some("GlobalSopsSecret" | "SealedSecret" | "SopsSecret"))
    }

    /// `Secret apps/hello`.
    pub fn name(self) -> String {
        let metadata =
            |key| self.node.at("metadata").and_then(|metadata| metadata.at(key)).and_then(Node::text);
        let name = metadata("name").or_else(|| metadata("generateName")).unwrap_or("without a name");
        let namespace = metadata("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {namespace}{name}", self.kind().unwrap_or("object"))
    }
}

/// The text behind base64, as `data` of a Secret holds it, line wraps or not.
pub fn decoded(text: &str) -> Option<Secret<String>> {
    let line: Secret<String> = Secret::new(text.split_whitespace().collect());
    let bytes = Secret::new(STANDARD.decode(line.expose()).ok()?);
    Some(Secret::new(String::from_utf8_lossy(bytes.expose()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_as_yaml_finds_them() {
        let stream = "---\n# Source: a/b.yaml\nkind: A\n--- # two\nkind: |\n  ---\n  x\n----\n---\r\n---";
        let texts: Vec<_> = manifests(stream).map(|manifest| manifest.text).collect();
        assert_eq!(
            texts,
            ["", "\n# Source: a/b.yaml\nkind: A\n", " # two\nkind: |\n  ---\n  x\n----\n", "\r\n", ""]
        );
        for manifest in manifests(stream) {
            assert_eq!(&stream[manifest.at..manifest.at + manifest.text.len()], manifest.text);
        }
    }

    #[test]
    fn objects_say_their_names() {
        let named = |text: &str| {
            let stream = Manifest { at: 0, text }.parse().unwrap();
            stream.documents.iter().flat_map(objects).map(Object::name).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(named("kind: A\nmetadata: {name: b, namespace: c}"), "A c/b");
        assert_eq!(named("{metadata: {generateName: b-}}"), "object b-");
        assert_eq!(
            named("kind: SecretList\nitems: [{kind: Secret}, {kind: B}]"),
            "Secret without a name, B without a name"
        );
        assert_eq!(named("# only a comment\n"), "");
        assert_eq!(named("null"), "");
    }
}
