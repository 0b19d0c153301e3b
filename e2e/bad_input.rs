//! Bad input: each gives one message that names the app, the file or the reference, and the cause. It gives nothing
//! on standard output, leaves no file behind, and shows no secret.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use support::MARKER;
use support::keys::{AgeKey, KeysFolder};
use support::process::{Output, Run};
use support::product::generate;
use support::repository::Repository;
use support::sops::encrypt;

/// How every message of these runs begins.
const HEAD: &str = "strongroom: failed to render app \"hello\": ";

/// `generate` with a change that makes it fail; what it says behind [`HEAD`].
fn refused(repository: &Repository, prepare: impl FnOnce(Run) -> Run) -> String {
    let before = repository.snapshot();
    let temporary = TempDir::new().unwrap();
    let run = generate(repository, "app")
        .env("TMPDIR", temporary.path())
        .env("STRONGROOM_KEYS_DIR", "/nonexistent/keys");
    let message = message_of(&prepare(run).output());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left in TMPDIR");
    assert_eq!(repository.snapshot(), before, "the repository was changed");
    message
}

/// What a failed run says, which is all that it leaves: one message, with its help and its details indented.
fn message_of(output: &Output) -> String {
    let Output { status, stdout, stderr } = output;
    assert!(!status.success(), "it did not fail, and printed:\n{stdout}");
    assert_eq!(stdout, "", "a failed run printed to standard output");
    for shown in [MARKER.to_owned(), STANDARD.encode(MARKER)] {
        assert!(!stderr.contains(&shown), "a secret is shown:\n{stderr}");
    }
    let message = stderr.strip_prefix(HEAD).unwrap_or_else(|| panic!("no name of the app:\n{stderr}"));
    for line in message.lines().skip(1) {
        assert!(line.starts_with("  ") || line.starts_with("help: "), "a second message:\n{stderr}");
    }
    message.trim_end().to_owned()
}

/// With value files for the app.
fn with_value_files(files: &[&str]) -> impl FnOnce(Run) -> Run {
    let parameters = serde_json::json!([{ "name": "valueFiles", "array": files }]);
    move |run| run.env("ARGOCD_APP_PARAMETERS", parameters.to_string())
}

/// With one value for the chart of the stories.
fn with_password(value: &str) -> impl FnOnce(Run) -> Run {
    let values = serde_json::json!({ "password": value }).to_string();
    move |run| run.env("ARGOCD_ENV_VALUES", values)
}

/// A repository whose app has `files` beside the chart of the stories.
fn with_files(files: &[(&str, &str)]) -> Repository {
    let repository = Repository::with_secret_chart();
    for (path, content) in files {
        repository.write(Path::new("app").join(path), content);
    }
    repository
}

/// `password: <marker>` and a number, encrypted by sops.
fn sealed_to(key: &AgeKey) -> String {
    let folder = Repository::new();
    let file = folder.write("sealed.yaml", format!("password: {MARKER}\nport: 5432\n"));
    fs::read_to_string(encrypt(&file, &["--age", &key.recipient])).unwrap()
}

#[test]
fn a_directory_that_is_no_chart() {
    for (files, expected) in [
        (
            &[("templates/a.yaml", "a: b")][..],
            "app has no Chart.yaml\nhelp: the path must be a chart, or a directory of manifests (*.yaml, *.json)",
        ),
        (&[("chart.yaml", "name: a")], "app has no Chart.yaml\nhelp: rename chart.yaml to Chart.yaml"),
        (
            &[("README.md", "")],
            "app has no Chart.yaml\nhelp: the path must be a chart, or a directory of manifests (*.yaml, *.json)",
        ),
        (&[("Chart.yaml", "name: [")], "app/Chart.yaml: line 1, column 7: unclosed bracket '['"),
        (&[("Chart.yaml", "apiVersion: v2\nname: a\n")], "app/Chart.yaml: version is missing"),
        (
            &[("a.yaml", "kind: ConfigMap\n")],
            "document 1 (a.yaml) has no apiVersion, so it is no Kubernetes object",
        ),
    ] {
        let repository = Repository::new();
        for (path, content) in files {
            repository.write(Path::new("app").join(path), content);
        }
        assert_eq!(refused(&repository, |run| run), expected);
    }
}

#[test]
fn a_chart_that_does_not_template() {
    let key = AgeKey::new();
    let sealed = sealed_to(&key);
    let keys = KeysFolder::new().with("age.txt", &key.identity);
    for (template, expected) in [
        ("{{ fail (printf \"do not use %s\" .Values.password) }}", "do not use <redacted>"),
        ("{{ fail (b64enc .Values.password) }}", "<redacted>"),
        ("a: {{ .Values.absent.key }}", "nil pointer evaluating interface {}.key"),
        ("a: {{ .Values.password | nosuch }}", "function \"nosuch\" not defined"),
        ("a: {{ .Values.password }}: b", "app/templates/t.yaml"),
    ] {
        let repository = with_files(&[("sealed.yaml", &sealed), ("templates/t.yaml", template)]);
        let message = refused(&repository, |run| {
            with_value_files(&["sealed.yaml"])(run).env("STRONGROOM_KEYS_DIR", keys.path())
        });
        assert!(message.starts_with("helm template: "), "{message}");
        assert!(message.contains(expected), "{template}:\n{message}");
    }
}

#[test]
fn a_value_file_that_cannot_be_used() {
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_block: Vec<_> = (0..10_000).map(|level| " ".repeat(level % 2_000) + "a:\n").collect();
    let deep_block = deep_block.concat();
    let level = |n: usize| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
    let bomb = format!("a0: &a0 [{MARKER}]\n{}", (1..10).map(level).collect::<String>());
    let repository = with_files(&[
        ("tab.yaml", &format!("a:\n\t- {MARKER}\n")),
        ("open.yaml", &format!("a: [{MARKER}\n")),
        ("nul.yaml", &format!("a: {MARKER}\0\n")),
        ("list.yaml", &format!("- {MARKER}\n")),
        ("text.yaml", MARKER),
        ("deep.yaml", &deep),
        ("deep-block.yaml", &deep_block),
        ("bomb.yaml", &bomb),
        ("folder/x", ""),
    ]);
    repository.write("app/latin.yaml", [b"a: 1\nb: ", MARKER.as_bytes(), b"\xff\n"].concat());
    fs::File::create(repository.path().join("app/huge.yaml")).unwrap().set_len(50 << 20).unwrap();
    for (file, expected) in [
        ("absent.yaml", "absent.yaml: no such file or directory in the repository"),
        ("", "value file \"\" names no file"),
        ("folder", "folder: is a directory, not a file"),
        ("a\nhelp: b", "value file \"a\\nhelp: b\" holds a control character"),
        (
            "tab.yaml",
            "open tab.yaml: line 2, column 2: tabs disallowed within this context (block indentation)",
        ),
        ("open.yaml", "open open.yaml: line 1, column 4: unclosed bracket '['"),
        ("nul.yaml", "open nul.yaml: line 1, column 21: a NUL character"),
        ("list.yaml", "open list.yaml: it holds a list, not a mapping of values"),
        ("text.yaml", "open text.yaml: it holds one value, not a mapping of values"),
        ("latin.yaml", "open latin.yaml: not UTF-8 (line 2)"),
        ("huge.yaml", "huge.yaml: larger than 16 MiB"),
        ("deep.yaml", "open deep.yaml: nested deeper than 1000 levels (line 1)"),
        ("deep-block.yaml", "open deep-block.yaml: nested deeper than 1000 levels (line 1001)"),
        (
            "bomb.yaml",
            "helm template: failed to parse bomb.yaml: cannot unmarshal yaml document: error converting YAML to \
             JSON: yaml: document contains excessive aliasing",
        ),
    ] {
        assert_eq!(refused(&repository, with_value_files(&[file])), expected);
    }
}

#[test]
fn nothing_outside_of_the_repository_is_read() {
    const OUTSIDE: &str =
        "leads outside the repository\nhelp: only files of the application's own repository can be read";
    const ABSENT: &str = "no such file or directory in the repository";
    let repository = with_files(&[]);
    for (target, link) in
        [("/etc/passwd", "to-passwd"), ("../../outside", "up"), ("/proc/self/environ", "environment")]
    {
        symlink(target, repository.path().join(link)).unwrap();
    }
    for (path, expected) in [
        ("../../outside.yaml", OUTSIDE),
        ("../../../../../../etc/passwd", OUTSIDE),
        ("/../etc/passwd", OUTSIDE),
        ("../to-passwd", OUTSIDE),
        ("/to-passwd", OUTSIDE),
        ("/up", OUTSIDE),
        ("/environment", OUTSIDE),
        ("/etc/passwd", ABSENT),
        ("/proc/self/environ", ABSENT),
    ] {
        let expected = format!("{path}: {expected}");
        assert_eq!(refused(&repository, with_value_files(&[path])), expected);
        let file = serde_json::json!({ "password": path }).to_string();
        assert_eq!(refused(&repository, |run| run.env("ARGOCD_ENV_FILE_PARAMETERS", file)), expected);
        for scheme in ["file", "sops"] {
            let reference = format!("ref+{scheme}://{path}");
            let expected = format!("resolve password of parameter \"values\": {reference}: {expected}");
            assert_eq!(refused(&repository, with_password(&reference)), expected);
        }
    }
}

#[test]
fn links_of_a_chart_out_of_the_repository() {
    let outside =
        "leads outside the repository\nhelp: only files of the application's own repository can be read";
    for (link, target, expected) in [
        ("templates/passwd.yaml", "/etc/passwd", "the chart cannot be used: app/templates/passwd.yaml: "),
        ("charts", "/etc", "the chart cannot be used: app/charts: "),
        ("values.yaml", "../../outside.yaml", "the chart cannot be used: app/values.yaml: "),
        (".strongroom.yaml", "/etc/passwd", ".strongroom.yaml: "),
    ] {
        let repository = with_files(&[]);
        symlink(target, repository.path().join("app").join(link)).unwrap();
        assert_eq!(refused(&repository, |run| run), format!("{expected}{outside}"));
    }
    let repository = Repository::new();
    repository.write("shared/a.yaml", "kind: A\napiVersion: v1\n");
    repository.write("app/c.yaml", "kind: C\napiVersion: v1\n");
    symlink("../shared/a.yaml", repository.path().join("app/a.yaml")).unwrap();
    let inside = generate(&repository, "app").ok();
    assert!(inside.contains("kind: A") && inside.contains("kind: C"), "{inside}");
    symlink("/etc/passwd", repository.path().join("app/b.yaml")).unwrap();
    assert_eq!(refused(&repository, |run| run), format!("the chart cannot be used: b.yaml: {outside}"));
}
