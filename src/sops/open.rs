//! Opening a SOPS file: metadata, data key, values, MAC, and the text that is left when all is opened.
//!
//! The text is edited, not printed again: encrypted scalars are replaced by what they hold, in their type, the
//! `sops` block is taken out, and everything else stays byte for byte.

use super::cipher::{Cipher, CipherError, Opened as Plaintext};
use super::keys::{DataKey, Keyring, KeyringError};
use super::mac::Mac;
use super::metadata::{Metadata, MetadataError, looks_like_metadata};
use super::rules::Reach;
use super::walk::Walk;
use super::{belongs_to_cluster, cut, flat};
use crate::document::edit::{EditError, Edits};
use crate::document::{Format, Kind, Node, ParseError, Position, Stream, parse};
use crate::fault::{Class, Fault};
use crate::scope::Scope;
use crate::secret::Secret;

/// The newest sops whose files are known, major and minor.
const KNOWN: (u32, u32) = (3, 13);

/// What the reader of a file asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOptions {
    /// Open a file whose MAC is missing or wrong. Its encrypted values are still proven one by one.
    pub ignore_mac: bool,
    /// Write YAML as a person edits it: text without quotes where none are needed, and many lines as lines.
    pub for_people: bool,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The whole text.
    pub text: Secret<String>,
    /// The decrypted values in order, as text; booleans, which are not worth hiding, are left out.
    pub leaves: Vec<Secret<String>>,
}

/// The data key of a file, from a key of `keyring`.
pub(super) async fn unseal(
    metadata: &Metadata,
    keyring: &Keyring,
    scope: &Scope,
) -> Result<DataKey, SopsError> {
    let key = keyring.data_key(scope, &metadata.groups, metadata.threshold).await;
    key.map_err(SopsError::Keyring)
}

/// A file with metadata, before its key is known.
#[derive(Debug)]
pub struct SealedFile<'t> {
    text: &'t str,
    stream: Stream,
    /// What it says about itself.
    pub metadata: Metadata,
}

impl<'t> SealedFile<'t> {
    /// Parses `text` and reads its metadata.
    pub fn read(text: &'t str, format: Format) -> Result<Self, SopsError> {
        Self::of(text, parse(text, format)?)
    }

    /// Reads the metadata of `stream`, which was parsed from `text`.
    pub fn of(text: &'t str, stream: Stream) -> Result<Self, SopsError> {
        let block = block(&stream)?;
        let metadata = Metadata::read(block).map_err(|error| {
            let version = block.at("version").and_then(Node::text).unwrap_or_default();
            newer(version, SopsError::Metadata(error))
        })?;
        Ok(Self { text, stream, metadata })
    }

    /// Opens it with a key of `keyring`.
    pub async fn open_with(
        &self,
        keyring: &Keyring,
        scope: &Scope,
        options: OpenOptions,
    ) -> Result<Opened, SopsError> {
        self.open(&unseal(&self.metadata, keyring, scope).await?, options)
    }

    /// Decrypts every value with the data key and verifies the MAC.
    pub fn open(&self, key: &DataKey, options: OpenOptions) -> Result<Opened, SopsError> {
        self.open_by(&Cipher::new(key)?, options)
    }

    /// As [`Self::open`], by the cipher of the data key.
    pub fn open_by(&self, cipher: &Cipher, options: OpenOptions) -> Result<Opened, SopsError> {
        self.decrypt(cipher, options).map_err(|error| newer(&self.metadata.version, error))
    }

    /// The text without its metadata.
    pub fn without_metadata(&self) -> Result<Secret<String>, SopsError> {
        let mut edits = Edits::default();
        for block in cut::blocks(self.text, &self.stream) {
            edits.replace_span(block.span, Secret::new(block.instead.to_owned()));
        }
        Ok(edits.apply(self.text)?)
    }

    /// The content of a file that sops took for binary: what is sealed under `data`, be it text or not.
    pub fn open_binary(&self, cipher: &Cipher, options: OpenOptions) -> Result<Secret<Vec<u8>>, SopsError> {
        self.decrypt_binary(cipher, options).map_err(|error| newer(&self.metadata.version, error))
    }

    fn decrypt_binary(&self, cipher: &Cipher, options: OpenOptions) -> Result<Secret<Vec<u8>>, SopsError> {
        let node = self.stream.documents.first().and_then(|root| root.at("data")).ok_or(SopsError::NoData)?;
        let value = node.text().ok_or(SopsError::NoData)?;
        let (rule, mut mac) = (&self.metadata.rule, Mac::new(self.metadata.mac_only_encrypted));
        let reach = rule.below(Reach::default(), "data");
        let opened = flat::value(cipher, rule, reach, value, "data:", &mut mac);
        let opened = opened.map_err(|reason| SopsError::Value {
            line: Position::of(self.text, node.span.start).line,
            path: "data".to_owned(),
            reason,
        })?;
        verify(&self.metadata, cipher, mac, options)?;
        Ok(match opened {
            Some(Plaintext::Text(content)) => content,
            Some(other) => Secret::new(other.bytes().into_owned()),
            None => Secret::new(value.as_bytes().to_vec()),
        })
    }

    fn decrypt(&self, cipher: &Cipher, options: OpenOptions) -> Result<Opened, SopsError> {
        let anchors = self.stream.anchors();
        let blocks = cut::blocks(self.text, &self.stream);
        let mut walk = Walk::new(self.text, &self.stream, &self.metadata, cipher, &anchors, &blocks);
        walk.for_people = options.for_people;
        for document in &self.stream.documents {
            walk.document(document)?;
        }
        let (mut edits, leaves, mac) = walk.finish();
        verify(&self.metadata, cipher, mac, options)?;
        for block in blocks {
            edits.replace_span(block.span, Secret::new(block.instead.to_owned()));
        }
        Ok(Opened { text: edits.apply(self.text)?, leaves })
    }
}

/// Compares `mac`, of what was read, with what the file states.
pub(super) fn verify(
    metadata: &Metadata,
    cipher: &Cipher,
    mac: Mac,
    options: OpenOptions,
) -> Result<(), SopsError> {
    if options.ignore_mac {
        return Ok(());
    }
    let stated = metadata.mac.as_deref().ok_or(SopsError::NoMac)?;
    let stated = cipher.open(stated, &metadata.last_modified);
    match stated.map_err(SopsError::MacUnreadable)? {
        Plaintext::Text(stated) if mac.is(stated.expose()) => Ok(()),
        _ => Err(SopsError::MacMismatch),
    }
}

/// The metadata of a stream: that of its first document.
fn block(stream: &Stream) -> Result<&Node, SopsError> {
    let documents = stream.documents.as_slice();
    let first = documents.first().ok_or(SopsError::NotEncrypted)?;
    let mut blocks =
        first.entries().iter().filter(|(key, _)| key.text() == Some("sops")).map(|(_, value)| value);
    match (blocks.next(), blocks.next()) {
        (Some(_), Some(_)) => Err(SopsError::TwoBlocks),
        (Some(block), None) if looks_like_metadata(block) || !matches!(block.kind, Kind::Mapping(_)) => {
            Ok(block)
        }
        _ if documents.iter().filter_map(|document| document.at("sops")).any(looks_like_metadata) => {
            Err(SopsError::FirstIsPlain)
        }
        _ if belongs_to_cluster(first) || !super::is_encrypted(stream) => Err(SopsError::NotEncrypted),
        _ => Err(SopsError::CutOff),
    }
}

/// Says that a newer sops wrote the file, where one did, since that may be why it cannot be read.
pub(super) fn newer(version: &str, error: SopsError) -> SopsError {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let written = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if written <= KNOWN {
        return error;
    }
    SopsError::Newer { major: written.0, minor: written.1, source: Box::new(error) }
}

/// A SOPS file cannot be opened. Names keys and lines, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SopsError {
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Nothing in it is encrypted.
    #[error("the file has no SOPS metadata")]
    NotEncrypted,
    /// Encrypted values, but no `sops` block.
    #[error(
        "the file holds encrypted values but no SOPS metadata: it is cut off, or its `sops` block was removed"
    )]
    CutOff,
    /// Metadata in a later document only.
    #[error(
        "the first document has no SOPS metadata, but a later one has\nhelp: encrypt all documents of a file together"
    )]
    FirstIsPlain,
    /// Not what sops writes for binary.
    #[error(
        "the file is not what sops writes for binary: it has no text under `data`\nhelp: name its format"
    )]
    NoData,
    /// A line of dotenv or INI.
    #[error("line {line}: expected {expected}")]
    Line {
        /// Which one.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Which of them?
    #[error("the key `sops` is there twice")]
    TwoBlocks,
    /// The metadata is not whole.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The data key stays sealed.
    #[error(transparent)]
    Keyring(KeyringError),
    /// The data key is not one.
    #[error(transparent)]
    Key(#[from] CipherError),
    /// A list or a text at the top.
    #[error("line {line}: the document is not a mapping")]
    Root {
        /// Where the document stands.
        line: usize,
    },
    /// A value cannot be opened, or cannot be what sops wrote.
    #[error("line {line}: `{path}`: {reason}")]
    Value {
        /// Where it stands.
        line: usize,
        /// Keys and indexes that lead to it.
        path: String,
        /// What is wrong.
        reason: ValueError,
    },
    /// The MAC was taken out.
    #[error("the file has no MAC\nhelp: {MAC_HELP}")]
    NoMac,
    /// The MAC itself is broken, or `lastmodified` was changed.
    #[error("the MAC of the file cannot be opened: {0}\nhelp: {MAC_HELP}")]
    MacUnreadable(CipherError),
    /// Something was changed without sops.
    #[error(
        "the MAC of the file does not match its values: a value was changed, added, removed or moved\nhelp: {MAC_HELP}"
    )]
    MacMismatch,
    /// Any of these, in a file of a sops that is not known yet.
    #[error("the file was written by sops {major}.{minor}, which is newer than any known here")]
    Newer {
        /// Of the version.
        major: u32,
        /// Of the version.
        minor: u32,
        /// What went wrong.
        source: Box<SopsError>,
    },
    /// A defect of ours.
    #[error(transparent)]
    Edit(#[from] EditError),
}

const MAC_HELP: &str = "change encrypted files with `strongroom edit` or `strongroom set` only; an operator can open the file as it is with `--ignore-mac`";

impl Fault for SopsError {
    fn class(&self) -> Class {
        match self {
            Self::Keyring(error) => error.class(),
            Self::Newer { source, .. } => source.class(),
            Self::Edit(error) => error.class(),
            _ => Class::Invalid,
        }
    }
}

/// What is wrong with one value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// AES-GCM or the grammar of values.
    #[error("{0}")]
    Cipher(#[from] CipherError),
    /// In plain text where the rule asks for encryption.
    #[error(
        "it is not encrypted, though the rule of the file says it is\nhelp: change encrypted files with `strongroom edit` or `strongroom set` only"
    )]
    Plain,
    /// A key of a mapping that is not a string to go-yaml.
    #[error("the key is not a string")]
    Key,
    /// The same key again.
    #[error("the key is there twice")]
    Duplicate,
    /// Beyond an `i64`.
    #[error("sops has no integer that large")]
    Large,
    /// Such as `!!int x`.
    #[error("it does not fit its tag")]
    Tag,
    /// Aliases in aliases.
    #[error("aliases expand beyond the limit")]
    Expands,
    /// Keys so long, above so many values, that nobody wrote them by hand.
    #[error("the keys that lead to the values of the file are too long")]
    Paths,
    /// A comment outside a list.
    #[error("it is a comment in the place of a value")]
    Comment,
    /// Not UTF-8, where the format is text.
    #[error("it is not text")]
    NotText,
    /// JSON has no way to write it.
    #[error("JSON cannot hold what it decrypts to")]
    Json,
}

#[cfg(test)]
mod tests {
    //! Files of the real sops, made by `e2e/fixtures/make-sops-vectors.sh`, and files sealed here for what sops
    //! would not write.

    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::document::value::Value;
    use crate::fault::report;
    use crate::sops::cipher::tests::{key, seal, seal_with};
    use crate::sops::is_encrypted;
    use crate::sops::shamir::tests::unhex;

    fn vectors() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/fixtures/sops")
    }

    fn vector(file: &str) -> String {
        std::fs::read_to_string(vectors().join(file)).unwrap()
    }

    fn data_key(name: &str) -> DataKey {
        let keys = vector("data-keys");
        unhex(keys.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap())
    }

    fn values(text: &str, format: Format) -> Vec<Value> {
        let stream = parse(text, format).unwrap();
        stream.documents.iter().map(|document| Value::of(document, &stream.anchors()).unwrap()).collect()
    }

    fn open_vector(name: &str, text: &str, format: Format) -> Result<Opened, SopsError> {
        SealedFile::read(text, format)?.open(&data_key(name), OpenOptions::default())
    }

    const VECTORS: [(&str, Format); 5] = [
        ("types", Format::Yaml),
        ("regex", Format::Yaml),
        ("mac-only", Format::Yaml),
        ("comments", Format::Yaml),
        ("values", Format::Json),
    ];

    fn extension(format: Format) -> &'static str {
        if format == Format::Json { "json" } else { "yaml" }
    }

    #[test]
    fn files_of_sops_open_to_what_sops_prints() {
        for (name, format) in VECTORS {
            let sealed = vector(&format!("{name}.enc.{}", extension(format)));
            let plain = vector(&format!("{name}.plain.{}", extension(format)));
            assert!(is_encrypted(&parse(&sealed, format).unwrap()));
            let opened = open_vector(name, &sealed, format).unwrap();
            let text = opened.text.expose();
            assert_eq!(values(text, format), values(&plain, format), "{name}");
            assert!(!text.contains("ENC["), "{text}");
            assert!(!is_encrypted(&parse(text, format).unwrap()));
            assert!(opened.leaves.contains(&Secret::new("STRONGROOM-MARKER".to_owned())));
            let comments = |text: &str| text.lines().filter(|line| line.trim().starts_with('#')).count();
            assert_eq!(comments(text), comments(&plain), "{name}");
        }
    }

    #[test]
    fn what_was_not_encrypted_stays_byte_for_byte() {
        let sealed = vector("regex.enc.yaml");
        let rewritten = sealed
            .replace("replicas: 3", "replicas: 0o3 # respelled\r")
            .replace("apiVersion: v1", "\napiVersion:   &v \"v1\"")
            .replace("        ratio: 0.5\n", "        ratio: 5e-1\n");
        let text = open_vector("regex", &rewritten, Format::Yaml).unwrap().text;
        let expected = [
            "\napiVersion:   &v \"v1\"",
            "kind: Secret",
            "metadata:",
            "    name: app",
            "    annotations:",
            "        replicas: 0o3 # respelled\r",
            "        ratio: 5e-1",
            "        \"on\": \"true\"",
            "stringData:",
            "    password: \"STRONGROOM-MARKER\"",
            "    port: \"5432\"\n",
        ];
        assert_eq!(text.expose(), &expected.join("\n"));
    }

    #[test]
    fn a_changed_file_is_refused() {
        let sealed = vector("regex.enc.yaml");
        let block = sealed.find("sops:").unwrap();
        let mac_start = sealed.find("    mac:").unwrap();
        let mac_end = mac_start + sealed[mac_start..].find('\n').unwrap() + 1;
        let password = sealed.find("    password: ").unwrap();
        let port = sealed.find("    port: ").unwrap();
        let swapped = format!(
            "{}    port: {}    password: {}{}",
            &sealed[..password],
            &sealed[password + "    password: ".len()..port],
            &sealed[port + "    port: ".len()..block],
            &sealed[block..]
        );
        let table = [
            (sealed.replace("name: app", "name: other"), "the MAC of the file does not match its values"),
            (
                sealed.replace("name: app", "name: 9223372036854775808"),
                "line 4: `metadata.name`: sops has no integer",
            ),
            (
                sealed.replace("    \"on\"", "    1"),
                "line 8: `metadata.annotations`: the key is not a string",
            ),
            (
                sealed.replace("kind: Secret", "kind: Secret\nkind: Secret"),
                "line 3: `kind`: the key is there twice",
            ),
            (sealed.replacen("20", "19", 1), "the MAC of the file cannot be opened: it was changed"),
            (format!("{}{}", &sealed[..mac_start], &sealed[mac_end..]), "the file has no MAC"),
            (
                sealed[..block].to_owned(),
                "the file holds encrypted values but no SOPS metadata: it is cut off",
            ),
            (
                sealed[..sealed.find("    lastmodified").unwrap()].to_owned(),
                "the SOPS metadata lacks `sops.lastmodified`",
            ),
            (sealed[..password + 80].to_owned(), "the file holds encrypted values but no SOPS metadata"),
            (swapped, "line 10: `stringData.port`: it was changed, moved to another key"),
            (
                sealed.replace("password: ENC", "password: plain ENC"),
                "line 10: `stringData.password`: it is not encrypted",
            ),
            (
                sealed
                    .replace("version: 3.11.0", "version: 4.0.1")
                    .replace("type:str]\n    port", "type:new]\n    port"),
                "the file was written by sops 4.0, which is newer than any known here: line 10: `stringData.password`: its type is not one that sops writes",
            ),
            (format!("a: 1\n---\n{sealed}"), "the first document has no SOPS metadata, but a later one has"),
            (format!("{sealed}---\n- x\n"), "line 28: the document is not a mapping"),
            (format!("{sealed}sops: {{}}\n"), "the key `sops` is there twice"),
            ("a: 1\n".to_owned(), "the file has no SOPS metadata"),
            (String::new(), "the file has no SOPS metadata"),
        ];
        for (text, message) in table {
            let text = if message.contains("cannot be opened") {
                let time = text.find("lastmodified: \"2").unwrap() + "lastmodified: \"".len();
                format!("{}1{}", &sealed[..time], &sealed[time + 1..])
            } else {
                text
            };
            let error = open_vector("regex", &text, Format::Yaml).unwrap_err();
            let told = report(&error);
            assert!(told.starts_with(message), "{told}\n{message}");
            assert!(!told.contains("MARKER") && !told.contains("5432"), "{told}");
            assert_eq!(error.class(), Class::Invalid);
        }
    }

    #[test]
    fn a_wrong_mac_can_be_ignored_but_no_value_that_is_changed() {
        let options = OpenOptions { ignore_mac: true, ..OpenOptions::default() };
        let changed = vector("regex.enc.yaml").replace("name: app", "name: other");
        let opened =
            SealedFile::read(&changed, Format::Yaml).unwrap().open(&data_key("regex"), options).unwrap();
        assert!(opened.text.expose().contains("name: other"));
        let broken = changed.replacen("GCM,data:", "GCM,data:AAAA", 1);
        let error =
            SealedFile::read(&broken, Format::Yaml).unwrap().open(&data_key("regex"), options).unwrap_err();
        assert!(error.to_string().contains("`stringData.password`: it was changed"), "{error}");
    }

    #[test]
    fn another_data_key_opens_nothing() {
        let error = SealedFile::read(&vector("regex.enc.yaml"), Format::Yaml)
            .unwrap()
            .open(&data_key("types"), OpenOptions::default())
            .unwrap_err();
        assert!(error.to_string().starts_with("line 10: `stringData.password`: it was changed"), "{error}");
    }

    const BLOCK: &str = "{age: [{recipient: r, enc: e}], lastmodified: '2020-01-02T03:04:05Z'}";

    /// Opens a file whose MAC nobody made.
    fn open_sealed(text: &str, format: Format) -> Result<String, SopsError> {
        let options = OpenOptions { ignore_mac: true, ..OpenOptions::default() };
        SealedFile::read(text, format)?.open(&key(), options).map(|opened| opened.text.expose().clone())
    }

    #[test]
    fn the_block_goes_wherever_it_stands() {
        let a = seal("x", "a:", "str");
        let table = [
            (format!("sops: {BLOCK}\na: {a}\n"), "a: \"x\"\n"),
            (format!("# c\n\nsops: {BLOCK} # c\n# d\na: {a}\n"), "# c\n\n# d\na: \"x\"\n"),
            (format!("a: {a}\nsops: {BLOCK}"), "a: \"x\"\n"),
            (format!("sops: {BLOCK}\n"), "{}\n"),
            (format!("---\n? sops\n: {BLOCK}\na: {a}\n"), "---\na: \"x\"\n"),
            (format!("{{a: {a}, sops: {BLOCK}}}\n").replace(&a, &format!("'{a}'")), "{a: \"x\"}\n"),
            (format!("{{sops: {BLOCK}, a: '{a}'}}"), "{a: \"x\"}"),
            (format!("{{sops: {BLOCK}}}"), "{}"),
            (
                format!("sops: {BLOCK}\na: {a}\n---\nsops: {BLOCK}\n---\n# empty\n"),
                "a: \"x\"\n---\n{}\n---\n# empty\n",
            ),
            (
                format!("sops: {BLOCK}\na: &x !!str {a}\nb: {{sops: {{mac: y}}, c_unencrypted: *x}}\n")
                    .replace("{mac: y}", "null"),
                "a: &x  \"x\"\nb: {sops: null, c_unencrypted: *x}\n",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(open_sealed(&text, Format::Yaml).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn comments_in_lists_are_comments_again() {
        let (c, x) = (seal(" c\nd", "l:", "comment"), seal("x", "l:", "str"));
        let table = [
            (format!("l:\n- {c}\n- {x}\n- {c}\n"), "l:\n# c d\n- \"x\"\n# c d\n"),
            (format!("l:\n  - {c}\n  - {c}\n"), "l:\n  [] # c d\n  # c d\n"),
            (format!("l:\n  - - {c}\n    - {x}\n  - - {c}\n"), "l:\n  - # c d\n    - \"x\"\n  - [] # c d\n"),
            (format!("l: ['{c}', '{x}', '{c}', '{c}', '{x}', '{c}']\n"), "l: [\"x\", \"x\"]\n"),
            (format!("l: ['{c}', '{c}',]\n"), "l: []\n"),
            (
                format!("# {}\nl:\n  #{c}\n- {x}\n", seal("top", ":", "comment")),
                "#top\nl:\n  # c d\n- \"x\"\n",
            ),
            (
                format!("m:\n  l: 'x'\n  #{}\n", seal("end", "m:", "comment"))
                    .replace("'x'", &seal("x", "m:l:", "str")),
                "m:\n  l: \"x\"\n  #end\n",
            ),
        ];
        for (text, expected) in table {
            let text = format!("{text}sops: {BLOCK}\n");
            let opened = open_sealed(&text, Format::Yaml).unwrap();
            assert_eq!(opened, expected);
            assert!(parse(&opened, Format::Yaml).is_ok(), "{opened}");
        }
        let json = format!(
            r#"{{"l": ["{c}", "{x}"], "sops": {{"age": [{{"recipient": "r", "enc": "e"}}], "lastmodified": "2020-01-02T03:04:05Z"}}}}"#
        );
        assert_eq!(open_sealed(&json, Format::Json).unwrap(), r#"{"l": ["x"]}"#);
    }

    #[test]
    fn values_keep_their_type() {
        let table = [
            ("5", "int", "5", Some("5")),
            ("10000000000", "float", "1e+10", Some("10000000000")),
            ("NaN", "float", ".nan", None),
            ("True", "bool", "true", Some("true")),
            ("2020-01-02T00:00:00Z", "time", "2020-01-02T00:00:00Z", Some("\"2020-01-02T00:00:00Z\"")),
            ("a\n\u{85}", "str", r#""a\n\u0085""#, Some(r#""a\n\u0085""#)),
        ];
        for (text, kind, yaml, json) in table {
            let value = seal(text, "a:", kind);
            let opened = open_sealed(&format!("a: {value}\nsops: {BLOCK}\n"), Format::Yaml).unwrap();
            assert_eq!(opened, format!("a: {yaml}\n"));
            let block =
                r#"{"age": [{"recipient": "r", "enc": "e"}], "lastmodified": "2020-01-02T03:04:05Z"}"#;
            let opened = open_sealed(&format!(r#"{{"a":"{value}","sops":{block}}}"#), Format::Json);
            match json {
                Some(json) => assert_eq!(opened.unwrap(), format!(r#"{{"a":{json}}}"#)),
                None => assert!(opened.unwrap_err().to_string().contains("JSON cannot hold")),
            }
        }
        let bytes = seal_with::<aes_gcm::aead::consts::U32>(b"\xff\x00", "a:", "str");
        let opened = open_sealed(&format!("a: {bytes}\nsops: {BLOCK}\n"), Format::Yaml).unwrap();
        assert_eq!(opened, "a: !!binary \"/wA=\"\n");
    }

    #[test]
    fn aliases_do_not_multiply_the_work() {
        let bomb: String = (1..40).fold("a0_unencrypted: &a0 [x]\n".to_owned(), |text, level| {
            let before = level - 1;
            format!("{text}a{level}_unencrypted: &a{level} [*a{before}, *a{before}, *a{before}]\n")
        });
        for text in [bomb, "a_unencrypted: &a [*a]\n".to_owned()] {
            let error = open_sealed(&format!("{text}sops: {BLOCK}\n"), Format::Yaml).unwrap_err();
            assert!(error.to_string().ends_with("aliases expand beyond the limit"), "{error}");
        }
    }

    #[test]
    fn long_keys_do_not_multiply_the_work() {
        let name = "a".repeat(5 << 20);
        // A comment counts as often as it may be tried.
        let comment = seal("c", "elsewhere:", "comment");
        let item = seal("x", "elsewhere:", "str");
        let text = format!("? {name}\n:\n  #{comment}\n  - {item}\nsops: {BLOCK}\n");
        let error = open_sealed(&text, Format::Yaml).unwrap_err().to_string();
        assert!(
            error.ends_with("a…`: the keys that lead to the values of the file are too long"),
            "{}",
            error.len()
        );
        assert!(error.len() < 300);
    }

    #[test]
    fn the_deepest_file_is_opened() {
        let depth = crate::document::MAX_DEPTH - 1; // One level is the mapping around it.
        let text = format!("a_unencrypted: {}{}\nsops: {BLOCK}\n", "[".repeat(depth), "]".repeat(depth));
        assert!(open_sealed(&text, Format::Yaml).is_ok());
    }

    #[test]
    fn what_is_no_sops_file_is_told_apart() {
        let table = [
            ("a: 1", false),
            ("sops: {enabled: true}", false),
            ("a: {sops: {mac: m, lastmodified: l}}", false),
            ("sops: {mac: m, lastmodified: l}", true),
            ("a: [{b: 'ENC[AES256_GCM,data:x'}]", true),
            (
                "apiVersion: isindir.github.com/v1alpha3\nkind: SopsSecret\na: 'ENC[AES256_GCM,data:x'\nsops: {mac: m}",
                false,
            ),
            ("s: {a: {b: 'ENC[AES256_GCM,data:x'}, sops: {mac: m}}", false),
            ("l: [{s: {apiVersion: v1, kind: SopsSecret, a: 'ENC[AES256_GCM,data:x'}}]", false),
            ("s: {a: 'ENC[AES256_GCM,data:x', sops: {enabled: true}}", true),
            ("s: {a: 'ENC[AES256_GCM,data:x', sops: {mac: m}}\nt: 'ENC[AES256_GCM,data:x'", true),
            ("s: {a: 'ENC[AES256_GCM,data:x', sops: {mac: m}}\nsops: {mac: m}", true),
            ("- 1", false),
            ("", false),
        ];
        for (text, expected) in table {
            assert_eq!(is_encrypted(&parse(text, Format::Yaml).unwrap()), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_keyring_without_the_key_says_so() {
        let sealed = vector("regex.enc.yaml");
        let file = SealedFile::read(&sealed, Format::Yaml).unwrap();
        let (keyring, scope) = (Keyring::default(), Scope::default());
        let error = file.open_with(&keyring, &scope, OpenOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains("age"), "{error}");
        assert!(matches!(error, SopsError::Keyring(_)));
    }

    proptest! {
        #[test]
        fn damaged_files_never_open_to_something_else(at in 0_usize..1200, byte in any::<u8>()) {
            let sealed = vector("regex.enc.yaml");
            let mut bytes = sealed.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
            if let Ok(opened) = open_vector("regex", &text, Format::Yaml) {
                let secret = values(opened.text.expose(), Format::Yaml).remove(0);
                let password = secret.pick(&["stringData", "password"]).cloned();
                prop_assert_eq!(password.ok(), Some(Value::from("STRONGROOM-MARKER")));
            }
        }

        #[test]
        fn any_sealed_text_comes_back(text in "(?s).{1,30}", name in "[a-z:]{1,9}") {
            let value = seal(&text, &format!("{name}:"), "str");
            let file = format!("'{name}': {value}\nsops: {BLOCK}\n");
            let opened = open_sealed(&file, Format::Yaml).unwrap();
            let read = values(&opened, Format::Yaml).remove(0);
            prop_assert_eq!(read.pick(&[&name]).ok(), Some(&Value::from(text.as_str())));
        }
    }
}
