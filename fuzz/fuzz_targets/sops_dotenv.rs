//! Any text as a SOPS file of the format dotenv.
#![no_main]

mod sealed;

use libfuzzer_sys::fuzz_target;
use sealed::Real;
use strongroom::sops::file::FileFormat;
use strongroom::sops::flat::Flat;

const REAL: Real = Real {
    name: "lines",
    text: include_str!("../../e2e/fixtures/sops/lines.enc.env"),
    format: FileFormat::Flat(Flat::Dotenv),
};

fuzz_target!(|text: &str| REAL.check(text));
