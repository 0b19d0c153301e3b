//! Encrypted files that the product changes, against the real sops: it opens them, to what it makes of them itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_yaml::Value;

use support::MARKER;
use support::desk::Desk;
use support::documents::{Dice, Yaml, dotenv, ini, json_object};
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

/// Everything encrypted in a file.
fn ciphertexts(text: &str) -> BTreeSet<&str> {
    text.match_indices("ENC[").map(|(at, _)| &text[at..at + text[at..].find(']').unwrap()]).collect()
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
/// the new values and the MAC.
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
    assert_eq!(fresh, new + 1, "{name} {arguments:?}\n{before}\n{after}");
    assert!(!after.contains(MARKER), "{after}");
    let comments = |text: &str| text.matches("type:comment").count();
    assert_eq!(comments(&after), comments(&before), "{name} {arguments:?}");
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
        assert_eq!(
            ciphertexts(&after).difference(&ciphertexts(&before)).count(),
            1,
            "{name} {path}\n{after}"
        );
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
        let fresh = |text: &str| ciphertexts(text).difference(&ciphertexts(&sealed)).count();
        assert_eq!(fresh(&desk.read(name)), 1, "{plain}\n{sealed}\n{}", desk.read(name));
    }
}

/// What is left of a key in a section that was not there.
fn added(name: &str) -> Option<Value> {
    name.ends_with("ini").then(|| Value::String("[added]".to_owned()))
}
