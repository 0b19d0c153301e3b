//! Any YAML or JSON whose string values are all replaced: what comes out has the same shape, the replaced values, and
//! every other scalar as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::document::edit::{Edits, quote};
use strongroom::document::scalar::{self, Scalar};
use strongroom::document::{Format, Kind, Node, parse};

const REPLACEMENT: &str = "replaced: {x} # \"y\"\n";

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Json] {
        let Ok(before) = parse(text, format) else { continue };
        let mut edits = Edits::default();
        before.documents.iter().for_each(|document| replace_strings(document, &mut edits));
        let edited = edits.apply(text).expect("edits of one tree do not overlap");
        let after = parse(edited.expose(), format).expect("edited text is still well formed");
        assert_eq!(before.documents.len(), after.documents.len());
        for (before, after) in before.documents.iter().zip(&after.documents) {
            compare(before, after);
        }
    }
});

fn replace_strings(node: &Node, edits: &mut Edits) {
    match &node.kind {
        Kind::Scalar { .. } if scalar::of(node) == Some(Scalar::Str) => {
            edits.replace(node, quote(REPLACEMENT))
        }
        Kind::Scalar { .. } | Kind::Alias(_) => {}
        Kind::Sequence(items) => items.iter().for_each(|item| replace_strings(item, edits)),
        Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| replace_strings(value, edits)),
    }
}

fn compare(before: &Node, after: &Node) {
    match (&before.kind, &after.kind) {
        (Kind::Scalar { .. }, Kind::Scalar { .. }) if scalar::of(before) == Some(Scalar::Str) => {
            assert_eq!(after.text(), Some(REPLACEMENT));
        }
        (Kind::Scalar { .. }, Kind::Scalar { .. }) => assert_eq!(before.text(), after.text()),
        (Kind::Alias(before), Kind::Alias(after)) => assert_eq!(before, after),
        (Kind::Sequence(before), Kind::Sequence(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(before, after)| compare(before, after));
        }
        (Kind::Mapping(before), Kind::Mapping(after)) => {
            assert_eq!(before.len(), after.len());
            for ((key_before, before), (key_after, after)) in before.iter().zip(after) {
                assert_eq!(key_before.text(), key_after.text());
                compare(before, after);
            }
        }
        _ => panic!("the shape changed"),
    }
}
