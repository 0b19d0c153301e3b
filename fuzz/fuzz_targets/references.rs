//! Any text as an expression: no panic, and what is no reference stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::refs::grammar::{Expression, Part, spelled_in};

fuzz_target!(|text: &str| {
    let Some(expression) = Expression::parse(text) else {
        assert!(spelled_in(text).next().is_none(), "a reference was found and not parsed");
        return;
    };
    for reference in expression.references() {
        let _ = reference.to_string();
        let nested: Vec<_> = reference.nested().map(|_| "x".to_owned().into()).collect();
        let _ = reference.target(&nested);
    }
    for part in expression.parts() {
        if let Part::Text(kept) = part {
            assert!(kept.expose().len() <= text.len(), "text was made up");
        }
    }
});
