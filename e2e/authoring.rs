//! Files that the product seals, against the real sops: it opens them, to what it opens of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use strongroom::document::{Format, Kind, Node, parse};
use support::MARKER;
use support::desk::Desk;
use support::differential::{Bench, Sealer, assert_flat, assert_same, json_cases, yaml_cases};
use support::documents::{Commented, Dice, binary, dotenv, ini};
use support::keys::AgeKey;
use support::sops::sops_of;

/// Any; another one finds other things, and `make soak` tries many.
const SEED: u64 = 20_260_707;
const FILES: usize = 24;
/// Of one document each.
const FLAT: usize = 48;
/// Files of many comments.
const REMARKED: usize = 60;

#[test]
fn sops_opens_the_random_yaml_that_the_product_sealed() {
    assert_same(&yaml_cases(&Bench::new(), Sealer::Product, SEED, FILES));
}

#[test]
fn sops_opens_the_random_json_that_the_product_sealed() {
    assert_same(&json_cases(&Bench::new(), Sealer::Product, SEED, FILES));
}

#[test]
fn sops_opens_the_random_dotenv_that_the_product_sealed() {
    assert_flat(&Bench::new(), Sealer::Product, SEED, FLAT, "env", |dice| dotenv(dice).into_bytes());
}

#[test]
fn sops_opens_the_random_ini_that_the_product_sealed() {
    assert_flat(&Bench::new(), Sealer::Product, SEED, FLAT, "ini", |dice| ini(dice).into_bytes());
}

#[test]
fn sops_opens_the_random_binary_that_the_product_sealed() {
    assert_flat(&Bench::new(), Sealer::Product, SEED, FLAT, "enc", binary);
}

const COMMENTED: &str = "\
# of the file

# of a
a: STRONGROOM-MARKER # behind a
b:
  # of c
  c: 12 # behind c
  # after c
l:
# first
- one # behind one
- # of a map
  x: 1
# last of l

m: # behind m
    n: {o: p, q: [1, 2]} # behind n
    r: |
        lines
        of text

    # at the end of m
z: ~
# at the end
";

#[test]
fn every_line_keeps_its_place_and_sops_opens_every_comment() {
    let desk = Desk::new();
    desk.repository.write("a.yaml", COMMENTED);
    desk.encrypt().args(["--in-place", "a.yaml"]).ok();
    let sealed = desk.read("a.yaml");
    assert!(!sealed.contains(MARKER) && !sealed.contains("# "), "{sealed}");
    let keys = |text: &str| {
        let lines = text.lines().take_while(|line| *line != "sops:");
        lines
            .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
            .filter(|key| !key.contains(['#', '[']))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&sealed), keys(COMMENTED));
    for version in ["sops", "sops-min"] {
        let run = sops_of(version).env("SOPS_AGE_KEY", &desk.age.identity).directory(desk.repository.path());
        let output = run.args(["decrypt", "a.yaml"]).output();
        assert!(!output.everything().contains("ENC["), "{}", output.everything());
        let comments = |text: &str| text.matches("# ").count();
        assert_eq!(comments(&output.stdout), comments(COMMENTED), "{}", output.stdout);
    }
    assert_eq!(
        desk.product().args(["decrypt", "a.yaml"]).ok().replace('"', ""),
        COMMENTED.replace("|\n        lines\n        of text", "lines\\nof text\\n")
    );
}

#[test]
fn helm_secrets_spelling_and_stdin_take_the_type_from_the_name() {
    let desk = Desk::new();
    desk.repository.write("credentials.yaml.dec", format!("password: {MARKER}\n"));
    let sealed = desk.encrypt().arg("credentials.yaml.dec").ok();
    assert!(sealed.starts_with("password: ENC["), "{sealed}");
    desk.repository.write("credentials.yaml", sealed);
    assert_eq!(desk.sops().args(["decrypt", "credentials.yaml"]).ok(), format!("password: {MARKER}\n"));
    let sealed = desk.encrypt().args(["--filename-override", "x.env"]).stdin(format!("A={MARKER}\n")).ok();
    assert!(sealed.starts_with("A=ENC["), "{sealed}");
    desk.encrypt().args(["--output", "out.json", "--filename-override", "x.json"]).stdin("{\"a\": 1}").ok();
    assert_eq!(desk.sops().args(["decrypt", "out.json"]).ok(), "{\n\t\"a\": 1\n}\n");
}

#[test]
fn what_cannot_be_encrypted_ends_with_the_exit_code_of_sops_and_changes_nothing() {
    let desk = Desk::new();
    desk.repository.write("sealed.yaml", "a: 1\n");
    desk.encrypt().args(["-i", "sealed.yaml"]).ok();
    for (name, content, code) in [
        ("sealed.yaml", None, 203),
        ("own.env", Some("sops_x=1\n"), 203),
        ("empty.yaml", Some(""), 92),
        ("list.yaml", Some("- STRONGROOM-MARKER\n"), 2),
        ("broken.yaml", Some("a: {STRONGROOM-MARKER\n"), 2),
        ("twice.yaml", Some("a: STRONGROOM-MARKER\na: 1\n"), 2),
        ("number.yaml", Some("1: STRONGROOM-MARKER\n"), 23),
        ("large.yaml", Some("a: 18446744073709551615\n"), 23),
        ("absent.yaml", None, 100),
    ] {
        if let Some(content) = content {
            desk.repository.write(name, content);
        }
        let before = fs::read(desk.path(name)).ok();
        let ours = desk.encrypt().args(["-i", name]).output();
        assert_eq!(ours.status.code(), Some(code), "{name}: {}", ours.stderr);
        assert!(ours.stderr.contains(name) && !ours.everything().contains(MARKER), "{}", ours.stderr);
        assert_eq!(fs::read(desk.path(name)).ok(), before, "{name}");
        // The parser of sops calls an empty YAML file broken, and a key that it finds twice.
        let theirs = desk.sops().args(["encrypt", "--age", &desk.age.recipient, "-i", name]).output();
        assert_eq!(theirs.status.code(), Some(code), "{name}: {}", theirs.stderr);
    }
    desk.repository.write("a.yaml", "a: 1\n");
    for (arguments, code, message) in [
        (&["a.yaml"][..], 1, "no key is named to encrypt with"),
        (&["--age", "age1x", "a.yaml"], 1, "not an age recipient"),
        (&["--age", "AGE-SECRET-KEY-1STRONGROOM-MARKER", "a.yaml"], 1, "a secret age identity is named"),
        (&["--pgp", "ABCDABCDABCDABCD", "a.yaml"], 1, "no public key of it is"),
        (&["-"], 8, "stdin has no name"),
    ] {
        let output = desk.product().arg("encrypt").args(arguments).output();
        assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
        assert!(
            output.stderr.contains(message) && !output.everything().contains(MARKER),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let desk = Desk::new();
    let file = desk.repository.write("deep/a.yaml", format!("a: {MARKER}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let names = || fs::read_dir(desk.path("deep")).unwrap().count();
    let output = desk.encrypt().args(["--output", "deep/none/a.yaml", "deep/a.yaml"]).output();
    assert_eq!((output.status.code(), names()), (Some(3), 1), "{}", output.stderr);
    assert_eq!(desk.read("deep/a.yaml"), format!("a: {MARKER}\n"));
    desk.encrypt().args(["-i", "deep/a.yaml"]).ok();
    assert_eq!((fs::metadata(&file).unwrap().permissions().mode() & 0o777, names()), (0o640, 1));
}

const RULES: &str = r"
creation_rules:
  - path_regex: ^prod/
    age: AGE_ONE
  - path_regex: (^|/)odd[0-9]+\.ya?ml$
    age: [AGE_TWO]
    encrypted_regex: ^secret
  - path_regex: \.env$
    key_groups:
      - age: [AGE_ONE]
      - age: [AGE_TWO]
      - age: [AGE_TWO, AGE_ONE]
    shamir_threshold: 2
  - path_regex: x/prod/
    age: 'AGE_TWO, AGE_ONE'
    mac_only_encrypted: true
    unencrypted_suffix: _plain
stores:
  yaml:
    indent: 2
";

#[test]
fn the_rule_of_the_configuration_is_the_one_that_sops_takes() {
    let (desk, other) = (Desk::new(), AgeKey::new());
    let rules = RULES.replace("AGE_ONE", &desk.age.recipient).replace("AGE_TWO", &other.recipient);
    desk.repository.write(".sops.yaml", rules);
    let recipients = |sealed: &str| {
        sealed.matches(&desk.age.recipient).count() * 10 + sealed.matches(&other.recipient).count()
    };
    for (folder, name) in [
        (".", "prod/a.yaml"),
        (".", "odd1.yml"),
        (".", "x/odd2.yaml"),
        (".", "x/prod/b.yaml"),
        (".", "prod/c.env"),
        (".", "d.env"),
        (".", "nothing.yaml"),
        ("x", "prod/b.yaml"),
        ("x", "../prod/a.yaml"),
        ("prod", "a.yaml"),
    ] {
        let content =
            if name.ends_with("env") { "secret=1\n" } else { "secret: 1\na_plain: 2\nb_unencrypted: 3\n" };
        desk.repository.write(Path::new(folder).join(name), content);
        let ours = desk.product().directory(desk.path(folder)).args(["encrypt", name]).output();
        let theirs = desk.sops().directory(desk.path(folder)).args(["encrypt", name]).output();
        assert_eq!(
            ours.status.code(),
            theirs.status.code(),
            "{folder}/{name}: {} {}",
            ours.stderr,
            theirs.stderr
        );
        assert_eq!(recipients(&ours.stdout), recipients(&theirs.stdout), "{folder}/{name}: {}", ours.stdout);
        // All that is no ciphertext; how long an armored key is, is age's affair.
        let plain = |text: &str| {
            let lines = text.lines().map(|line| line.trim_start_matches([' ', '-']));
            let own =
                |line: &&str| line.contains(": ") && !line.contains("ENC[") && !line.contains("lastmodified");
            let mut lines: Vec<_> = lines.filter(own).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(plain(&ours.stdout), plain(&theirs.stdout), "{folder}/{name}");
    }
    let opened = desk.product().args(["encrypt", "--output", "sealed.env", "d.env"]).ok();
    assert_eq!(opened, "");
    assert_eq!(
        desk.sops()
            .env("SOPS_AGE_KEY", format!("{}\n{}", desk.age.identity, other.identity))
            .args(["decrypt", "sealed.env"])
            .ok(),
        "secret=1\n"
    );
}

#[test]
fn decrypt_writes_what_it_prints_for_the_owner_only_and_whole_or_not_at_all() {
    let desk = Desk::new();
    desk.repository.write("a.yaml", format!("# note\na: {MARKER}\n"));
    desk.encrypt().args(["-i", "a.yaml"]).ok();
    let sealed = desk.read("a.yaml");
    let plain = desk.product().args(["decrypt", "a.yaml"]).ok();
    let mode = |name: &str| fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(desk.product().args(["decrypt", "--output", "b.yaml", "a.yaml"]).ok(), "");
    assert_eq!((desk.read("b.yaml"), mode("b.yaml")), (plain.clone(), 0o600));
    assert_eq!(desk.read("a.yaml"), sealed);
    for (args, code) in [
        (&["decrypt", "--output", "no/b.yaml", "a.yaml"][..], 3),
        (&["decrypt", "-i", "-"][..], 8),
        (&["decrypt", "-i", "b.yaml"][..], 1),
        (&["decrypt", "-i", "--output", "c.yaml", "a.yaml"][..], 2),
    ] {
        let output = desk.product().args(args).output();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", output.stderr);
        assert!(!output.stderr.contains(MARKER), "{}", output.stderr);
    }
    assert_eq!((desk.read("a.yaml"), desk.read("b.yaml")), (sealed, plain.clone()));
    assert_eq!(desk.product().args(["decrypt", "-i", "a.yaml"]).ok(), "");
    assert_eq!((desk.read("a.yaml"), mode("a.yaml")), (plain, 0o600));
    let left = fs::read_dir(desk.repository.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".strongroom-"));
    assert_eq!(left.count(), 0);
}

/// Whether each value is encrypted, in order. An encrypted comment of a list is an item where sops wrote the file.
fn encrypted(text: &str) -> Vec<bool> {
    fn walk(node: &Node, found: &mut Vec<bool>) {
        match &node.kind {
            Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| walk(value, found)),
            Kind::Sequence(items) => items.iter().for_each(|item| walk(item, found)),
            _ => match node.text() {
                Some(text) if text.ends_with(",type:comment]") => {}
                text => found.push(text.is_some_and(|text| text.starts_with("ENC["))),
            },
        }
    }
    let mut found = Vec::new();
    for root in parse(text, Format::Yaml).unwrap().documents {
        for (_, value) in root.entries().iter().filter(|(key, _)| key.text() != Some("sops")) {
            walk(value, &mut found);
        }
    }
    found
}

const REMARKS: &str = "\
# @ of the first key only
a: STRONGROOM-MARKER
b: plain # @ of b
c: # @ of all of c
  - plain
  - d: plain
e:
  # @ of f

  f: plain

  g: plain
  # @ at the end of e
h: | # @ of h
  lines
i: [plain, plain] # @ of the first
j:
- plain
# @ of the second
- k: plain
  l: plain
- # @ of m
  m: plain
  n: plain
# @ of o

# note
o: plain
p: plain
# @ at the end
";

/// Makes comments with an `@` the rule.
fn by_comments(desk: &Desk, rule: &str) {
    let rules = format!("creation_rules: [{{age: {}, {rule}_comment_regex: '@'}}]\n", desk.age.recipient);
    desk.repository.write(".sops.yaml", rules);
}

#[test]
fn comments_say_what_is_encrypted_where_sops_finds_them() {
    let desk = Desk::new();
    desk.repository.write("remarks.yaml", REMARKS);
    let expected = [1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0].map(|bit| bit == 1);
    for (rule, wanted) in [("encrypted", true), ("unencrypted", false)] {
        by_comments(&desk, rule);
        let ours = desk.product().args(["encrypt", "remarks.yaml"]).ok();
        let theirs = desk.sops().args(["encrypt", "remarks.yaml"]).ok();
        assert_eq!(encrypted(&ours), expected.map(|matched| matched == wanted), "{rule}: {ours}");
        assert_eq!(encrypted(&ours), encrypted(&theirs), "{rule}: {theirs}");
        desk.repository.write("sealed.yaml", &ours);
        for run in [desk.sops(), desk.product()] {
            let opened = run.args(["decrypt", "sealed.yaml"]).ok();
            let comments = |text: &str| text.matches("# ").count();
            assert_eq!((comments(&opened), opened.contains("ENC[")), (comments(REMARKS), false), "{opened}");
        }
    }
}

#[test]
fn random_comments_say_what_they_say_to_sops_or_are_refused() {
    let desk = Desk::new();
    let mut sealed = 0;
    for number in 0..REMARKED {
        let plain = Commented::documents(&mut Dice::new(SEED + number as u64));
        desk.repository.write("a.yaml", &plain);
        by_comments(&desk, ["encrypted", "unencrypted"][number % 2]);
        let output = desk.product().args(["encrypt", "a.yaml"]).output();
        if !output.status.success() {
            assert!(output.stderr.contains("it is not certain what"), "{plain}\n{}", output.stderr);
            continue;
        }
        sealed += 1;
        let theirs = desk.sops().args(["encrypt", "a.yaml"]).ok();
        assert_eq!(encrypted(&output.stdout), encrypted(&theirs), "{plain}\n---\n{}", output.stdout);
        desk.repository.write("sealed.yaml", &output.stdout);
        let opened = desk.sops().args(["decrypt", "sealed.yaml"]).ok();
        assert!(!encrypted(&opened).contains(&true), "{plain}\n---\n{opened}");
    }
    assert!(sealed * 2 > REMARKED, "only {sealed} of {REMARKED}");
}
