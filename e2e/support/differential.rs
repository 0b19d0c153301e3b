//! The product and the real sops side by side: sops seals random files, both open them, and helm says what each holds.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Map, Value};

use super::documents::{Dice, Yaml, json_object};
use super::helm::helm_bare;
use super::keys::{AgeKey, GpgHome, KeysFolder};
use super::process::Run;
use super::product::strongroom;
use super::repository::Repository;
use super::sops::sops_of;

/// Which values are encrypted, as fields of a creation rule.
const RULES: [&str; 12] = [
    "",
    "encrypted_regex: ^(data|key|a)$",
    "unencrypted_regex: e",
    "encrypted_suffix: _unencrypted",
    "unencrypted_suffix: y",
    "mac_only_encrypted: true\n    encrypted_regex: ^(b|key)$",
    "encrypted_comment_regex: head",
    "unencrypted_comment_regex: head",
    "mac_only_encrypted: true",
    "encrypted_regex: ^(?!x)",
    "mac_only_encrypted: true\n    unencrypted_suffix: ed",
    "mac_only_encrypted: true\n    encrypted_comment_regex: é",
];
const PER_FILE: usize = 7;
const AT_ONCE: usize = 4;

/// One file that was sealed and opened.
#[derive(Debug)]
pub struct Case {
    number: usize,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    /// By sops itself.
    reference: Vec<u8>,
    opened: Vec<u8>,
    /// Whether what sops opens is what the plain file says, as helm reads it.
    exact: bool,
}

/// Everything that files are sealed and opened with.
#[derive(Debug)]
pub struct Bench {
    repository: Repository,
    age: AgeKey,
    other: AgeKey,
    gpg: GpgHome,
    fingerprint: String,
    age_folder: KeysFolder,
    pgp_folder: KeysFolder,
    both_folder: KeysFolder,
}

impl Bench {
    /// New keys of both kinds.
    pub fn new() -> Self {
        let (age, gpg) = (AgeKey::new(), GpgHome::new());
        let fingerprint = gpg.generate("rsa2048");
        let export = gpg.export(&fingerprint);
        let age_folder = || KeysFolder::new().with("key.txt", &age.identity);
        Self {
            repository: Repository::new(),
            age_folder: age_folder(),
            pgp_folder: KeysFolder::new().with("key.asc", &export),
            both_folder: age_folder().with("key.asc", &export),
            other: AgeKey::new(),
            age,
            gpg,
            fingerprint,
        }
    }

    /// Master keys as fields of a creation rule, and what opens them: one of two age keys, OpenPGP beside an age key
    /// that nobody has, or two groups of three.
    fn keys(&self, number: usize) -> (String, &KeysFolder) {
        let (pgp, age, other) = (&self.fingerprint, &self.age.recipient, &self.other.recipient);
        match number % 5 {
            0..=2 => (format!("age: {other},{age}"), &self.age_folder),
            3 => (format!("pgp: {pgp}\n    age: {other}"), &self.pgp_folder),
            _ => {
                let groups = format!("[{{age: [{other}]}}, {{age: [{other}, {age}]}}, {{pgp: [{pgp}]}}]");
                (format!("shamir_threshold: 2\n    key_groups: {groups}"), &self.both_folder)
            }
        }
    }

    /// Seals and opens `plain`, in the file `name`, whose number picks the sops, the rule and the keys.
    pub fn case(&self, sealer: Sealer, number: usize, name: &str, plain: Vec<u8>, exact: bool) -> Case {
        let sops = |version: &str| {
            sops_of(version)
                .env("GNUPGHOME", self.gpg.path())
                .env("SOPS_AGE_KEY", &self.age.identity)
                .directory(self.repository.path())
        };
        let file = self.repository.write(name, &plain);
        let (keys, folder) = self.keys(number);
        let config = format!("creation_rules:\n  - {keys}\n    {}\n", rule(number));
        let config = self.repository.write(format!("{name}.config"), config);
        let version = if number.is_multiple_of(2) { "sops" } else { "sops-min" };
        sops(version).arg("--config").arg(&config).args(["encrypt", "--in-place"]).arg(&file).ok();
        let sealed = std::fs::read(&file).unwrap();
        let reference = stdout_of(sops("sops").arg("decrypt").arg(&file));
        let product =
            || strongroom().env("STRONGROOM_KEYS_DIR", folder.path()).directory(self.repository.path());
        if sealer == Sealer::Sops {
            let opened = stdout_of(product().arg("decrypt").arg(&file));
            return Case { number, plain, sealed, reference, opened, exact };
        }
        self.repository.write(name, &plain);
        product().arg("encrypt").arg("--config").arg(config).arg("--in-place").arg(&file).ok();
        let sealed = std::fs::read(&file).unwrap();
        let opened = stdout_of(sops(version).arg("decrypt").arg(&file));
        Case { number, plain, sealed, reference, opened, exact }
    }
}

/// Who seals a random file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sealer {
    /// sops, and the product opens it.
    Sops,
    /// The product, and sops opens it: what it opens is to be what it opens of its own.
    Product,
}

/// What a run prints, be it text or not.
fn stdout_of(run: Run) -> Vec<u8> {
    let output = run.into_command().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn rule(number: usize) -> &'static str {
    RULES[number / 2 % RULES.len()]
}

/// `files` YAML files, several documents each.
pub fn yaml_cases(bench: &Bench, sealer: Sealer, seed: u64, files: usize) -> Vec<Case> {
    cases(files, |number| {
        let mut dice = Dice::new(seed.wrapping_add(number as u64));
        let other = number % 3 == 0;
        // sops cannot open its own file then: an item that is a comment is in its MAC when sealed and not when opened.
        let list_comments = !rule(number).contains("comment");
        let mut yaml = Yaml { dice: &mut dice, other, list_comments, anchors: 0 };
        let mut plain = String::new();
        for index in 0..PER_FILE {
            let separator = if index > 0 && yaml.dice.once_in(3) { "---\n" } else { "" };
            write!(plain, "{separator}{}", yaml.document(&format!("f{number}d{index}"))).unwrap();
        }
        if sealer == Sealer::Product && rule(number).contains("comment") {
            // Where it is not certain what such a comment decides, the file is refused.
            plain = plain.replace("# head é", "# note");
        }
        bench.case(sealer, number, &format!("{number}.yaml"), plain.into_bytes(), !other)
    })
}

/// `files` JSON files, several objects each.
pub fn json_cases(bench: &Bench, sealer: Sealer, seed: u64, files: usize) -> Vec<Case> {
    cases(files, |number| {
        let mut dice = Dice::new(seed.wrapping_add(number as u64));
        let objects = (0..PER_FILE).map(|index| (format!("f{number}d{index}"), json_object(&mut dice, 3)));
        let plain = Value::Object(objects.collect());
        let plain = if number % 3 == 0 { plain.to_string() } else { format!("{plain:#}\n") };
        bench.case(sealer, number, &format!("{number}.json"), plain.into_bytes(), true)
    })
}

/// `files` files of a format whose text sops writes back as the product does, or that is no text.
pub fn assert_flat(
    bench: &Bench,
    sealer: Sealer,
    seed: u64,
    files: usize,
    extension: &str,
    make: impl Fn(&mut Dice) -> Vec<u8> + Sync,
) {
    let cases = cases(files, |number| {
        let plain = make(&mut Dice::new(seed.wrapping_add(number as u64)));
        bench.case(sealer, number, &format!("{number}.{extension}"), plain, false)
    });
    for case in cases {
        let (sealed, reference) = (text(&case.sealed), text(&case.reference));
        assert!(case.opened == case.reference, "{}\n---\n{reference}\n---\n{sealed}", text(&case.opened));
    }
}

/// Makes all cases, some at once.
fn cases(files: usize, make: impl Fn(usize) -> Case + Sync) -> Vec<Case> {
    let (next, made) = (Mutex::new(0..files), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(number) = { next.lock().unwrap().next() } {
                    let case = make(number);
                    made.lock().unwrap().push(case);
                }
            });
        }
    });
    made.into_inner().unwrap()
}

/// Asserts that helm reads every opened file as it reads what sops opens, and the plain file where sops keeps that.
pub fn assert_same(cases: &[Case]) {
    let plain = read_by_helm(cases, |case| &case.plain);
    let reference = read_by_helm(cases, |case| &case.reference);
    let opened = read_by_helm(cases, |case| &case.opened);
    for case in cases {
        for index in 0..PER_FILE {
            let key = format!("f{}d{index}", case.number);
            let value = opened.get(&key).unwrap_or_else(|| panic!("helm has no values of {key}"));
            assert_eq!(Some(value), reference.get(&key), "{key}: sops opens\n{}", text(&case.reference));
            if case.exact {
                assert_eq!(Some(value), plain.get(&key), "{key}: what was sealed is\n{}", text(&case.plain));
            }
        }
    }
}

/// What `helm template` has as `.Values`, given the documents of all files at once.
fn read_by_helm(cases: &[Case], bytes: impl Fn(&Case) -> &[u8]) -> Map<String, Value> {
    let chart = Repository::new();
    chart.write("Chart.yaml", "apiVersion: v2\nname: differential\nversion: 0.1.0\n");
    chart.write("templates/values.yaml", "values: {{ .Values | toJson | b64enc }}\n");
    let mut flags = Vec::new();
    for case in cases {
        for (index, document) in std::str::from_utf8(bytes(case)).unwrap().split("---\n").enumerate() {
            let file = chart.write(format!("values/{}-{index}.yaml", case.number), document);
            flags.extend(["-f".into(), file.into_os_string()]);
        }
    }
    let manifest = helm_bare("helm", chart.path()).args(flags).ok();
    let values =
        manifest.lines().find_map(|line| line.strip_prefix("values: ")).expect("the chart prints one line");
    serde_json::from_slice(&STANDARD.decode(values).unwrap()).expect("`toJson` gives JSON")
}
