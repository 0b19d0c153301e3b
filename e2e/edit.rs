//! `strongroom edit` with editors that are scripts, against the real sops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::MARKER;
use support::desk::Desk;
use support::process::{Output, Run};
use support::product::program;
use support::tools::{on_path, path};

const YAML: &str = "\
# of the file
a: STRONGROOM-MARKER # behind a
b:
    # of c
    c: [one, 2, true]
    key: |
        -----BEGIN-----

        STRONGROOM-MARKER
        -----END-----
    odd: 'yes'
    wide: ' x'
l:
    - two words
    - |-
      x
      y
n_unencrypted:   spaced   # note
---
d: second
";

/// What an editor does to the file in `$1`.
fn editor(desk: &Desk, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = desk.repository.write("editor", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn with_editor(run: Run, editor: &Path) -> Run {
    run.env("EDITOR", editor).env("PATH", path())
}

fn edit(desk: &Desk, name: &str, script: &str) -> Output {
    with_editor(desk.product(), &editor(desk, script)).args(["edit", name]).output()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Folders of plaintexts that are there.
fn left() -> Vec<PathBuf> {
    let folders = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("strongroom-");
    folders.filter(ours).collect()
}

fn sealed(desk: &Desk, name: &str, plain: &str) -> String {
    desk.repository.write(name, plain);
    desk.sops().args(["encrypt", "--age", &desk.age.recipient, "-i", name]).ok();
    desk.read(name)
}

fn ciphertexts(text: &str) -> BTreeSet<&str> {
    text.match_indices("ENC[").map(|(at, _)| &text[at..at + text[at..].find(']').unwrap()]).collect()
}

#[test]
fn what_was_edited_is_encrypted_and_nothing_else_anew_in_every_format() {
    let desk = Desk::new();
    for (name, plain, script, fresh) in [
        ("a.yaml", YAML, "sed -i 's/two words/three more words/; s/^a: /z: new\\na: /' \"$1\"", 2),
        ("b.yaml", YAML, "sed -i '/odd/d; s/^# of the file/# on the file/' \"$1\"", 1),
        (
            "a.json",
            "{\"a\": \"STRONGROOM-MARKER\", \"b\": [1, {\"c\": \"x\"}]}",
            "sed -i 's/\"x\"/\"y\", \"d\": null/' \"$1\"",
            1,
        ),
        ("a.env", "# c\nA=STRONGROOM-MARKER\nB=1\n", "echo C=2 >>\"$1\"", 1),
        ("a.ini", "[s]\na = STRONGROOM-MARKER\nb = 1\n", "sed -i 's/^b.*/b = 2/' \"$1\"", 1),
        ("a.bin", "STRONGROOM-MARKER\n", "echo more >>\"$1\"", 1),
    ] {
        let before = sealed(&desk, name, plain);
        let opened = desk.sops().args(["decrypt", name]).ok();
        let output = edit(&desk, name, script);
        assert_eq!((code(&output), output.everything().as_str()), (0, ""), "{name}");
        let after = desk.read(name);
        let new = ciphertexts(&after).difference(&ciphertexts(&before)).count();
        assert_eq!(new, fresh + 1, "{name}\n{before}\n{after}");
        assert!(!after.contains(MARKER), "{after}");
        let ours = desk.sops().args(["decrypt", name]).ok();
        desk.repository.write(name, &before);
        with_editor(desk.sops(), &editor(&desk, script)).args(["edit", name]).ok();
        let theirs = desk.sops().args(["decrypt", name]).ok();
        assert_ne!(theirs, opened, "{name}");
        // sops moves comments behind values above them when it edits.
        let lines = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&ours), lines(&theirs), "{name}");
    }
}

#[test]
fn the_editor_gets_text_as_a_person_writes_it_in_memory_and_for_the_owner_only() {
    let desk = Desk::new();
    sealed(&desk, "a.yaml", YAML);
    let script = "cp \"$1\" shown; stat -c %a \"$1\" \"$(dirname \"$1\")\" >where; stat -f -c %T \"$1\" >>where; basename \"$1\" >>where; echo \"$1\" >path";
    let output = edit(&desk, "a.yaml", script);
    assert_eq!(code(&output), 200, "{}", output.stderr);
    assert_eq!(desk.read("where"), "600\n700\ntmpfs\na.yaml\n");
    assert!(!Path::new(desk.read("path").trim()).parent().unwrap().exists());
    let shown = desk.read("shown");
    for line in [
        "a: STRONGROOM-MARKER # behind a\n",
        "    # of c\n    c:\n        - one\n        - 2\n        - true\n",
        "    key: |\n        -----BEGIN-----\n\n        STRONGROOM-MARKER\n        -----END-----\n",
        "    odd: \"yes\"\n    wide: \" x\"\n",
        "    - two words\n    - |-\n        x\n        y\n",
        "n_unencrypted: spaced",
        "---\nd: second\n",
    ] {
        assert!(shown.contains(line), "{line:?} in\n{shown}");
    }
    let again = desk.sops().args(["decrypt", "a.yaml"]).ok();
    assert!(again.contains(MARKER));
}

#[test]
fn a_file_stays_as_it_is_where_nothing_was_edited_or_the_editor_fails() {
    let desk = Desk::new();
    let before = sealed(&desk, "a.yaml", YAML);
    desk.repository.write("plain.yaml", "a: STRONGROOM-MARKER\n");
    desk.repository.write("tampered.yaml", before.replace("spaced", "other"));
    for (name, script, message) in [
        ("a.yaml", "true", "a.yaml was not changed"),
        ("a.yaml", "touch \"$1\"", "a.yaml was not changed"),
        ("a.yaml", "echo b: x >>\"$1\"; exit 3", "ended with exit code 3"),
        ("a.yaml", "echo b: x >>\"$1\"; kill -KILL $$", "was killed by SIGKILL"),
        ("plain.yaml", "true", "the file has no SOPS metadata"),
        ("tampered.yaml", "true", "the MAC of the file does not match"),
    ] {
        let before = desk.read(name);
        let (ours, theirs) = (
            edit(&desk, name, script),
            with_editor(desk.sops(), &editor(&desk, script)).args(["edit", name]).output(),
        );
        assert_eq!(code(&ours), code(&theirs), "{script}: {} {}", ours.stderr, theirs.stderr);
        assert!(ours.stderr.contains(message) && ours.stdout.is_empty(), "{script}: {}", ours.stderr);
        assert!(!ours.stderr.contains(MARKER), "{}", ours.stderr);
        assert_eq!(desk.read(name), before, "{script}");
    }
    for (variables, expected) in [
        (&[("EDITOR", "/nonexistent/editor")][..], 201),
        (&[("EDITOR", "'open")], 201),
        (&[("PATH", "/nonexistent")], 201),
        (&[("EDITOR", "false"), ("SOPS_EDITOR", "true")], 200),
    ] {
        let output = desk
            .product()
            .env("PATH", path())
            .envs(variables.iter().copied())
            .args(["edit", "a.yaml"])
            .output();
        assert_eq!(code(&output), expected, "{variables:?}: {}", output.stderr);
        assert_eq!(desk.read("a.yaml"), before);
    }
}

#[test]
fn what_is_edited_to_nonsense_is_refused_or_edited_again() {
    let desk = Desk::new();
    let before = sealed(&desk, "a.yaml", YAML);
    for (script, expected, message) in [
        ("echo 'x: {STRONGROOM-MARKER' >>\"$1\"", 2, "line "),
        ("sed -i 's/^b:/a:/' \"$1\"", 2, "`a`: the key is there twice"),
        ("echo '- x' >\"$1\"", 2, "the document is not a mapping"),
        ("echo 'sops: x' >\"$1\"", 203, "as sops calls its metadata"),
        (": >\"$1\"", 92, "the file is empty"),
        ("rm \"$1\"", 2, "read what was edited"),
    ] {
        let output = edit(&desk, "a.yaml", script);
        assert_eq!(code(&output), expected, "{script}: {}", output.stderr);
        assert!(
            output.stderr.contains(message) && output.stderr.contains("a.yaml"),
            "{script}: {}",
            output.stderr
        );
        assert!(!output.everything().contains(MARKER), "{}", output.stderr);
        assert_eq!(desk.read("a.yaml"), before, "{script}");
    }
    // Broken at first, mended when the person has pressed enter.
    let script = "if grep -q broken \"$1\"; then sed -i 's/: {broken/: mended/' \"$1\"; else echo 'x: {broken' >>\"$1\"; fi";
    let editor = editor(&desk, script);
    let command = format!("'{}' edit a.yaml", program().display());
    let on_terminal = |keys: &str| {
        let run = with_editor(Run::new(on_path("script")), &editor);
        let run = run.args(["--quiet", "--return", "--command", &command, "/dev/null"]).stdin(keys);
        run.directory(desk.repository.path())
            .env("SHELL", "/bin/sh")
            .env("STRONGROOM_KEYS_DIR", desk.keys.path())
            .output()
    };
    let output = on_terminal("\n");
    assert_eq!(code(&output), 0, "{}", output.everything());
    assert!(output.stdout.contains("Press enter to edit it again"), "{}", output.stdout);
    assert_eq!(desk.sops().args(["decrypt", "--extract", r#"["x"]"#, "a.yaml"]).output().stdout, "");
    assert!(desk.sops().args(["decrypt", "a.yaml"]).ok().ends_with("d: second\nx: mended\n"));
}

#[test]
fn a_new_file_is_made_of_an_example() {
    let desk = Desk::new();
    for name in ["new.yaml", "new.json", "new.env", "new.ini", "new.bin"] {
        let flags = ["edit", "--age", &desk.age.recipient, name];
        let run = |run: Run, script: &str| with_editor(run, &editor(&desk, script)).args(flags).output();
        let output = run(desk.product(), "true");
        assert_eq!((code(&output), desk.path(name).exists()), (200, false), "{}", output.stderr);
        run(desk.sops(), "cp \"$1\" theirs");
        run(desk.product(), "cp \"$1\" ours");
        assert_eq!(desk.read("ours"), desk.read("theirs"), "{name}");
        let output = run(desk.product(), "sed -i 's/Welcome to SOPS/STRONGROOM-MARKER/' \"$1\"");
        assert_eq!((code(&output), output.everything().as_str()), (0, ""), "{name}");
        assert!(desk.sops().args(["decrypt", name]).ok().contains(MARKER));
    }
    desk.repository.write(
        ".sops.yaml",
        format!(
            "creation_rules:\n  - path_regex: ^x/\n    age: {}\n    encrypted_regex: ^secret$\n",
            desk.age.recipient
        ),
    );
    fs::create_dir(desk.path("x")).unwrap();
    let output = edit(&desk, "x/new.yaml", "echo 'secret: 1\nplain: 2' >\"$1\"");
    assert_eq!(code(&output), 0, "{}", output.stderr);
    assert!(desk.read("x/new.yaml").contains("plain: 2\n"), "{}", desk.read("x/new.yaml"));
    assert_eq!(desk.sops().args(["decrypt", "x/new.yaml"]).ok(), "secret: 1\nplain: 2\n");
    let output = edit(&desk, "y.yaml", "true");
    assert_eq!((code(&output), desk.path("y.yaml").exists()), (1, false), "{}", output.stderr);
}

#[test]
fn a_signal_ends_the_editor_and_takes_the_plaintext_away() {
    let desk = Desk::new();
    let before = sealed(&desk, "a.yaml", YAML);
    for (signal, expected) in
        [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)]
    {
        let script = "echo x: y >>\"$1\"; echo \"$1\" >path; echo $$ >pid.new; mv pid.new pid; exec sleep 60";
        let mut command =
            with_editor(desk.product(), &editor(&desk, script)).args(["edit", "a.yaml"]).into_command();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let end = Instant::now() + Duration::from_mins(1);
        while !desk.path("pid").exists() {
            assert!(Instant::now() < end, "the editor does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let plaintext = PathBuf::from(desk.read("path").trim());
        assert!(plaintext.exists() && left().contains(&plaintext.parent().unwrap().to_owned()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!plaintext.parent().unwrap().exists());
        let process = format!("/proc/{}", desk.read("pid").trim());
        while fs::read_to_string(format!("{process}/cmdline")).is_ok_and(|line| line.contains("sleep")) {
            assert!(Instant::now() < end, "the editor goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(desk.read("a.yaml"), before);
        fs::remove_file(desk.path("pid")).unwrap();
    }
}
