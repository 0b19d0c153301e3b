//! Any text as a SOPS file of the format YAML.
#![no_main]

mod sealed;

use libfuzzer_sys::fuzz_target;
use sealed::Real;
use strongroom::document::Format;
use strongroom::sops::file::FileFormat;

const REAL: Real = Real {
    name: "types",
    text: include_str!("../../e2e/fixtures/sops/types.enc.yaml"),
    format: FileFormat::Document(Format::Yaml),
};

fuzz_target!(|text: &str| REAL.check(text));
