//! Any text as a SOPS file, YAML and JSON: no panic, neither while its metadata is read nor while it is opened with a
//! key that is not its own, and never anything opened with that key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::document::Format;
use strongroom::sops::open::{OpenOptions, SealedFile};

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Json] {
        if let Ok(file) = SealedFile::read(text, format) {
            let key = vec![0_u8; 32].into();
            assert!(file.open(&key, OpenOptions::default()).is_err(), "opened with another key");
        }
    }
});
