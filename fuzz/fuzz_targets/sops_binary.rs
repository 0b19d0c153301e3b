//! Any text as a SOPS file of the format binary.
#![no_main]

mod sealed;

use libfuzzer_sys::fuzz_target;
use sealed::Real;
use strongroom::sops::file::FileFormat;

const REAL: Real = Real {
    name: "content",
    text: include_str!("../../e2e/fixtures/sops/content.enc.binary"),
    format: FileFormat::Binary,
};

fuzz_target!(|text: &str| REAL.check(text));
