//! SOPS files against the real sops: what it seals, the product opens, and what was changed since, it refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Read;
use std::time::Duration;

use strongroom::document::value::Value;
use strongroom::document::{Format, parse};
use strongroom::secret::Secret;
use strongroom::sops::keys::{DataKey, SealedKey};
use strongroom::sops::open::{OpenOptions, SealedFile};
use support::MARKER;
use support::delay::Delay;
use support::differential::{Bench, Sealer, assert_flat, assert_same, json_cases, yaml_cases};
use support::documents::{binary, dotenv, ini};
use support::keys::{AgeKey, KeysFolder};
use support::moto::{REGION, moto};
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::sops::{encrypt, encrypt_by, sops};

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

const PLAIN_SCALARS: &str = "\
int_unencrypted: 493
float_unencrypted: 1.5
large_unencrypted: 10000000000.0
bool_unencrypted: true
text_unencrypted: \"yes\"
time_unencrypted: 2020-01-02
null_unencrypted: null
password: STRONGROOM-MARKER
";

/// How a plain value may be spelled without sops, and whether the MAC still fits: it is made of what go-yaml reads.
const SPELLINGS: [(&str, &str, bool); 34] = [
    ("int", "0755", true),
    ("int", "0o755", true),
    ("int", "0x1ED", true),
    ("int", "0b111101101", true),
    ("int", "4_93", true),
    ("int", "+493", true),
    ("int", "493.0", true),
    ("int", "'493'", true),
    ("int", "!!str 493", true),
    ("int", "!!float 493", true),
    ("int", "'0755'", false),
    ("int", "0493", true),
    ("int", "494", false),
    ("float", "1.50", true),
    ("float", "15e-1", true),
    ("float", "'1.5'", true),
    ("float", "1.5_", true),
    ("float", "1,5", false),
    ("large", "1e+10", true),
    ("large", "1e10", true),
    ("large", "10000000000", true),
    ("large", "'1e+10'", false),
    ("bool", "True", true),
    ("bool", "TRUE", true),
    ("bool", "'True'", true),
    ("bool", "'true'", false),
    ("bool", "yes", false),
    ("text", "yes", true),
    ("text", "on", false),
    ("time", "2020-01-02T00:00:00Z", true),
    ("time", "'2020-01-02'", false),
    ("null", "~", true),
    ("null", "", true),
    ("null", "'null'", false),
];

#[test]
fn the_mac_covers_plain_scalars_as_sops_reads_them() {
    let (repository, age) = (Repository::new(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let sealed = encrypt(&repository.write("a.yaml", PLAIN_SCALARS), &["--age", &age.recipient]);
    let sealed = std::fs::read_to_string(sealed).unwrap();
    for (key, spelling, fits) in SPELLINGS {
        let changed: String = sealed
            .lines()
            .map(|line| match line.strip_prefix(key) {
                Some(rest) if rest.starts_with("_unencrypted:") => format!("{key}_unencrypted: {spelling}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        repository.write("changed.yaml", changed);
        let ours = strongroom().env("STRONGROOM_KEYS_DIR", keys.path());
        let theirs = sops().env("SOPS_AGE_KEY", &age.identity);
        for run in [theirs, ours] {
            let output = run.directory(repository.path()).args(["decrypt", "changed.yaml"]).output();
            let expected = if fits { 0 } else { 51 };
            assert_eq!(output.status.code(), Some(expected), "{key}: {spelling}: {}", output.stderr);
        }
    }
}

#[test]
fn metadata_that_other_tools_rewrote_is_read() {
    let (repository, age) = (Repository::new(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let seal = |name: &str, plain: &str| {
        let file = encrypt(&repository.write(name, plain), &["--age", &age.recipient]);
        std::fs::read_to_string(file).unwrap()
    };
    let (yaml, json) =
        (seal("a.yaml", "a: STRONGROOM-MARKER\n"), seal("a.json", r#"{"a": "STRONGROOM-MARKER"}"#));
    let time = yaml.split_once("lastmodified: ").unwrap().1.lines().next().unwrap();
    let age_list = yaml.split_once("    age:\n").unwrap().1.split_once("    lastmodified").unwrap().0;
    for (name, changed) in [
        ("version.yaml", yaml.replace("version: 3.13.3", "version: 3.7")),
        ("no-version.yaml", yaml.replace("    version: 3.13.3\n", "")),
        ("time.yaml", yaml.replace(time, time.trim_matches('"'))),
        ("nulls.yaml", yaml.replace("    age:\n", "    kms: null\n    pgp: []\n    hc_vault:\n    age:\n")),
        ("unknown.yaml", yaml.replace("    age:\n", "    later: {things: [1]}\n    age:\n")),
        ("names.yaml", yaml.replace("    lastmodified", "    lastModified")),
        ("first.yaml", yaml.replace("sops:\n", "sops: # block\n")),
        (
            "created.yaml",
            yaml.replace(
                "    age:\n",
                "    pgp:\n        - fp: AAAAAAAAAAAAAAAA\n          enc: x\n    age:\n",
            ),
        ),
        (
            "group.yaml",
            yaml.replace(
                &format!("    age:\n{age_list}"),
                &format!("    key_groups:\n        - age:\n{}", age_list.replace("        ", "            ")),
            ),
        ),
        ("version.json", json.replace("\"3.13.3\"", "3.7")),
    ] {
        assert!(changed != yaml && changed != json, "{name} is as sops wrote it");
        repository.write(name, changed);
        let ours = strongroom().env("STRONGROOM_KEYS_DIR", keys.path()).directory(repository.path());
        assert!(ours.args(["decrypt", name]).ok().contains(MARKER), "{name}");
    }
}

#[test]
fn a_wrong_or_missing_mac_is_for_the_operator_to_ignore() {
    let (repository, age) = (Repository::with_secret_chart(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let file = repository.write("app/a.yaml", "password: STRONGROOM-MARKER\nimage_unencrypted: app:1.0\n");
    let sealed = std::fs::read_to_string(encrypt(&file, &["--age", &age.recipient])).unwrap();
    let without: String =
        sealed.lines().filter(|line| !line.starts_with("    mac:")).map(|line| format!("{line}\n")).collect();
    for changed in [sealed.replace("app:1.0", "app:1.1"), without] {
        repository.write("app/a.yaml", &changed);
        let product = |run: Run| run.env("STRONGROOM_KEYS_DIR", keys.path());
        let theirs =
            sops().env("SOPS_AGE_KEY", &age.identity).args(["decrypt", "--ignore-mac"]).arg(&file).ok();
        let ours = product(strongroom()).args(["decrypt", "--ignore-mac"]).arg(&file).ok();
        assert_eq!(ours.replace("\"STRONG", "STRONG").replace("MARKER\"", "MARKER"), theirs);
        let render = || {
            let parameters = r#"[{"name":"valueFiles","array":["a.yaml"]}]"#;
            product(generate(&repository, "app")).env("ARGOCD_APP_PARAMETERS", parameters)
        };
        assert!(render().env("STRONGROOM_IGNORE_MAC", "true").ok().contains("password: "));
        // All that an Application says arrives under this prefix.
        let said = ["ARGOCD_ENV_STRONGROOM_IGNORE_MAC", "ARGOCD_ENV_IGNORE_MAC", "PARAM_IGNORE_MAC"];
        let message = said.iter().fold(render(), |run, name| run.env(name, "true")).fails();
        assert!(message.contains("a.yaml") && message.contains("MAC"), "{message}");
        assert!(!message.contains(MARKER), "{message}");
        let ciphertext = changed.replacen("data:", "data:AAAA", 1);
        repository.write("app/a.yaml", ciphertext);
        let message = product(strongroom()).args(["decrypt", "--ignore-mac"]).arg(&file).fails();
        assert!(message.contains("`password`: it was changed"), "{message}");
    }
}

/// Files of one chart, opened by `generate`, where the KMS of moto is behind a proxy that counts.
struct FarKms {
    repository: Repository,
    proxy: Delay,
}

impl FarKms {
    fn new() -> Self {
        let proxy = Delay::before(&moto().url(), Duration::from_millis(1));
        Self { repository: Repository::with_secret_chart(), proxy }
    }

    fn seal(&self, name: &str, keys: &[&str]) -> String {
        let file = self.repository.write(format!("app/{name}"), "password: STRONGROOM-MARKER\n");
        std::fs::read_to_string(encrypt_by(sops().envs(moto().environment()), &file, keys)).unwrap()
    }

    fn decrypt(&self, name: &str) -> Run {
        strongroom()
            .envs(moto().environment())
            .env("AWS_ENDPOINT_URL", self.proxy.url())
            .directory(self.repository.path().join("app"))
            .args(["decrypt", name])
    }

    fn assert_opens(&self, run: Run, requests: usize) {
        self.proxy.asked();
        assert_eq!(run.ok(), "password: \"STRONGROOM-MARKER\"\n");
        assert_eq!(self.proxy.asked(), requests);
    }
}

#[test]
fn kms_is_asked_in_the_region_of_the_key_and_either_of_two_regions_opens() {
    let far = FarKms::new();
    let elsewhere = moto().create_key_in("us-west-2");
    far.seal("elsewhere.yaml", &["--kms", &elsewhere]);
    assert!(elsewhere.contains(":us-west-2:") && REGION != "us-west-2");
    far.assert_opens(far.decrypt("elsewhere.yaml"), 1);
    far.assert_opens(far.decrypt("elsewhere.yaml").without_env("AWS_REGION"), 1);

    // Where the key of one region is gone, that of the other still opens what is sealed to both.
    let home = moto().create_key();
    let both = far.seal("both.yaml", &["--kms", &format!("{elsewhere},{home}")]);
    far.repository.write("app/gone.yaml", both.replace(":us-west-2:", ":eu-south-1:"));
    for name in ["both.yaml", "gone.yaml"] {
        assert_eq!(far.decrypt(name).ok(), "password: \"STRONGROOM-MARKER\"\n", "{name}");
    }
}

#[test]
fn the_role_and_the_profile_of_a_kms_key_are_taken() {
    let far = FarKms::new();
    let arn = moto().create_key();
    far.seal("role.yaml", &["--kms", &format!("{arn}+arn:aws:iam::123456789012:role/sops")]);
    far.assert_opens(far.decrypt("role.yaml"), 2);

    let profiles = "[profile team]\naws_access_key_id = test\naws_secret_access_key = test\n";
    let profiles = far.repository.write("aws-config", profiles);
    let sealer = sops().envs(moto().environment()).env("AWS_CONFIG_FILE", &profiles);
    let file = far.repository.write("app/profile.yaml", "password: STRONGROOM-MARKER\n");
    encrypt_by(sealer, &file, &["--kms", &arn, "--aws-profile", "team"]);
    let decrypt = || {
        let run = far.decrypt("profile.yaml").without_env("AWS_ACCESS_KEY_ID");
        run.without_env("AWS_SECRET_ACCESS_KEY").env("AWS_CONFIG_FILE", &profiles)
    };
    far.assert_opens(decrypt(), 1);
    let message = decrypt().env("AWS_CONFIG_FILE", "/nonexistent").fails();
    assert!(message.contains(&arn) && message.contains("credentials"), "{message}");
}

#[test]
fn keys_that_need_no_network_come_first_and_a_service_is_asked_once_for_each_data_key() {
    let far = FarKms::new();
    let (arn, age) = (moto().create_key(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    far.seal("both.yaml", &["--kms", &arn, "--age", &age.recipient]);
    far.assert_opens(far.decrypt("both.yaml").env("STRONGROOM_KEYS_DIR", keys.path()), 0);
    far.assert_opens(far.decrypt("both.yaml"), 1);

    let (one, two) = (far.seal("one.yaml", &["--kms", &arn]), far.seal("two.yaml", &["--kms", &arn]));
    let names: Vec<_> = (0..12).map(|number| format!("{number}.yaml")).collect();
    for (number, name) in names.iter().enumerate() {
        far.repository.write(format!("app/{name}"), if number % 2 == 0 { &one } else { &two });
    }
    let parameters = serde_json::json!([{"name": "valueFiles", "array": names}]).to_string();
    let render = generate(&far.repository, "app").envs(moto().environment());
    far.proxy.asked();
    render.env("AWS_ENDPOINT_URL", far.proxy.url()).env("ARGOCD_APP_PARAMETERS", parameters).ok();
    assert_eq!(far.proxy.asked(), 2, "requests for 12 files of 2 data keys");
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
