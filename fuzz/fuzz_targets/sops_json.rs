//! Any text as a SOPS file of the format JSON.
#![no_main]

mod sealed;

use libfuzzer_sys::fuzz_target;
use sealed::Real;
use strongroom::document::Format;
use strongroom::sops::file::FileFormat;

const REAL: Real = Real {
    name: "values",
    text: include_str!("../../e2e/fixtures/sops/values.enc.json"),
    format: FileFormat::Document(Format::Json),
};

fuzz_target!(|text: &str| REAL.check(text));
