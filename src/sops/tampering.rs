//! Files of the real sops, changed in every way that a hand or a disk changes them: they are refused, or they hold the
//! same values.
//!
//! sops protects neither the names of keys above plain values nor whether a value is a number or text, so what is
//! compared is the text of every value, in order, whatever its case: a boolean that is called text is `True`.

use std::path::Path;

use super::cipher::Cipher;
use super::file::FileFormat;
use super::flat::FlatFile;
use super::open::{OpenOptions, SealedFile, SopsError};
use super::shamir::tests::unhex;
use crate::document::value::Value;
use crate::document::{Format, parse};

fn vector(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures/sops").join(file))
        .unwrap()
}

/// A vector, and the text of its values.
struct Sealed {
    name: &'static str,
    format: FileFormat,
    text: String,
    values: Vec<String>,
}

impl Sealed {
    fn of(file: &'static str) -> Self {
        let (name, text) = (file.split('.').next().unwrap(), vector(file));
        let format = FileFormat::of_name(file).unwrap_or(FileFormat::Binary);
        let mut sealed = Self { name, format, text, values: Vec::new() };
        sealed.values = sealed.open(&sealed.text).unwrap();
        assert!(sealed.values.iter().any(|value| value.starts_with("strongroom-marker")));
        sealed
    }

    /// The text of every value of `text`, or the message of its refusal.
    fn open(&self, text: &str) -> Result<Vec<String>, String> {
        let keys = vector("data-keys");
        let key = keys.lines().find_map(|line| line.strip_prefix(self.name)?.strip_prefix(' ')).unwrap();
        let opened = values(text, self.format, &Cipher::new(&unhex(key)).unwrap());
        let mut texts = Vec::new();
        opened.map_err(|error| error.to_string())?.iter().for_each(|value| flatten(value, &mut texts));
        Ok(texts)
    }

    /// Refused without a secret in the message, or the same values.
    fn check(&self, changed: &str, what: &str) {
        match self.open(changed) {
            Ok(values) => assert_eq!(values, self.values, "{}: {what}", self.name),
            Err(message) => assert!(!message.contains("MARKER"), "{}: {what}: {message}", self.name),
        }
    }
}

fn values(text: &str, format: FileFormat, cipher: &Cipher) -> Result<Vec<Value>, SopsError> {
    let options = OpenOptions::default();
    Ok(match format {
        FileFormat::Document(format) => {
            let opened = SealedFile::read(text, format)?.open_by(cipher, options)?;
            let stream = parse(opened.text.expose(), format).unwrap();
            let anchors = stream.anchors();
            stream.documents.iter().map(|document| Value::of(document, &anchors).unwrap()).collect()
        }
        FileFormat::Flat(flat) => vec![FlatFile::read(text, flat)?.open_by(cipher, options)?.data],
        FileFormat::Binary => {
            let content = SealedFile::read(text, Format::Json)?.open_binary(cipher, options)?;
            vec![Value::from(std::str::from_utf8(content.expose()).unwrap())]
        }
    })
}

fn flatten(value: &Value, into: &mut Vec<String>) {
    match value {
        // Neither is in the MAC.
        Value::Null => {}
        Value::String(text) if text.expose().is_empty() => {}
        Value::Bool(value) => into.push(value.to_string()),
        Value::Number(text) | Value::String(text) => into.push(text.expose().to_lowercase()),
        Value::Sequence(items) => items.iter().for_each(|item| flatten(item, into)),
        Value::Mapping(entries) => entries.iter().for_each(|(_, value)| flatten(value, into)),
    }
}

fn files() -> [Sealed; 6] {
    [
        "regex.enc.yaml",
        "comments.enc.yaml",
        "values.enc.json",
        "lines.enc.env",
        "sections.enc.ini",
        "content.enc.binary",
    ]
    .map(Sealed::of)
}

/// The lines of encrypted values, by number.
fn leaves(lines: &[&str]) -> Vec<usize> {
    let is_leaf = |line: &str| {
        line.contains("ENC[")
            && !line.contains("type:comment")
            && !line.trim_start_matches([' ', '"', '\t']).trim_start_matches("sops_").starts_with("mac")
    };
    (0..lines.len()).filter(|&at| is_leaf(lines[at])).collect()
}

fn sealed_part(line: &str) -> std::ops::Range<usize> {
    line.find("ENC[").unwrap()..line.find(']').unwrap() + 1
}

#[test]
fn no_changed_byte_changes_a_value() {
    for sealed in files() {
        for at in 0..sealed.text.len() {
            for mask in [0x01, 0x20] {
                let mut bytes = sealed.text.clone().into_bytes();
                bytes[at] ^= mask;
                sealed.check(std::str::from_utf8(&bytes).unwrap(), &format!("byte {at} ^ {mask}"));
            }
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused_or_whole() {
    for sealed in files() {
        for end in 0..sealed.text.len() {
            sealed.check(&sealed.text[..end], &format!("cut at {end}"));
        }
    }
}

#[test]
fn leaves_that_are_removed_repeated_or_moved_are_refused() {
    for name in ["types.enc.yaml", "regex.enc.yaml", "values.enc.json", "lines.enc.env", "sections.enc.ini"] {
        let sealed = Sealed::of(name);
        let lines: Vec<_> = sealed.text.lines().collect();
        let refused = |lines: &[String], what: String| {
            let outcome = sealed.open(&(lines.join("\n") + "\n"));
            assert!(outcome.is_err(), "{}: {what}", sealed.name);
        };
        let owned = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let leaves = leaves(&lines);
        assert!(leaves.len() > 1);
        for (nth, &at) in leaves.iter().enumerate() {
            let mut removed = owned();
            removed.remove(at);
            refused(&removed, format!("line {} removed", at + 1));
            let mut repeated = owned();
            repeated.insert(at, lines[at].to_owned());
            refused(&repeated, format!("line {} repeated", at + 1));
            let other = leaves[(nth + 1) % leaves.len()];
            let mut swapped = owned();
            swapped[at].replace_range(sealed_part(lines[at]), &lines[other][sealed_part(lines[other])]);
            swapped[other].replace_range(sealed_part(lines[other]), &lines[at][sealed_part(lines[at])]);
            refused(&swapped, format!("values of lines {} and {} swapped", at + 1, other + 1));
            let mut moved = owned();
            moved.swap(at, other);
            // Two values of one text are alike to the MAC, wherever they stand.
            sealed.check(&(moved.join("\n") + "\n"), &format!("lines {} and {} swapped", at + 1, other + 1));
        }
    }
}

#[test]
fn binary_content_that_is_removed_repeated_or_renamed_is_refused_or_the_same() {
    let sealed = Sealed::of("content.enc.binary");
    let line = sealed.text.lines().find(|line| line.contains("\"data\":")).unwrap();
    for changed in [
        String::new(),
        format!("{line}\n{line}"),
        format!("{line}\n\t\"data\": \"\","),
        format!("\t\"data\": \"\",\n{line}"),
        line.replace("data\"", "date\""),
        "\t\"data\": \"\",".to_owned(),
        "\t\"data\": null,".to_owned(),
        "\t\"data\": \"other\",".to_owned(),
        format!("{line}\n\t\"other\": \"x\","),
    ] {
        sealed.check(&sealed.text.replacen(line, &changed, 1), &changed);
    }
}

#[test]
fn a_leaf_of_another_type_is_refused_or_the_same_text() {
    for sealed in files() {
        let lines: Vec<_> = sealed.text.lines().collect();
        for at in leaves(&lines) {
            for kind in ["str", "int", "float", "bool", "bytes", "time", "comment", "null", ""] {
                let mut changed = lines.clone();
                let (before, after) = lines[at].split_once("type:").unwrap();
                let line = format!("{before}type:{kind}{}", &after[after.find(']').unwrap()..]);
                changed[at] = &line;
                sealed.check(&(changed.join("\n") + "\n"), &format!("line {} is {kind}", at + 1));
            }
        }
    }
}
