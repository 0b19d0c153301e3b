//! What a dry run shows in place of secrets.
//!
//! Values of Secrets, and every other value that holds something opened, are printed as `<masked:ab12>`. The four
//! digits tell equal values from different ones, so that a reader sees what changed. They are 16 bits of a hash on
//! purpose: enough for the eye, and too few to confirm a guess, since one password in 65,536 has the same ones.
//! All other text stays byte for byte, except that nothing opened of four characters or more is left anywhere.

use sha2::{Digest as _, Sha256};

use crate::document::edit::{Edits, quote};
use crate::document::{Kind, Node};
use crate::fault::{Class, Fault};
use crate::redact::Redactor;
use crate::render::output::{Manifest, Object, decoded, manifests, objects};
use crate::secret::Secret;

/// Separates these fingerprints from every other use of the hash.
const DOMAIN: &[u8] = b"strongroom mask v1\0";
/// What stands for an opened value in the middle of text that is no value, such as a comment.
const MASKED: &str = "<masked>";
/// What stands for a document that cannot be taken apart.
const MASKED_DOCUMENT: &str = "\n# <masked>: this document cannot be read as YAML\n";

/// A document could not be edited.
#[derive(Debug, thiserror::Error)]
#[error("mask the manifests")]
pub struct MaskError(#[from] crate::document::edit::EditError);

impl Fault for MaskError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// `stream`, manifests as helm prints them, with every secret masked. `opened` knows what was opened for them.
pub fn mask(stream: &str, opened: &Redactor) -> Result<String, MaskError> {
    let mut masked = String::with_capacity(stream.len());
    for (number, manifest) in manifests(stream).enumerate() {
        if number > 0 {
            masked.push_str("---");
        }
        masked.push_str(&mask_manifest(&manifest, opened)?);
    }
    Ok(masked)
}

/// What stands for `value`.
pub fn placeholder(value: &str) -> String {
    let hash = Sha256::new().chain_update(DOMAIN).chain_update(value).finalize();
    format!("<masked:{:02x}{:02x}>", hash[0], hash[1])
}

fn mask_manifest(manifest: &Manifest<'_>, opened: &Redactor) -> Result<String, MaskError> {
    let Ok(parsed) = manifest.parse() else { return Ok(MASKED_DOCUMENT.to_owned()) };
    let mut mask = Mask { opened, edits: Edits::default() };
    for object in parsed.documents.iter().flat_map(objects) {
        mask.object(object);
    }
    let edited = mask.edits.apply(manifest.text)?;
    Ok(opened.redact_with(edited.expose(), MASKED))
}

struct Mask<'a> {
    opened: &'a Redactor,
    edits: Edits,
}

impl Mask<'_> {
    fn object(&mut self, object: Object<'_>) {
        if !object.is_secret() {
            return self.searched(object.node);
        }
        for (key, value) in object.node.entries() {
            match key.text() {
                Some("data") => self.hidden(value, true),
                Some("stringData") => self.hidden(value, false),
                _ => self.searched(value),
            }
        }
    }

    /// Every value below, whatever it is.
    fn hidden(&mut self, node: &Node, base64: bool) {
        match &node.kind {
            Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| self.hidden(value, base64)),
            Kind::Sequence(items) => items.iter().for_each(|item| self.hidden(item, base64)),
            Kind::Scalar { value, .. } if value.expose().is_empty() => {}
            Kind::Scalar { value, .. } => {
                let plain = if base64 { decoded(value.expose()) } else { None };
                self.replace(node, plain.as_ref().unwrap_or(value));
            }
            Kind::Alias(_) => self.edits.replace(node, quote(MASKED)),
        }
    }

    /// Every key and value below that holds something opened.
    fn searched(&mut self, node: &Node) {
        match &node.kind {
            Kind::Mapping(entries) => {
                for (key, value) in entries {
                    self.searched(key);
                    self.searched(value);
                }
            }
            Kind::Sequence(items) => items.iter().for_each(|item| self.searched(item)),
            Kind::Scalar { value, .. } if self.opened.occurs_in(value.expose()) => self.replace(node, value),
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn replace(&mut self, node: &Node, value: &Secret<String>) {
        self.edits.replace(node, quote(&placeholder(value.expose())));
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const SECRET: &str = "STRONGROOM-MARKER of two\nlines & \"more\"\n";

    fn masked(stream: &str) -> String {
        mask(stream, &Redactor::new(&[Secret::new(SECRET.to_owned())])).unwrap()
    }

    #[test]
    fn values_of_secrets_are_masked_and_nothing_else() {
        let stream = "---\n# Source: a/b.yaml\napiVersion: v1\nkind: Secret # here\nmetadata:\n  name: a\n\
                      type: Opaque\ndata:\n  a: cGxhaW4=   # kept\n  b: \"b3RoZXI=\"\n  empty: ''\nstringData:\n  c: |\n    \
                      plain\n\n  d: &x plain\n  e: *x\n  f: {g: [1, 'plain']}\n---\napiVersion: v1\nkind: ConfigMap\n\
                      data: {a: plain, b: no, c: 0123}\n";
        let (plain, line, one) = (placeholder("plain"), placeholder("plain\n"), placeholder("1"));
        let expected = stream
            .replace("cGxhaW4=", &format!("\"{plain}\""))
            .replace("\"b3RoZXI=\"", &format!("\"{}\"", placeholder("other")))
            .replace("|\n    plain\n", &format!("\"{line}\"\n"))
            .replace("&x plain", &format!("&x \"{plain}\""))
            .replace("*x", "\"<masked>\"")
            .replace("[1, 'plain']", &format!("[\"{one}\", \"{plain}\"]"));
        assert_eq!(masked(stream), expected);
    }

    #[test]
    fn opened_values_are_masked_wherever_they_stand() {
        let json = serde_json::to_string(SECRET).unwrap();
        let encoded = STANDARD.encode(format!("user:{SECRET}"));
        let indented = SECRET.trim().replace('\n', "\n    ");
        let again = serde_json::to_string(&format!("{{\"data\": {json}}}")).unwrap();
        let stream = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  annotations:\n    last-applied: {again}\n\
             data:\n  a: {json}\n  b: {encoded}\n  c: |\n    x: 1\n    {indented}\n  {json}: d # {}\n  keep: yes\n",
            SECRET.lines().next().unwrap()
        );
        let text = masked(&stream);
        assert!(
            !text.contains("MARKER") && !text.contains("more") && !text.contains(&encoded[8..20]),
            "{text}"
        );
        assert_eq!(text.matches("<masked:").count(), 5, "{text}");
        assert!(text.contains(": d # <masked>\n  keep: yes\n"), "{text}");
        let manifest = Manifest { at: 0, text: &text };
        assert_eq!(manifest.parse().unwrap().documents[0].at("data").unwrap().entries().len(), 5);
    }

    #[test]
    fn a_document_that_cannot_be_read_is_not_shown() {
        let text = masked("kind: Secret\ndata: [STRONGROOM\n---\nkind: A\n");
        assert_eq!(text, "\n# <masked>: this document cannot be read as YAML\n---\nkind: A\n");
    }

    #[test]
    fn equal_values_look_the_same_in_data_and_string_data() {
        let text = masked("{kind: Secret, data: {a: cGxhaW4=}, stringData: {a: plain}}");
        assert_eq!(text.matches(&placeholder("plain")).count(), 2, "{text}");
        assert_eq!(placeholder("plain").len(), "<masked:abcd>".len());
        assert_ne!(placeholder("plain"), placeholder("plain2"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_opened_is_left(before in "[a-z:{}\\[\\]|>&*!#'\" \n-]{0,30}", after in "[a-z:{}\\[\\]|>'\" \n-]{0,30}") {
            let known = Redactor::new(&[Secret::new("STRONGROOM-MARKER".to_owned())]);
            let stream = format!("apiVersion: v1\nkind: A\na: {before}STRONGROOM-MARKER{after}\n");
            proptest::prop_assert!(!mask(&stream, &known).unwrap().contains("MARKER"));
        }
    }
}
