//! SOPS files against the real sops: what it seals, the product opens, and what was changed since, it refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Read;

use strongroom::document::value::Value;
use strongroom::document::{Format, parse};
use strongroom::secret::Secret;
use strongroom::sops::keys::{DataKey, SealedKey};
use strongroom::sops::open::{OpenOptions, SealedFile};
use support::MARKER;
use support::differential::{Bench, Sealer, assert_flat, assert_same, json_cases, yaml_cases};
use support::documents::{binary, dotenv, ini};
use support::keys::{AgeKey, KeysFolder};
use support::product::strongroom;
use support::repository::Repository;
use support::sops::{encrypt, sops};

/// Any; another one finds other things, and `make soak` tries many.
const SEED: u64 = 20_260_101;
const FILES: usize = 24;
/// Of one document each.
const FLAT: usize = 100;

#[test]
fn random_yaml_opens_to_what_was_sealed() {
    assert_same(&yaml_cases(&Bench::new(), Sealer::Sops, SEED, FILES));
}

#[test]
fn random_json_opens_to_what_was_sealed() {
    assert_same(&json_cases(&Bench::new(), Sealer::Sops, SEED, FILES));
}

#[test]
fn random_dotenv_opens_to_what_sops_opens() {
    assert_flat(&Bench::new(), Sealer::Sops, SEED, FLAT, "env", |dice| dotenv(dice).into_bytes());
}

#[test]
fn random_ini_opens_to_what_sops_opens() {
    assert_flat(&Bench::new(), Sealer::Sops, SEED, FLAT, "ini", |dice| ini(dice).into_bytes());
}

#[test]
fn random_binary_opens_to_what_sops_opens() {
    assert_flat(&Bench::new(), Sealer::Sops, SEED, FLAT, "enc", binary);
}

#[test]
fn a_reference_reaches_into_dotenv_ini_and_binary() {
    let (repository, age) = (Repository::new(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let get = |reference: &str| {
        let run = strongroom().env("STRONGROOM_KEYS_DIR", keys.path()).directory(repository.path());
        run.args(["get", reference]).ok()
    };
    for (name, plain) in [
        ("app.env", format!("A={MARKER}\\nmore\n")),
        ("app.ini", format!("[db]\npassword = {MARKER}\n")),
        ("tls.key", format!("{MARKER}\n")),
    ] {
        encrypt(&repository.write(name, plain), &["--age", &age.recipient]);
    }
    assert_eq!(get("ref+sops://app.env#/A"), format!("{MARKER}\nmore"));
    assert_eq!(get("ref+sops://app.env"), format!("A={MARKER}\\nmore\n"));
    assert_eq!(get("ref+sops://app.ini#/db/password"), MARKER);
    assert_eq!(get("ref+sops://tls.key"), format!("{MARKER}\n"));
}

#[test]
fn a_failed_decrypt_ends_with_the_exit_code_of_sops() {
    let (repository, age) = (Repository::new(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let file = repository.write("a.yaml", "a: 1\nb: two\nc_unencrypted: plain\n");
    let sealed = std::fs::read_to_string(encrypt(&file, &["--age", &age.recipient])).unwrap();
    let other = repository.write("other.yaml", "a: 1\n");
    encrypt(&other, &["--age", &AgeKey::new().recipient]);
    let without_mac =
        sealed.lines().filter(|line| !line.starts_with("    mac:")).collect::<Vec<_>>().join("\n");
    for (name, content, code) in [
        ("fine.yaml", Some(sealed.clone()), 0),
        ("changed.yaml", Some(sealed.replace("plain", "other")), 51),
        ("no-mac.yaml", Some(without_mac), 51),
        ("time.yaml", Some(sealed.replace("lastmodified: \"20", "lastmodified: \"19")), 51),
        ("moved.yaml", Some(sealed.replace("a: ENC", "d: ENC")), 25),
        ("by-hand.yaml", Some(format!("d: new\n{sealed}")), 25),
        ("other.yaml", None, 128),
        ("absent.yaml", None, 100),
        ("plain.yaml", Some("a: 1\n".to_owned()), 1),
        ("broken.yaml", Some("a: {\n".to_owned()), 1),
    ] {
        if let Some(content) = content {
            repository.write(name, content);
        }
        let ours = strongroom().env("STRONGROOM_KEYS_DIR", keys.path());
        let theirs = sops().env("SOPS_AGE_KEY", &age.identity);
        for run in [ours, theirs] {
            let output = run.directory(repository.path()).args(["decrypt", name]).output();
            assert_eq!(output.status.code(), Some(code), "{name}: {}", output.stderr);
        }
    }
}

/// A sealed file, its data key and what it holds.
struct Sealed {
    text: String,
    format: Format,
    key: DataKey,
    values: Vec<Value>,
}

impl Sealed {
    fn new(name: &str, plain: &str) -> Self {
        let (repository, age, format) = (Repository::new(), AgeKey::new(), Format::of_name(name));
        let file = encrypt(&repository.write(name, plain), &["--age", &age.recipient]);
        let text = std::fs::read_to_string(file).unwrap();
        let key = data_key(&text, format, &age);
        Self { values: values(plain, format), text, format, key }
    }

    /// Asserts that `changed` is refused, or means what the file meant.
    fn assert_holds(&self, changed: &str) {
        if let Some(opened) = self.open(changed) {
            assert_eq!(opened, self.values, "another meaning:\n{changed}");
        }
    }

    /// Asserts that `changed`, where a type was, is refused, or has every text that the file had. sops seals neither
    /// the type nor, for the MAC, more than the text: it opens `12` as `"12"` itself then.
    fn assert_holds_texts(&self, changed: &str) {
        if let Some(opened) = self.open(changed) {
            assert_eq!(
                opened.iter().map(texts).collect::<Vec<_>>(),
                self.values.iter().map(texts).collect::<Vec<_>>()
            );
        }
    }

    fn open(&self, changed: &str) -> Option<Vec<Value>> {
        let file = SealedFile::read(changed, self.format).ok()?;
        let opened = file.open(&self.key, OpenOptions::default()).ok()?;
        Some(values(opened.text.expose(), self.format))
    }
}

/// The documents of a stream but the empty ones.
fn values(text: &str, format: Format) -> Vec<Value> {
    let stream = parse(text, format).unwrap();
    let values = stream.documents.iter().map(|document| Value::of(document, &stream.anchors()).unwrap());
    values.filter(|value| *value != Value::Null).collect()
}

/// The same without types.
fn texts(value: &Value) -> Value {
    match value {
        Value::Sequence(items) => Value::Sequence(items.iter().map(texts).collect()),
        Value::Mapping(entries) => {
            Value::Mapping(entries.iter().map(|(key, value)| (key.clone(), texts(value))).collect())
        }
        leaf => Value::from(leaf.to_text().expose().to_lowercase().as_str()),
    }
}

fn data_key(text: &str, format: Format, key: &AgeKey) -> DataKey {
    let file = SealedFile::read(text, format).unwrap();
    let SealedKey::Age { enc, .. } = &file.metadata.groups[0][0] else { panic!("sealed with an age key") };
    let armored = age::armor::ArmoredReader::new(enc.as_bytes());
    let identity: age::x25519::Identity = key.identity.parse().unwrap();
    let decryptor = age::Decryptor::new_buffered(armored).unwrap();
    let mut key = Vec::new();
    decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .unwrap()
        .read_to_end(&mut key)
        .unwrap();
    Secret::new(key)
}

const YAML: &str = "\
# remark
a: STRONGROOM-MARKER
b:
    c: 12
    d: 1.5
    e: true
l:
    # in a list
    - one
    - two
m:
    - c: \"12\"
      d: 2020-01-02T03:04:05Z
    - c: x
---
a: other
";

const JSON: &str =
    r#"{"a": "STRONGROOM-MARKER", "b": {"c": 12, "d": 1.5, "e": true}, "l": ["1", "two", {"a": 1}]}"#;

fn small_files() -> [Sealed; 2] {
    [Sealed::new("small.yaml", YAML), Sealed::new("small.json", JSON)]
}

#[test]
fn no_flipped_byte_opens_to_something_else() {
    for sealed in small_files() {
        for at in 0..sealed.text.len() {
            for flip in [0x01, 0x10, 0x20, 0x7f] {
                let mut bytes = sealed.text.clone().into_bytes();
                bytes[at] ^= flip;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                sealed.assert_holds(&changed);
            }
        }
    }
}

#[test]
fn no_leaf_opens_when_moved_removed_duplicated_or_retyped() {
    for sealed in small_files() {
        let leaves = leaves(&sealed.text);
        assert!(leaves.len() > 6, "{}", sealed.text);
        for (from, to) in leaves.iter().flat_map(|from| leaves.iter().map(move |to| (from, to))) {
            sealed.assert_holds(&with(&sealed.text, to, &sealed.text[from.clone()]));
            let (first, second) = if from.start < to.start { (from, to) } else { (to, from) };
            let swapped = with(&sealed.text, second, &sealed.text[first.clone()]);
            sealed.assert_holds(&with(&swapped, first, &sealed.text[second.clone()]));
        }
        for leaf in leaves {
            for kind in ["str", "int", "float", "bool", "time", "comment", "bytes"] {
                let text = &sealed.text[leaf.clone()];
                let (value, _) = text.rsplit_once("type:").unwrap();
                sealed.assert_holds_texts(&with(&sealed.text, &leaf, &format!("{value}type:{kind}]")));
            }
            // A comment means nothing, and neither it nor an empty value is in the MAC.
            let comment = sealed.text[leaf.clone()].ends_with("type:comment]");
            for other in ["", "null", "~", "x", "{}", "[]"].iter().filter(|_| !comment) {
                sealed.assert_holds(&with(&sealed.text, &leaf, other));
            }
        }
        for (at, line) in line_starts(&sealed.text) {
            sealed.assert_holds(&with(&sealed.text, &(at..at + line.len()), ""));
            sealed.assert_holds(&with(&sealed.text, &(at..at), line));
            // A new key without a value is in no MAC either.
            if let Some(colon) = line.find(':').filter(|_| line.contains("ENC[")) {
                let renamed = format!("{}2{}", &line[..colon], &line[colon..]);
                sealed.assert_holds(&with(&sealed.text, &(at..at), &renamed));
            }
        }
    }
}

type Span = std::ops::Range<usize>;

/// Where the encrypted values stand, without their quotes and without the MAC.
fn leaves(text: &str) -> Vec<Span> {
    let starts = text.match_indices("ENC[").map(|(at, _)| at);
    let spans = starts.map(|at| at..at + text[at..].find(']').unwrap() + 1);
    spans.filter(|span| !text[..span.start].trim_end_matches(['"', ' ']).ends_with("mac:")).collect()
}

fn line_starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        *at += line.len();
        Some((*at - line.len(), line))
    })
}

fn with(text: &str, span: &Span, instead: &str) -> String {
    format!("{}{instead}{}", &text[..span.start], &text[span.end..])
}
