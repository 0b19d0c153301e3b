//! SOPS files: metadata, tree walk, MAC, and the keys that open them.
//!
//! [`open::SealedFile`] is the way into YAML and JSON, [`mod@file`] into a file of any format. It refuses a file whose values or MAC do not prove what the metadata says, and never
//! writes anything. [`seal`] is the way back. Follows the file format of sops 3; `0.x` is refused, as sops refuses it.

pub mod amend;
pub mod change;
pub mod cipher;
pub mod creation;
mod cut;
mod dotenv;
pub mod extract;
pub mod file;
pub mod flat;
mod ini;
pub mod keys;
mod mac;
pub mod metadata;
pub mod open;
pub mod path;
mod people;
pub mod rules;
pub mod seal;
pub mod shamir;
#[cfg(test)]
mod tampering;
mod walk;

use crate::document::{Kind, Node, Stream};

/// Whether `stream` is a SOPS file, whole or broken: [`open::SealedFile`] then opens it or says what is wrong.
///
/// Told by the content: metadata in a top-level `sops`, or encrypted values without it, as in a file that is cut
/// off. A `SopsSecret` is left alone, because its controller in the cluster opens it; so are, in values that a chart
/// makes one of, a nested `SopsSecret` and a nested mapping that has SOPS metadata of its own.
pub fn is_encrypted(stream: &Stream) -> bool {
    let ours = || stream.documents.iter().filter(|document| !belongs_to_cluster(document));
    ours().any(has_metadata) || ours().any(has_sealed_value)
}

/// Whether `document` is an object that a controller in the cluster decrypts.
pub fn belongs_to_cluster(document: &Node) -> bool {
    document.at("apiVersion").is_some() && document.at("kind").and_then(Node::text) == Some("SopsSecret")
}

fn has_metadata(document: &Node) -> bool {
    document.at("sops").is_some_and(metadata::looks_like_metadata)
}

fn has_sealed_value(document: &Node) -> bool {
    let mut open = vec![document];
    while let Some(node) = open.pop() {
        if belongs_to_cluster(node) || has_metadata(node) {
            continue;
        }
        match &node.kind {
            Kind::Scalar { value, .. } => {
                if cipher::is_sealed(value.expose()) || cipher::is_cut_off(value.expose()) {
                    return true;
                }
            }
            Kind::Alias(_) => {}
            Kind::Sequence(items) => open.extend(items),
            Kind::Mapping(entries) => open.extend(entries.iter().map(|(_, value)| value)),
        }
    }
    false
}
