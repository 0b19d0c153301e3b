//! `strongroom version`: which program this is, and what it is made of.

use std::io::{self, Read};

use flate2::read::GzDecoder;

use crate::config::Version;
use crate::secret::Secret;

use super::Failure;

/// Written by `build/inventory.rs`.
const SBOM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sbom.spdx.json.gz"));
const LICENCES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/licences.txt.gz"));

/// What was asked for: the version, the bill of materials, or the licences.
pub(super) fn run(args: &Version) -> Result<Secret<Vec<u8>>, Failure> {
    let text = match args {
        Version { sbom: true, .. } => unpack(SBOM),
        Version { licences: true, .. } => unpack(LICENCES),
        _ => Ok(format!("strongroom {}\n", env!("CARGO_PKG_VERSION")).into_bytes()),
    };
    text.map(Secret::new).map_err(Failure::internal)
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(sbom: bool, licences: bool) -> String {
        let output = run(&Version { sbom, licences }).unwrap();
        String::from_utf8(output.expose().clone()).unwrap()
    }

    #[test]
    fn the_bill_of_materials_has_every_linked_package_once() {
        let document: serde_json::Value = serde_json::from_str(&printed(true, false)).unwrap();
        let packages = document["packages"].as_array().unwrap();
        assert_eq!(packages[0]["name"], "strongroom");
        let names: Vec<_> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        for linked in ["age", "aws-lc-sys", "rust-std", "rustls", "sequoia-openpgp", "tonic"] {
            assert!(names.contains(&linked), "{linked}");
        }
        for elsewhere in ["proptest", "protox", "serde_derive", "strongroom-fuzz"] {
            assert!(!names.contains(&elsewhere), "{elsewhere} is not part of the program");
        }
        let ids: Vec<_> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len());
        for relation in document["relationships"].as_array().unwrap() {
            assert!(ids.contains(&relation["relatedSpdxElement"].as_str().unwrap()), "{relation}");
        }
        assert!(packages.iter().all(|package| package["licenseDeclared"] != "NOASSERTION"));
    }

    #[test]
    fn licences_name_whose_they_are() {
        let text = printed(false, true);
        assert!(text.contains("sequoia-openpgp 2.3"), "{}", &text[..200]);
        assert!(text.contains("GNU LIBRARY GENERAL PUBLIC LICENSE"));
    }
}
