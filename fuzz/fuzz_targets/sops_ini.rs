//! Any text as a SOPS file of the format INI.
#![no_main]

mod sealed;

use libfuzzer_sys::fuzz_target;
use sealed::Real;
use strongroom::sops::file::FileFormat;
use strongroom::sops::flat::Flat;

const REAL: Real = Real {
    name: "sections",
    text: include_str!("../../e2e/fixtures/sops/sections.enc.ini"),
    format: FileFormat::Flat(Flat::Ini),
};

fuzz_target!(|text: &str| REAL.check(text));
