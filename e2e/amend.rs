//! Encrypted files that the product changes, against the real sops: it opens them, to what it makes of them itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_yaml::Value;

use support::MARKER;
use support::desk::Desk;
use support::documents::{Dice, Yaml, dotenv, ini, json_object};
use support::keys::{AgeKey, GpgHome, KeysFolder};
use support::process::Output;

/// A file of each format, as it is before sops encrypts it.
const PLAIN: [(&str, &str); 5] = [
    (
        "a.yaml",
        "\
# of the file
a: STRONGROOM-MARKER # behind a
b:
    # of c
    c: [1, 2, {d: x}]
    f: 1.5
    t: 2020-01-02
    z: null
    e: {}
l:
    - one
    - k: v
      # of m
      m: |
        lines
        of text
    - []
n_unencrypted:
    image: app
    tag: 1
# at the end
---
a: second
",
    ),
    (
        "a.json",
        r#"{"a": "STRONGROOM-MARKER", "b": {"c": [1, 2, {"d": "<x>"}], "e": {}, "z": null}, "l": [true]}"#,
    ),
    ("a.env", "# of A\nA=STRONGROOM-MARKER\nB=two words\nC_unencrypted=3\nD=a\\nb\n"),
    ("a.ini", "top = 1\n\n; of s\n[s]\n; of a\na = STRONGROOM-MARKER\nb = x y\n\n[t]\nc = 1\n"),
    ("a.bin", "STRONGROOM-MARKER\n\u{0}\n"),
];

/// A desk with every file encrypted by sops.
fn desk() -> Desk {
    let desk = Desk::new();
    for (name, plain) in PLAIN {
        desk.repository.write(name, plain);
        desk.sops().args(["encrypt", "--age", &desk.age.recipient, "-i", name]).ok();
    }
    desk
}

/// What the text says, document by document; text itself where it is no YAML.
fn said(name: &str, text: &str) -> Vec<Value> {
    if name.ends_with("yaml") || name.ends_with("json") {
        use serde::Deserialize;
        return serde_yaml::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
    }
    // sops aligns the keys of INI and has an empty line between sections.
    let words = text.lines().filter(|line| !line.is_empty());
    words.map(|line| Value::String(line.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// Everything encrypted in a file but its MAC, which is another one as soon as a second has passed.
fn ciphertexts(text: &str) -> BTreeSet<&str> {
    let is_mac = |at: usize| text[..at].trim_end_matches([' ', '"', ':', '=']).ends_with("mac");
    let found = text.match_indices("ENC[").filter(|(at, _)| !is_mac(*at));
    found.map(|(at, _)| &text[at..at + text[at..].find(']').unwrap()]).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_value_is_extracted_as_sops_extracts_it() {
    let desk = desk();
    for (name, path) in [
        ("a.yaml", r#"["a"]"#),
        ("a.yaml", r#"["b"]"#),
        ("a.yaml", r#"["b"]["c"]"#),
        ("a.yaml", r#"["b"]["c"][0]"#),
        ("a.yaml", r#"["b"]["c"][2]"#),
        ("a.yaml", "['b']['f']"),
        ("a.yaml", r#"["b"]["t"]"#),
        ("a.yaml", r#"["b"]["z"]"#),
        ("a.yaml", r#"["b"]["e"]"#),
        ("a.yaml", r#"["l"][1]"#),
        ("a.yaml", r#"["l"][1]["m"]"#),
        ("a.yaml", r#"["n_unencrypted"]"#),
        ("a.yaml", r#"["z"]"#),
        ("a.yaml", r#"["l"][9]"#),
        ("a.yaml", "a"),
        ("a.yaml", r#"["a"#),
        ("a.json", r#"["b"]"#),
        ("a.json", r#"["b"]["c"]"#),
        ("a.json", r#"["b"]["c"][2]["d"]"#),
        ("a.json", r#"["l"][0]"#),
        ("a.json", r#"["z"]"#),
        ("a.env", r#"["D"]"#),
        ("a.env", r#"["Z"]"#),
        ("a.ini", r#"["s"]["b"]"#),
        ("a.ini", r#"["s"]"#),
        ("a.ini", r#"["DEFAULT"]["top"]"#),
        ("a.bin", r#"["data"]"#),
        ("a.bin", r#"["x"]"#),
    ] {
        let (ours, theirs) = [desk.product(), desk.sops()]
            .map(|run| run.args(["decrypt", "--extract", path, name]).output())
            .into();
        assert_eq!(code(&ours), code(&theirs), "{name} {path}: {}", ours.stderr);
        if ours.stdout != theirs.stdout {
            // Behind a mapping sops prints the other documents of the file too.
            let theirs_said = said(name, &theirs.stdout).into_iter().take(1);
            assert_eq!(said(name, &ours.stdout), theirs_said.collect::<Vec<_>>(), "{name} {path}");
            assert_eq!(ours.stdout.ends_with('\n'), theirs.stdout.ends_with('\n'), "{name} {path}");
        }
    }
    let output = desk.product().args(["decrypt", "--extract", r#"["a"]"#, "--output", "out", "a.yaml"]).ok();
    assert_eq!((output.as_str(), desk.read("out").as_str()), ("", MARKER));
}

/// Runs the same on a file that the product is to change and on a copy that sops is to change.
fn both(desk: &Desk, name: &str, arguments: &[&str]) -> (Output, Output) {
    desk.repository.write(format!("ours/{name}"), fs::read(desk.path(name)).unwrap());
    desk.repository.write(format!("theirs/{name}"), fs::read(desk.path(name)).unwrap());
    let run = |run: support::process::Run, folder: &str| {
        let (command, rest) = arguments.split_first().unwrap();
        let (flags, rest) =
            rest.split_at(rest.iter().take_while(|argument| argument.starts_with("--")).count());
        run.directory(desk.path(folder)).arg(command).args(flags).arg(name).args(rest).output()
    };
    (run(desk.product(), "ours"), run(desk.sops(), "theirs"))
}

/// Asserts that sops opens what the product made to what it opens of its own, and that no more was encrypted anew than
/// the new values.
fn assert_changed(desk: &Desk, name: &str, arguments: &[&str], new: usize) {
    let (ours, theirs) = both(desk, name, arguments);
    assert_eq!(
        (code(&ours), code(&theirs)),
        (0, 0),
        "{name} {arguments:?}: {} {}",
        ours.stderr,
        theirs.stderr
    );
    assert_eq!(ours.everything(), "");
    let opened = |folder: &str| desk.sops().arg("decrypt").arg(format!("{folder}/{name}")).ok();
    assert_eq!(said(name, &opened("ours")), said(name, &opened("theirs")), "{name} {arguments:?}");
    let (before, after) = (desk.read(name), desk.read(&format!("ours/{name}")));
    let fresh = ciphertexts(&after).difference(&ciphertexts(&before)).count();
    assert_eq!(fresh, new, "{name} {arguments:?}\n{before}\n{after}");
    assert!(!after.contains(MARKER), "{after}");
    let comments = |text: &str| text.matches("type:comment").count();
    assert_eq!(comments(&after), comments(&before), "{name} {arguments:?}");
    let armor = |text: &str| {
        text.lines().filter(|line| line.contains("AGE ENC")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(armor(&after), armor(&before), "the metadata is laid out as sops does");
}

#[test]
fn a_value_is_set_as_sops_sets_it_and_nothing_else_is_encrypted_anew() {
    let desk = desk();
    for (name, path, value, new) in [
        ("a.yaml", r#"["a"]"#, r#""STRONGROOM-MARKER 2""#, 1),
        ("a.yaml", r#"["b"]["c"][1]"#, "7", 1),
        ("a.yaml", r#"["b"]["c"][9]"#, "true", 1),
        ("a.yaml", r#"["b"]["c"][9]["deep"]"#, "{\"l\": [1, {\"x\": \"y\"}]}", 2),
        ("a.yaml", r#"["b"]["c"][2]["d"]"#, r#"{"x": "1", "y": [1.5, null, ""]}"#, 2),
        ("a.yaml", r#"["b"]["e"]["new"]"#, r#""key: # value""#, 1),
        ("a.yaml", r#"["b"]["z"]"#, "\"multi\\nline\\n\"", 1),
        ("a.yaml", r#"["b"]["f"]["below"]"#, "1e3", 1),
        ("a.yaml", r#"["l"][0]"#, "\"\"", 0),
        ("a.yaml", r#"["l"][2]"#, "{}", 0),
        ("a.yaml", r#"["l"][1]["n"]"#, "\"yes\"", 1),
        ("a.yaml", r#"["n_unencrypted"]["tag"]"#, "2", 0),
        ("a.yaml", r#"["n_unencrypted"]["x"]"#, r#"{"a": "0x10", "b": ["- c"]}"#, 0),
        ("a.yaml", r#"["new"]["of"]["all"]"#, "false", 1),
        ("a.yaml", r#"["b"]["f"]"#, "1.5", 0),
        ("a.json", r#"["a"]"#, "null", 0),
        ("a.json", r#"["b"]["c"][2]"#, r#"{"é": "\u0001\u2028"}"#, 1),
        ("a.json", r#"["b"]["e"]["x"]"#, "{\"l\": [[], {}, 1]}", 1),
        ("a.json", r#"["l"][1]"#, "-0.5", 1),
        ("a.env", r#"["A"]"#, r#""a=b\nc""#, 1),
        ("a.env", r#"["NEW"]"#, "\"x\"", 1),
        ("a.env", r#"["C_unencrypted"]"#, "\"4\"", 0),
        ("a.ini", r#"["s"]["a"]"#, r#""a;b""#, 1),
        ("a.ini", r#"["s"]["new"]"#, "\"x\"", 1),
        ("a.ini", r#"["u"]["new"]"#, "\"x\"", 1),
        ("a.ini", r#"["t"]"#, r#"{"c": "1", "d": "e"}"#, 1),
        ("a.bin", r#"["data"]"#, "\"x\\u0001\"", 1),
    ] {
        assert_changed(&desk, name, &["set", path, value], new);
    }
}

#[test]
fn a_value_is_unset_as_sops_unsets_it_and_nothing_is_encrypted_anew() {
    let desk = desk();
    for (name, path) in [
        ("a.yaml", r#"["b"]"#),
        ("a.yaml", r#"["b"]["c"]"#),
        ("a.yaml", r#"["b"]["c"][0]"#),
        ("a.yaml", r#"["b"]["c"][2]["d"]"#),
        ("a.yaml", r#"["l"][0]"#),
        ("a.yaml", r#"["l"][1]["k"]"#),
        ("a.yaml", r#"["l"][2]"#),
        ("a.yaml", r#"["n_unencrypted"]["image"]"#),
        ("a.json", r#"["a"]"#),
        ("a.json", r#"["l"][0]"#),
        ("a.json", r#"["b"]["c"][1]"#),
        ("a.env", r#"["B"]"#),
        ("a.ini", r#"["s"]["b"]"#),
    ] {
        let (ours, theirs) = both(&desk, name, &["unset", path]);
        assert_eq!((code(&ours), code(&theirs)), (0, 0), "{name} {path}: {}", ours.stderr);
        let opened = |folder: &str| desk.sops().arg("decrypt").arg(format!("{folder}/{name}")).ok();
        assert_eq!(said(name, &opened("ours")), said(name, &opened("theirs")), "{name} {path}");
        let (before, after) = (desk.read(name), desk.read(&format!("ours/{name}")));
        assert!(ciphertexts(&after).is_subset(&ciphertexts(&before)), "{name} {path}\n{after}");
    }
}

#[test]
fn what_cannot_be_set_or_unset_ends_with_the_exit_code_of_sops_and_changes_nothing() {
    let desk = desk();
    desk.repository.write("plain.yaml", "a: STRONGROOM-MARKER\n");
    let tampered = desk.read("a.yaml").replace("tag: 1", "tag: 2");
    desk.repository.write("tampered.yaml", tampered);
    let marker = r#""STRONGROOM-MARKER""#;
    for (name, arguments, message) in [
        ("a.yaml", &["set", "a", marker][..], "not a path"),
        ("a.yaml", &["set", r#"["a"]"#, "STRONGROOM-MARKER"], "which has to be JSON"),
        ("a.yaml", &["set", r#"["sops"]"#, marker], "`sops` is what sops calls its metadata"),
        ("a.yaml", &["set", "--value-file", r#"["a"]"#, "absent"], "read absent"),
        ("a.env", &["set", r#"["A"]"#, r#"{"b": "STRONGROOM-MARKER"}"#], "can only be text"),
        ("a.ini", &["set", r#"["s"]"#, marker], "can only be text"),
        ("plain.yaml", &["set", r#"["a"]"#, marker], "the file has no SOPS metadata"),
        ("tampered.yaml", &["set", r#"["a"]"#, marker], "the MAC of the file does not match"),
        ("a.yaml", &["unset", r#"["z"]"#], r#"there is no `["z"]`"#),
        ("a.yaml", &["unset", r#"["l"][7]"#], r#"there is no `["l"][7]`"#),
        ("a.yaml", &["unset", r#"["a"]["b"]"#], "is in is a string"),
        ("a.yaml", &["unset", "--idempotent", r#"["a"]["b"]"#], "is in is a string"),
        ("a.yaml", &["unset", "a"], "not a path"),
        ("a.env", &["unset", r#"["Z"]"#], r#"there is no `["Z"]`"#),
        ("tampered.yaml", &["unset", r#"["a"]"#], "the MAC of the file does not match"),
    ] {
        let (ours, theirs) = both(&desk, name, arguments);
        assert_eq!(code(&ours), code(&theirs), "{name} {arguments:?}: {} {}", ours.stderr, theirs.stderr);
        assert!(ours.stderr.contains(message) && ours.stdout.is_empty(), "{arguments:?}: {}", ours.stderr);
        assert!(!ours.stderr.contains(MARKER), "{}", ours.stderr);
        assert_eq!(desk.read(&format!("ours/{name}")), desk.read(name), "{name} {arguments:?}");
    }
    // sops takes these for done, or panics.
    for (name, arguments, expected, message) in [
        ("a.yaml", &["set", r#"["b"][0]"#, marker][..], 1, "what it is in is a mapping"),
        ("a.yaml", &["set", r#"["l"]["x"]"#, marker], 1, "what it is in is a list"),
        ("a.yaml", &["set", "", marker], 7, "the path is empty"),
        ("a.bin", &["set", r#"["x"]"#, marker], 1, "a binary file has one value"),
        ("a.bin", &["unset", r#"["data"]"#], 1, "a binary file has one value"),
        ("a.env", &["set", r#"["A"]"#, "null"], 4, "can only be text"),
    ] {
        let (ours, _) = both(&desk, name, arguments);
        assert_eq!((code(&ours), ours.stdout.as_str()), (expected, ""), "{arguments:?}: {}", ours.stderr);
        assert!(
            ours.stderr.contains(message) && ours.stderr.contains(name),
            "{arguments:?}: {}",
            ours.stderr
        );
        assert!(!ours.stderr.contains(MARKER), "{}", ours.stderr);
        assert_eq!(desk.read(&format!("ours/{name}")), desk.read(name));
    }
    let absent = desk.product().args(["set", "absent.yaml", r#"["a"]"#, "1"]).output();
    let theirs = desk.sops().args(["set", "absent.yaml", r#"["a"]"#, "1"]).output();
    assert_eq!(
        (code(&absent), desk.path("absent.yaml").exists()),
        (code(&theirs), false),
        "{}",
        absent.stderr
    );
    let unknown =
        desk.product().env("STRONGROOM_KEYS_DIR", "/nonexistent").args(["unset", "a.yaml", "['a']"]).output();
    assert_eq!(code(&unknown), 128, "{}", unknown.stderr);
}

#[test]
fn a_value_comes_from_a_file_or_stdin_and_one_that_is_there_leaves_the_file_alone() {
    let desk = desk();
    desk.repository.write("value", format!("\"{MARKER} of file\"\n"));
    assert_eq!(desk.product().args(["set", "--value-file", "a.yaml", r#"["a"]"#, "value"]).ok(), "");
    assert_eq!(
        desk.sops().args(["decrypt", "--extract", r#"["a"]"#, "a.yaml"]).ok(),
        format!("{MARKER} of file")
    );
    let stdin = format!("{{\"b\": \"{MARKER}\"}}\n");
    desk.product().args(["set", "--value-stdin", "a.yaml", r#"["a"]"#]).stdin(stdin).ok();
    assert_eq!(desk.sops().args(["decrypt", "--extract", r#"["a"]["b"]"#, "a.yaml"]).ok(), MARKER);
    let before = desk.read("a.yaml");
    for arguments in [
        &["set", "--idempotent", "a.yaml", r#"["b"]["c"]"#, r#"[1, 2, {"d": "x"}]"#][..],
        &["unset", "--idempotent", "a.yaml", r#"["b"]["zz"]"#],
    ] {
        assert_eq!(desk.product().args(arguments).ok(), "");
        assert_eq!(desk.read("a.yaml"), before);
    }
    desk.product().args(["set", "--idempotent", "a.yaml", r#"["b"]["c"][0]"#, "\"1\""]).ok();
    assert_ne!(desk.read("a.yaml"), before);
    assert_eq!(code(&desk.product().args(["set", "a.yaml", r#"["a"]"#]).output()), 2);
}

#[test]
fn what_was_set_and_unset_again_leaves_random_files_as_they_were() {
    let desk = Desk::new();
    for number in 0..24 {
        let mut dice = Dice::new(number);
        let (name, plain, path) = match number % 4 {
            0 => ("r.env", dotenv(&mut dice), r#"["added"]"#),
            1 => ("r.ini", ini(&mut dice), r#"["added"]["key"]"#),
            2 => (
                "r.json",
                format!("{:#}\n", serde_json::json!({ "f": json_object(&mut dice, 3) })),
                r#"["added"]"#,
            ),
            _ => {
                let mut yaml = Yaml { dice: &mut dice, other: false, list_comments: true, anchors: 0 };
                ("r.yaml", yaml.document("first") + &yaml.document("second"), r#"["added"]"#)
            }
        };
        desk.repository.write(name, &plain);
        desk.sops().args(["encrypt", "--age", &desk.age.recipient, "-i", name]).ok();
        let (sealed, opened) = (desk.read(name), desk.sops().args(["decrypt", name]).ok());
        desk.product().args(["set", name, path, "\"x\""]).ok();
        assert_eq!(desk.sops().args(["decrypt", "--extract", path, name]).ok(), "x", "{plain}");
        desk.product().args(["unset", name, path]).ok();
        let again = desk.sops().args(["decrypt", name]).ok();
        assert_eq!(
            said(name, &again),
            said(name, &opened).into_iter().chain(added(name)).collect::<Vec<_>>()
        );
        let now = desk.read(name);
        // A comment below a lone `-` may come to lie elsewhere, and then is encrypted anew.
        let anew =
            ciphertexts(&now).difference(&ciphertexts(&sealed)).any(|text| !text.ends_with("type:comment"));
        assert!(!anew, "{plain}\n{sealed}\n{now}");
    }
}

/// What is left of a key in a section that was not there.
fn added(name: &str) -> Option<Value> {
    name.ends_with("ini").then(|| Value::String("[added]".to_owned()))
}

/// Lines of the metadata that name master keys.
fn named_keys(text: &str) -> Vec<&str> {
    let names = ["recipient", "fp", "created_at", "shamir_threshold", "key_groups"];
    // Behind the name, so that no line of an armor is taken for one.
    let names_one =
        |line: &&str| line.split_once(':').is_some_and(|(name, _)| names.contains(&name.trim_matches('"')));
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '-', '\t']));
    lines.filter(names_one).collect()
}

#[test]
fn a_file_is_rotated_to_a_new_data_key_and_sops_opens_it() {
    let desk = desk();
    for (name, _) in PLAIN {
        let (before, opened) = (desk.read(name), desk.sops().args(["decrypt", name]).ok());
        assert_eq!(desk.product().args(["rotate", "--output", "rotated", name]).ok(), "");
        let rotated = desk.product().args(["rotate", name]).ok();
        assert_eq!(desk.read(name), before);
        desk.product().args(["rotate", "--in-place", name]).ok();
        for sealed in [&rotated, &desk.read("rotated"), &desk.read(name)] {
            assert_eq!(ciphertexts(sealed).intersection(&ciphertexts(&before)).count(), 0, "{sealed}");
            assert_eq!(ciphertexts(sealed).len(), ciphertexts(&before).len(), "{sealed}");
            assert!(!sealed.contains(MARKER), "{sealed}");
            desk.repository.write(name, sealed);
            assert_eq!(said(name, &desk.sops().args(["decrypt", name]).ok()), said(name, &opened));
        }
    }
}

#[test]
fn master_keys_come_and_go_as_sops_lets_them() {
    let (desk, other, gpg) = (Desk::new(), AgeKey::new(), GpgHome::new());
    let fingerprint = gpg.generate("rsa2048");
    let keys =
        KeysFolder::new().with("key.txt", &desk.age.identity).with("key.asc", gpg.export(&fingerprint));
    let product = || desk.product().env("STRONGROOM_KEYS_DIR", keys.path());
    let sops = || desk.sops().env("GNUPGHOME", gpg.path());
    let (age, other_age) = (desk.age.recipient.as_str(), other.recipient.as_str());
    for name in ["a.yaml", "a.json", "a.env", "a.ini", "a.bin"] {
        let (_, plain) = PLAIN.iter().find(|(found, _)| *found == name).unwrap();
        desk.repository.write(name, plain);
        sops().args(["encrypt", "--age", age, "--pgp", &fingerprint, "-i", name]).ok();
        let before = desk.read(name);
        for arguments in [
            &["--add-age", other_age][..],
            &["--add-age", other_age, "--rm-pgp", &fingerprint],
            &["--rm-age", &format!("{other_age},{age}")],
            &["--rm-age", other_age],
        ] {
            let rotated = product().arg("rotate").args(arguments).arg(name).ok();
            let theirs = sops().arg("rotate").args(arguments).arg(name).ok();
            let sorted = |text: &str| {
                let mut keys: Vec<_> = named_keys(text).into_iter().map(words).collect();
                keys.sort();
                keys
            };
            assert_eq!(sorted(&rotated), sorted(&theirs), "{name} {arguments:?}");
            desk.repository.write(name, rotated);
            sops().args(["decrypt", name]).ok();
            desk.repository.write(name, &before);
        }
        for (arguments, code) in [
            (&["--rm-age", age, "--rm-pgp", &fingerprint][..], 1),
            (&["--add-age", "age1x"], 1),
            (&["--add-age", "AGE-SECRET-KEY-1STRONGROOM-MARKER"], 1),
        ] {
            let output = product().args(["rotate", "-i"]).args(arguments).arg(name).output();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", output.stderr);
            assert!(!output.everything().contains(MARKER), "{}", output.stderr);
            assert_eq!(desk.read(name), before);
        }
    }
    let tampered = desk.read("a.yaml").replace("tag: 1", "tag: 2");
    desk.repository.write("tampered.yaml", tampered);
    for (arguments, code) in [
        (&["-i", "tampered.yaml"][..], 51),
        (&["absent.yaml"], 2),
        (&["--add-age", other_age, "absent.yaml"], 49),
    ] {
        let (ours, theirs) =
            (product().arg("rotate").args(arguments).output(), sops().arg("rotate").args(arguments).output());
        assert_eq!(
            (ours.status.code(), theirs.status.code()),
            (Some(code), Some(code)),
            "{arguments:?}: {}",
            ours.stderr
        );
        assert_eq!(ours.stdout, "");
    }
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_file_of_key_groups_stays_one() {
    let (desk, other) = (Desk::new(), AgeKey::new());
    let (one, two) = (&desk.age.recipient, &other.recipient);
    desk.repository.write(".sops.yaml", format!("creation_rules:\n  - shamir_threshold: 2\n    key_groups:\n      - age: [{one}]\n      - age: [{two}]\n      - age: [{one}, {two}]\n"));
    desk.repository.write("a.yaml", "a: STRONGROOM-MARKER\n");
    desk.sops().args(["encrypt", "-i", "a.yaml"]).ok();
    let before = desk.read("a.yaml");
    for arguments in [
        &["rotate", "-i", "a.yaml"][..],
        &["set", "a.yaml", r#"["b"]"#, "1"],
        &["unset", "a.yaml", r#"["b"]"#],
    ] {
        desk.product().args(arguments).ok();
        assert_eq!(named_keys(&desk.read("a.yaml")), named_keys(&before), "{arguments:?}");
        assert_eq!(desk.sops().args(["decrypt", "--extract", r#"["a"]"#, "a.yaml"]).ok(), MARKER);
    }
}

#[test]
fn the_keys_of_the_configuration_are_given_to_a_file_that_is_there() {
    let (desk, other) = (desk(), AgeKey::new());
    let (one, two) = (&desk.age.recipient, &other.recipient);
    let without_keys = |text: &str| {
        let kept = |line: &&str| (line.contains(':') || line.contains("ENC[")) && !line.contains("enc: |");
        text.lines().filter(kept).filter(|line| !line.contains("recipient")).map(words).collect::<Vec<_>>()
    };
    for groups in [
        format!("age: '{one},{two}'"),
        format!("age: {two}"),
        format!("key_groups: [{{age: [{one}]}}, {{age: [{one}, {two}]}}]"),
        format!("age: {one}"),
    ] {
        desk.repository.write(".sops.yaml", format!("creation_rules:\n  - {groups}\n"));
        for (name, _) in PLAIN {
            let (ours, theirs) = both(&desk, name, &["updatekeys", "--yes"]);
            assert_eq!((code(&ours), code(&theirs)), (0, 0), "{groups}: {} {}", ours.stderr, theirs.stderr);
            let (old, new) = (desk.read(name), desk.read(&format!("ours/{name}")));
            assert_eq!(
                named_keys(&new).len(),
                named_keys(&desk.read(&format!("theirs/{name}"))).len(),
                "{groups}\n{new}"
            );
            // Neither a value nor the MAC changed.
            assert_eq!(ciphertexts(&new), ciphertexts(&old), "{groups}");
            if name == "a.yaml" && !groups.contains("key_groups") {
                assert_eq!(without_keys(&new), without_keys(&old), "{groups}");
            }
            if theirs.stdout.is_empty() {
                assert!(ours.stderr.contains("is up to date") && new == old, "{}", ours.stderr);
            } else {
                let told: BTreeSet<_> = theirs.stdout.lines().map(words).collect();
                let lines: BTreeSet<_> = ours.stderr.lines().map(words).collect();
                let missing: Vec<_> =
                    told.difference(&lines).filter(|line| !line.starts_with("The following")).collect();
                assert!(missing.is_empty(), "{missing:?}: {}", ours.stderr);
            }
            let identity = if groups.contains(one.as_str()) { &desk.age.identity } else { &other.identity };
            let opened =
                desk.sops().env("SOPS_AGE_KEY", identity).arg("decrypt").arg(format!("ours/{name}")).ok();
            assert_eq!(said(name, &opened), said(name, &desk.sops().args(["decrypt", name]).ok()));
        }
    }
}

#[test]
fn updatekeys_asks_and_a_file_that_fails_does_not_keep_the_others_from_theirs() {
    let (desk, other) = (desk(), AgeKey::new());
    let before = desk.read("a.yaml");
    let update = |stdin: &str| desk.product().args(["updatekeys", "a.yaml"]).stdin(stdin).output();
    let none = update("y\n");
    assert_eq!((code(&none), desk.read("a.yaml") == before), (1, true), "{}", none.stderr);
    assert!(none.stderr.contains("no .sops.yaml"), "{}", none.stderr);
    let rule = format!("creation_rules:\n  - age: '{},{}'\n", desk.age.recipient, other.recipient);
    desk.repository.write(".sops.yaml", rule);
    for (stdin, expected, message) in [("", 1, "nobody agreed"), ("what\nn\n", 0, "a.yaml stays as it is")] {
        let output = update(stdin);
        assert_eq!((code(&output), output.stdout.as_str()), (expected, ""), "{}", output.stderr);
        assert!(output.stderr.contains(message) && output.stderr.contains("+++ age1"), "{}", output.stderr);
        assert_eq!(desk.read("a.yaml"), before);
    }
    let output = update("y\n");
    assert_eq!((code(&output), desk.read("a.yaml") == before), (0, false), "{}", output.stderr);
    desk.repository.write("plain.yaml", "a: STRONGROOM-MARKER\n");
    let output = desk.product().args(["updatekeys", "-y", "plain.yaml", "absent.yaml", "a.json"]).output();
    assert_eq!(code(&output), 1);
    assert!(output.stderr.contains("plain.yaml: the file has no SOPS metadata"), "{}", output.stderr);
    assert!(output.stderr.contains("absent.yaml: there is no such file"), "{}", output.stderr);
    assert!(desk.read("a.json").contains(&other.recipient) && !output.everything().contains(MARKER));
}
