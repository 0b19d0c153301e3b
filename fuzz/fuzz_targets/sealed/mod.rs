//! Any text as a SOPS file of one format, opened with the data key of a real one, which is among the seeds, and as a
//! plaintext that is sealed with it.
//!
//! No panic; nothing that the real file does not hold is ever opened, unless the MAC is ignored; no error tells what was
//! opened; and what can be sealed can be opened.

use std::collections::HashSet;
use std::sync::OnceLock;

use strongroom::document::Format;
use strongroom::fault::report;
use strongroom::secret::Secret;
use strongroom::sops::cipher::Cipher;
use strongroom::sops::file::FileFormat;
use strongroom::sops::flat::FlatFile;
use strongroom::sops::keys::SealedKey;
use strongroom::sops::open::{OpenOptions, SealedFile, SopsError};
use strongroom::sops::seal::{Envelope, Indent, SealError, seal};

const MARKER: &str = "STRONGROOM-MARKER";
const DATA_KEYS: &str = include_str!("../../../e2e/fixtures/sops/data-keys");

/// A file that the real sops made, with its key.
pub struct Real {
    pub name: &'static str,
    pub text: &'static str,
    pub format: FileFormat,
}

/// What every run uses again.
struct Kit {
    cipher: Cipher,
    /// What the real file holds, in lower case: the MAC does not tell `True` from `true`.
    values: HashSet<String>,
    envelope: Envelope,
}

impl Real {
    /// Checks `text` in every way.
    pub fn check(&self, text: &str) {
        static KIT: OnceLock<Kit> = OnceLock::new();
        let kit = KIT.get_or_init(|| self.kit());
        for ignore_mac in [false, true] {
            match open(text, self.format, &kit.cipher, OpenOptions { ignore_mac, ..OpenOptions::default() }) {
                Ok((_, values)) if !ignore_mac => {
                    let other = values.iter().find(|value| !kit.values.contains(&value.to_lowercase()));
                    assert_eq!(other, None, "another value was opened");
                }
                Ok(_) => {}
                Err(error) => {
                    let told = report(&error);
                    assert!(!told.contains(MARKER) || text.contains(MARKER), "{told}");
                }
            }
        }
        self.seal(text.as_bytes(), kit);
    }

    fn seal(&self, plaintext: &[u8], kit: &Kit) {
        match seal(plaintext, self.format, &kit.cipher, &kit.envelope) {
            Err(SealError::Unfaithful(error)) => panic!("what was sealed does not open: {}", report(&error)),
            Ok(sealed) if self.format == FileFormat::Binary => {
                let sealed = std::str::from_utf8(sealed.expose()).expect("a sealed file is text");
                let opened = open(sealed, self.format, &kit.cipher, OpenOptions::default());
                assert_eq!(opened.expect("what was sealed opens").0.expose(), plaintext);
            }
            _ => {}
        }
    }

    fn kit(&self) -> Kit {
        let key = DATA_KEYS.lines().find_map(|line| line.strip_prefix(self.name)?.strip_prefix(' '));
        let key = key.expect("the file has a data key").as_bytes().chunks(2);
        let byte = |hex| u8::from_str_radix(std::str::from_utf8(hex).expect("hex"), 16).expect("hex");
        let cipher = Cipher::new(&Secret::new(key.map(byte).collect())).expect("a data key");
        let (_, values) = open(self.text, self.format, &cipher, OpenOptions::default()).expect("it opens");
        let values = values.into_iter().map(|value| value.to_lowercase()).collect();
        let key = SealedKey::Age { recipient: "r".to_owned(), enc: "e".to_owned() };
        let envelope = Envelope {
            groups: vec![vec![key]],
            threshold: None,
            rule: None,
            mac_only_encrypted: false,
            indent: Indent::default(),
            ..Envelope::default()
        };
        Kit { cipher, values, envelope }
    }
}

type Opened = (Secret<Vec<u8>>, Vec<String>);

fn open(text: &str, format: FileFormat, cipher: &Cipher, options: OpenOptions) -> Result<Opened, SopsError> {
    let bytes = |text: &Secret<String>| Secret::new(text.expose().as_bytes().to_vec());
    let texts = |leaves: &[Secret<String>]| leaves.iter().map(|leaf| leaf.expose().clone()).collect();
    Ok(match format {
        FileFormat::Document(format) => {
            let opened = SealedFile::read(text, format)?.open_by(cipher, options)?;
            (bytes(&opened.text), texts(&opened.leaves))
        }
        FileFormat::Flat(flat) => {
            let opened = FlatFile::read(text, flat)?.open_by(cipher, options)?;
            (bytes(&opened.text), texts(&opened.leaves))
        }
        FileFormat::Binary => {
            let content = SealedFile::read(text, Format::Json)?.open_binary(cipher, options)?;
            let text = String::from_utf8_lossy(content.expose()).into_owned();
            (content, vec![text])
        }
    })
}
