//! Files that are no tree: dotenv and INI, whose values are all text.
//!
//! As in YAML the text is edited and not printed again: values are replaced, the metadata is taken out, everything else
//! stays. Metadata is flattened there, as in `sops_age__list_0__map_enc=…`.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::cipher::{Cipher, Opened as Plaintext, is_sealed};
use super::keys::DataKey;
use super::mac::Mac;
use super::metadata::{Metadata, MetadataError};
use super::open::{OpenOptions, SopsError, ValueError, newer, verify};
use super::rules::{Reach, Rule};
use super::{dotenv, ini};
use crate::document::edit::Edits;
use crate::document::value::Value;
use crate::document::{Format, Position, parse};
use crate::secret::Secret;

/// How many bytes of section names and keys are hashed.
const MAX_HASHED: usize = 1 << 27;
/// A list of the metadata has no more items, and its path no more steps.
const MAX_ITEMS: usize = 1_000;

/// Which of the formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flat {
    /// `KEY=value` lines.
    Dotenv,
    /// Sections of keys.
    Ini,
}

/// A value or a comment, and where it stands.
#[derive(Debug)]
pub(super) struct Leaf<'t> {
    /// Of the value, or of the comment with its sign.
    pub(super) span: Range<usize>,
    /// The section, in INI.
    pub(super) section: Option<&'t str>,
    /// The key; `None`: a comment.
    pub(super) key: Option<Cow<'t, str>>,
    /// What stands there, unquoted.
    pub(super) value: Secret<String>,
}

impl Leaf<'_> {
    /// The keys that lead to it, each with a `:` behind it.
    pub(super) fn path(&self) -> String {
        let keys = self.section.into_iter().chain(self.key.as_deref());
        let path: String = keys.flat_map(|key| [key, ":"]).collect();
        if path.is_empty() { ":".to_owned() } else { path }
    }

    fn reach(&self, rule: &Rule) -> Reach {
        let keys = self.section.into_iter().chain(self.key.as_deref());
        keys.fold(Reach::default(), |reach, key| rule.below(reach, key))
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Parsed<'t> {
    pub(super) leaves: Vec<Leaf<'t>>,
    /// Flattened.
    pub(super) metadata: Vec<(&'t str, String)>,
    /// Where the metadata stands.
    pub(super) cuts: Vec<Range<usize>>,
    /// Comments behind values, each with the index of the value's leaf. sops moves them above the key.
    pub(super) behind: Vec<(usize, Range<usize>)>,
}

/// A file with metadata, before its key is known.
#[derive(Debug)]
pub struct FlatFile<'t> {
    text: &'t str,
    flat: Flat,
    leaves: Vec<Leaf<'t>>,
    cuts: Vec<Range<usize>>,
    /// What it says about itself.
    pub metadata: Metadata,
}

/// A flat file that was opened.
#[derive(Debug)]
pub struct OpenedFlat {
    /// The whole text.
    pub text: Secret<String>,
    /// Its keys and values; in INI below their sections.
    pub data: Value,
    /// The decrypted values in order.
    pub leaves: Vec<Secret<String>>,
}

impl<'t> FlatFile<'t> {
    /// Parses `text` and reads its metadata.
    pub fn read(text: &'t str, flat: Flat) -> Result<Self, SopsError> {
        let parsed = match flat {
            Flat::Dotenv => dotenv::parse(text)?,
            Flat::Ini => ini::parse(text)?,
        };
        if parsed.metadata.is_empty() {
            let sealed = parsed.leaves.iter().any(|leaf| is_sealed(leaf.value.expose()));
            return Err(if sealed { SopsError::CutOff } else { SopsError::NotEncrypted });
        }
        let version = parsed.metadata.iter().find(|(name, _)| *name == "version");
        let metadata = metadata(&parsed.metadata)
            .map_err(|error| newer(version.map_or("", |(_, version)| version), SopsError::Metadata(error)))?;
        Ok(Self { text, flat, leaves: parsed.leaves, cuts: parsed.cuts, metadata })
    }

    /// Decrypts every value with the data key and verifies the MAC.
    pub fn open(&self, key: &DataKey, options: OpenOptions) -> Result<OpenedFlat, SopsError> {
        self.open_by(&Cipher::new(key)?, options)
    }

    /// As [`Self::open`], by the cipher of the data key.
    pub fn open_by(&self, cipher: &Cipher, options: OpenOptions) -> Result<OpenedFlat, SopsError> {
        self.decrypt(cipher, options).map_err(|error| newer(&self.metadata.version, error))
    }

    /// The text without its metadata.
    pub fn without_metadata(&self) -> Result<Secret<String>, SopsError> {
        let mut edits = Edits::default();
        self.cuts.iter().for_each(|cut| edits.cut(cut.clone()));
        Ok(edits.apply(self.text)?)
    }

    fn decrypt(&self, cipher: &Cipher, options: OpenOptions) -> Result<OpenedFlat, SopsError> {
        let mut walk = Walk {
            file: self,
            cipher,
            mac: Mac::new(self.metadata.mac_only_encrypted),
            edits: Edits::default(),
            leaves: Vec::new(),
            data: Vec::new(),
            hashed: 0,
        };
        for leaf in &self.leaves {
            let opened = walk.leaf(leaf);
            opened.map_err(|reason| self.error(leaf, reason))?;
        }
        verify(&self.metadata, cipher, walk.mac, options)?;
        for cut in &self.cuts {
            walk.edits.cut(cut.clone());
        }
        Ok(OpenedFlat {
            text: walk.edits.apply(self.text)?,
            data: Value::Mapping(walk.data),
            leaves: walk.leaves,
        })
    }

    fn error(&self, leaf: &Leaf<'_>, reason: ValueError) -> SopsError {
        let keys: Vec<&str> = leaf.section.into_iter().chain(leaf.key.as_deref()).collect();
        let path = keys.join(".").escape_debug().take(200).collect();
        SopsError::Value { line: Position::of(self.text, leaf.span.start).line, path, reason }
    }
}

struct Walk<'a> {
    file: &'a FlatFile<'a>,
    cipher: &'a Cipher,
    mac: Mac,
    edits: Edits,
    leaves: Vec<Secret<String>>,
    data: Vec<(String, Value)>,
    hashed: usize,
}

impl Walk<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>) -> Result<(), ValueError> {
        self.hashed += leaf.section.map_or(0, str::len);
        if self.hashed > MAX_HASHED {
            return Err(ValueError::Paths);
        }
        let Some(key) = &leaf.key else {
            self.comment(leaf);
            return Ok(());
        };
        let rule = &self.file.metadata.rule;
        let opened =
            value(self.cipher, rule, leaf.reach(rule), leaf.value.expose(), &leaf.path(), &mut self.mac)?;
        let text = match opened {
            None => leaf.value.clone(),
            Some(plaintext) => {
                let text =
                    String::from_utf8(plaintext.bytes().into_owned()).map_err(|_| ValueError::NotText)?;
                let text = Secret::new(text);
                self.edits.replace_span(leaf.span.clone(), self.written(text.expose()));
                self.leaves.push(text.clone());
                text
            }
        };
        self.put(leaf.section, key, Value::String(text));
        Ok(())
    }

    /// A comment that stays closed stays as it is, as sops leaves it.
    fn comment(&mut self, leaf: &Leaf<'_>) {
        if !is_sealed(leaf.value.expose()) {
            return;
        }
        if let Ok(Plaintext::Comment(text)) = self.cipher.open(leaf.value.expose(), &leaf.path()) {
            let comment = match self.file.flat {
                Flat::Dotenv => dotenv::comment(text.expose()),
                Flat::Ini => ini::comment(text.expose()),
            };
            self.edits.replace_span(leaf.span.clone(), comment);
        }
    }

    fn written(&self, text: &str) -> Secret<String> {
        match self.file.flat {
            Flat::Dotenv => dotenv::escaped(text),
            Flat::Ini => ini::quoted(text),
        }
    }

    fn put(&mut self, section: Option<&str>, key: &str, value: Value) {
        let Some(section) = section else { return self.data.push((key.to_owned(), value)) };
        match self.data.last_mut() {
            Some((last, Value::Mapping(entries))) if last == section => entries.push((key.to_owned(), value)),
            _ => self.data.push((section.to_owned(), Value::Mapping(vec![(key.to_owned(), value)]))),
        }
    }
}

/// Opens one value, or takes it into the MAC as it is: `None`.
pub(super) fn value(
    cipher: &Cipher,
    rule: &Rule,
    reach: Reach,
    value: &str,
    path: &str,
    mac: &mut Mac,
) -> Result<Option<Plaintext>, ValueError> {
    if !rule.covers(reach, value) {
        mac.take(value.as_bytes(), false);
        return Ok(None);
    }
    if !value.is_empty() && !is_sealed(value) {
        return Err(ValueError::Plain);
    }
    let opened = cipher.open(value, path)?;
    if let Plaintext::Comment(_) = opened {
        return Err(ValueError::Comment);
    }
    mac.take(&opened.bytes(), true);
    Ok(Some(opened))
}

/// Reads flattened metadata.
fn metadata(flattened: &[(&str, String)]) -> Result<Metadata, MetadataError> {
    let mut tree = Json::Object(Map::new());
    for (name, value) in flattened {
        put(&mut tree, name, value);
    }
    let tree = parse(&tree.to_string(), Format::Json).map_err(|_| MetadataError::NotAMapping)?;
    tree.documents.first().map_or(Err(MetadataError::NotAMapping), Metadata::read)
}

/// Puts `value` where `name` leads, as in `age__list_0__map_enc`. A name that leads nowhere is ignored.
fn put(tree: &mut Json, name: &str, value: &str) {
    let mut at = tree;
    let mut rest = format!("__map_{name}");
    for _ in 0..MAX_ITEMS {
        let Some((step, behind)) = step(&rest) else { break };
        let Some(next) = child(at, step) else { return };
        at = next;
        rest = behind.to_owned();
    }
    *at = Json::String(value.to_owned());
}

/// `__map_x` or `__list_0`, and what follows.
fn step(path: &str) -> Option<(&str, &str)> {
    if path.is_empty() {
        return None;
    }
    let next = [path[2..].find("__map_"), path[2..].find("__list_")];
    let end = next.into_iter().flatten().min().map_or(path.len(), |at| at + 2);
    Some(path.split_at(end))
}

fn child<'j>(at: &'j mut Json, step: &str) -> Option<&'j mut Json> {
    if let Some(key) = step.strip_prefix("__map_") {
        if at.is_null() {
            *at = Json::Object(Map::new());
        }
        return Some(at.as_object_mut()?.entry(key).or_insert(Json::Null));
    }
    let index: usize = step.strip_prefix("__list_")?.parse().ok().filter(|index| *index < MAX_ITEMS)?;
    if at.is_null() {
        *at = Json::Array(Vec::new());
    }
    let items = at.as_array_mut()?;
    if items.len() <= index {
        items.resize(index + 1, Json::Null);
    }
    items.get_mut(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sops::cipher::tests::{key, seal};

    const TIME: &str = "2020-01-02T03:04:05Z";
    /// SHA-512 of `STRONGROOM-MARKER` and `plain`, in hex.
    fn mac() -> String {
        use sha2::{Digest, Sha512};
        let hash = Sha512::digest(b"STRONGROOM-MARKERplain");
        let hex: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        seal(&hex, TIME, "str")
    }

    fn dotenv_file() -> String {
        let (comment, value) = (seal(" c", ":", "comment"), seal("STRONGROOM-MARKER", "A:", "str"));
        format!(
            "#{comment}\nA={value}\nB_unencrypted=plain\nC=\nsops_age__list_0__map_recipient=r\nsops_age__list_0__map_enc=e\\nf\nsops_lastmodified={TIME}\nsops_mac={}\nsops_version=3.13.0\n",
            mac()
        )
    }

    fn ini_file() -> String {
        let (comment, value) = (seal("c", "s:", "comment"), seal("STRONGROOM-MARKER", "s:A:", "str"));
        format!(
            "[s]\n; {comment}\nA = {value}\nB_unencrypted = plain\nC = \n\n[sops]\nage__list_0__map_recipient = r\nage__list_0__map_enc = \"\"\"e\nf\"\"\"\nlastmodified = {TIME}\nmac = {}\nshamir_threshold = 0\n",
            mac()
        )
    }

    fn open(text: &str, flat: Flat) -> Result<OpenedFlat, SopsError> {
        FlatFile::read(text, flat)?.open(&key(), OpenOptions::default())
    }

    #[test]
    fn both_formats_open_and_hand_on_their_keys() {
        let opened = open(&dotenv_file(), Flat::Dotenv).unwrap();
        assert_eq!(opened.text.expose(), "# c\nA=STRONGROOM-MARKER\nB_unencrypted=plain\nC=\n");
        assert_eq!(opened.data.pick(&["A"]).unwrap(), &Value::from("STRONGROOM-MARKER"));
        let opened = open(&ini_file(), Flat::Ini).unwrap();
        assert_eq!(opened.text.expose(), "[s]\n; c\nA = STRONGROOM-MARKER\nB_unencrypted = plain\nC = \n");
        assert_eq!(opened.data.pick(&["s", "B_unencrypted"]).unwrap(), &Value::from("plain"));
        for (file, flat) in [(dotenv_file(), Flat::Dotenv), (ini_file(), Flat::Ini)] {
            let file = FlatFile::read(&file, flat).unwrap();
            let crate::sops::keys::SealedKey::Age { enc, .. } = &file.metadata.groups[0][0] else { panic!() };
            assert_eq!(enc, "e\nf");
        }
    }

    #[test]
    fn a_changed_file_is_refused() {
        for (file, flat) in [(dotenv_file(), Flat::Dotenv), (ini_file(), Flat::Ini)] {
            let line =
                |name: &str| file.lines().find(|line| line.starts_with(name)).unwrap().to_owned() + "\n";
            let sealed = line("A");
            let table = [
                (file.replace("plain", "other"), "the MAC of the file does not match"),
                (file.replace(&line("B_un"), ""), "the MAC of the file does not match"),
                (file.replacen(&sealed, &sealed.replace('A', "Z"), 1), "line "),
                (file.replace("lastmodified", "lost"), "the SOPS metadata lacks `sops.lastmodified`"),
                (file.replace("mac", "mad"), "the file has no MAC"),
                (file.replace(&sealed, &format!("{sealed}D=STRONGROOM-MARKER\n")), "line "),
                (file.replace("list_0", "list_99999"), "the SOPS metadata lists no"),
                (sealed.clone(), "the file holds encrypted values but no SOPS metadata"),
                ("A=1\n".to_owned(), "the file has no SOPS metadata"),
                (format!("nothing\n{file}"), "line 1: expected `"),
            ];
            for (text, message) in table {
                let error = open(&text, flat).unwrap_err().to_string();
                assert!(error.starts_with(message), "{message}: {error}");
                assert!(!error.contains("MARKER"), "{error}");
            }
        }
    }

    #[test]
    fn no_flipped_byte_opens_to_another_secret() {
        for (file, flat) in [(dotenv_file(), Flat::Dotenv), (ini_file(), Flat::Ini)] {
            for at in 0..file.len() {
                let mut bytes = file.clone().into_bytes();
                bytes[at] ^= 0x01;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                if let Ok(opened) = open(&text, flat) {
                    assert_eq!(opened.leaves[0].expose(), "STRONGROOM-MARKER", "{text}");
                }
            }
        }
    }
}
