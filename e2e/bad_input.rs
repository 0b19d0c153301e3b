//! Bad input: each gives one message that names the app, the file or the reference, and the cause. It gives nothing
//! on standard output, leaves no file behind, and shows no secret.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use support::MARKER;
use support::fake_aws::{FakeSecretsManager, Refusal};
use support::keys::{AgeKey, KeysFolder};
use support::process::{Output, Run};
use support::product::{generate, strongroom};
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
        assert!(message.starts_with("render the chart with helm: "), "{message}");
        assert!(message.contains(expected), "{template}:\n{message}");
    }
}

#[test]
fn a_chart_that_renders_nothing() {
    let repository = Repository::new();
    repository.write("app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 0.1.0\n");
    assert_eq!(
        refused(&repository, |run| run),
        "nothing was rendered, and deploying nothing can delete everything\n\
         help: set allowEmpty if this application may be empty"
    );
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
            "render the chart with helm: failed to parse bomb.yaml: cannot unmarshal yaml document: error converting YAML to \
             JSON: yaml: document contains excessive aliasing",
        ),
    ] {
        assert_eq!(refused(&repository, with_value_files(&[file])), expected);
    }
}

#[test]
fn one_large_file_listed_many_times() {
    let repository = with_files(&[]);
    let mut large = b"a: ".to_vec();
    large.resize(15 << 20, b'x');
    repository.write("app/large.yaml", large);
    assert_eq!(
        refused(&repository, with_value_files(&["large.yaml"; 100])),
        "open large.yaml: with the files before it, it is larger than 32 MiB"
    );
    let files = serde_json::json!({ "a": "large.yaml", "b": "large.yaml", "c": "large.yaml" }).to_string();
    assert_eq!(
        refused(&repository, |run| run.env("ARGOCD_ENV_FILE_PARAMETERS", files)),
        "open large.yaml: with the files before it, it is larger than 32 MiB"
    );
}

#[test]
fn names_that_would_be_messages_of_their_own() {
    for name in ["a\nhelp: run this.yaml", "\u{1b}[2J.yaml"] {
        let repository = with_files(&[]);
        symlink("/etc/passwd", repository.path().join("app").join(name)).unwrap();
        let message = refused(&repository, |run| run);
        assert_eq!(message, format!("read app: the file name {name:?} holds a control character"));
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

#[test]
fn a_sops_file_without_a_usable_key() {
    let (of_the_file, other, third) = (AgeKey::new(), AgeKey::new(), AgeKey::new());
    let folder = Repository::new();
    let file = folder.write("sealed.yaml", format!("password: {MARKER}\n"));
    let sealed = encrypt(&file, &["--age", &format!("{},{}", of_the_file.recipient, other.recipient)]);
    let repository = with_files(&[("sealed.yaml", &fs::read_to_string(sealed).unwrap())]);
    let keys = KeysFolder::new().with("age.txt", &third.identity).with("notes.txt", MARKER);
    let place = keys.path().display();
    let message = refused(&repository, |run| {
        with_value_files(&["sealed.yaml"])(run).env("STRONGROOM_KEYS_DIR", keys.path())
    });
    assert_eq!(
        message,
        format!(
            "open sealed.yaml: none of the file's keys could be used\n  \
             age {}: no age identity for it is loaded\n  \
             age {}: no age identity for it is loaded\n\
             help: keys folder {place}: 1 age identity\n\
             help: not used: {place}/notes.txt: not an OpenPGP secret key, age identity or SSH private key",
            of_the_file.recipient, other.recipient
        )
    );
    let arn = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    let fingerprint = "85D77543B3D624B63CEA9E6DBC17301B491B3F21";
    let others = format!(
        "sops:\n    kms: [{{arn: '{arn}', enc: AAAA}}]\n    pgp: [{{fp: {fingerprint}, enc: x}}]\n    hc_vault: [{{vault_address: \
         'https://vault.example', engine_path: sops, key_name: k, enc: x}}]\n"
    );
    let several = fs::read_to_string(&file).unwrap().replace("sops:\n", &others);
    let message = refused(&with_files(&[("sealed.yaml", &several)]), |run| {
        with_value_files(&["sealed.yaml"])(run).env("AWS_EC2_METADATA_DISABLED", "true")
    });
    let lines: Vec<_> = message.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    for (line, expected) in [
        (0, format!("kms {arn}: no AWS credentials")),
        (1, "hc_vault https://vault.example/v1/sops/keys/k: ".to_owned()),
        (2, format!("pgp {fingerprint}: no OpenPGP secret key for it is loaded")),
        (3, format!("age {}: no age identity for it is loaded", of_the_file.recipient)),
        (4, format!("age {}: no age identity for it is loaded", other.recipient)),
    ] {
        assert!(lines[line].starts_with(&expected), "{message}");
    }
    let denied = refused(&repository, |run| {
        with_value_files(&["sealed.yaml"])(run)
            .env("SOPS_AGE_KEY", &of_the_file.identity)
            .env("STRONGROOM_ALLOW_KEYS", "kms")
    });
    let denial = "app \"hello\" of project \"default\" may not open SOPS key age";
    assert!(denied.contains(denial), "{denied}");
}

#[test]
fn a_sops_file_that_was_changed() {
    const EDITED: &str = "help: change encrypted files with `strongroom edit` or `strongroom set` only";
    let key = AgeKey::new();
    let sealed = sealed_to(&key);
    let line = |start: &str| sealed.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    let without = |start: &str| sealed.replace(&format!("{}\n", line(start)), "");
    let changed = |start: &str, new: &str| sealed.replace(&line(start), new);
    let (password, port) = (line("password: "), line("port: "));
    let armor = sealed.lines().find(|line| line.contains("BEGIN AGE")).unwrap();
    for (text, expected) in [
        (
            without("port: "),
            "the MAC of the file does not match its values: a value was changed, added, removed or moved"
                .to_owned(),
        ),
        (
            sealed.replace(&password, &port.replace("port:", "password:")),
            "line 1: `password`: it was changed, moved to another key or encrypted with another data key"
                .to_owned(),
        ),
        (
            changed("password: ", &format!("password: {MARKER}")),
            format!(
                "line 1: `password`: it is not encrypted, though the rule of the file says it is\n{EDITED}"
            ),
        ),
        (
            password.replace(",tag:", ",gat:") + &sealed.replace(&password, ""),
            "line 1: `password`: not a whole encrypted value (`ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`)"
                .to_owned(),
        ),
        (without("    mac: "), "the file has no MAC".to_owned()),
        (changed("    mac: ", "    mac: x"), "the MAC of the file cannot be opened: not a whole".to_owned()),
        (
            changed("    lastmodified: ", "    lastmodified: \"2020-01-01T00:00:00Z\""),
            "the MAC of the file cannot be opened: it was changed".to_owned(),
        ),
        (
            changed("    lastmodified: ", "    lastmodified: soon"),
            "`sops.lastmodified` in the SOPS metadata is not a time".to_owned(),
        ),
        (without("    lastmodified: "), "the SOPS metadata lacks `sops.lastmodified`".to_owned()),
        (without("          recipient: "), "the SOPS metadata lacks `sops.age[0].recipient`".to_owned()),
        (
            changed("        - enc: ", "        - cne: |"),
            "the SOPS metadata lacks `sops.age[0].enc`".to_owned(),
        ),
        (without("    age:"), "line ".to_owned()),
        (
            changed("    age:", "    age: []\n    old:"),
            "the SOPS metadata lists no master key of a known kind, only `old`".to_owned(),
        ),
        (
            changed("    age:", "    quantum:"),
            "the SOPS metadata lists no master key of a known kind, only `quantum`".to_owned(),
        ),
        (sealed.replace(armor, "            x"), "none of the file's keys could be used\n  age ".to_owned()),
        (
            changed("    version: ", "    version: 4.1.0").replace(&line("    lastmodified: "), "    new: 1"),
            "the file was written by sops 4.1, which is newer than any known here: the SOPS metadata lacks \
             `sops.lastmodified`"
                .to_owned(),
        ),
    ] {
        let message = with_sealed(&text, &key);
        assert!(message.starts_with(&format!("open sealed.yaml: {expected}")), "{text}\n{message}");
    }
}

#[test]
fn a_sops_file_that_was_cut_off() {
    let key = AgeKey::new();
    let sealed = sealed_to(&key);
    // What stands behind the MAC may be missing without harm.
    let whole = sealed.find("    unencrypted_suffix: ").unwrap();
    for end in ("password: ENC[".len()..whole).step_by(sealed.len() / 40) {
        let message = with_sealed(&sealed[..end], &key);
        assert!(message.starts_with("open sealed.yaml: "), "{end}: {message}");
    }
}

/// What is said about `text`, the content of a value file, with `key` at hand.
fn with_sealed(text: &str, key: &AgeKey) -> String {
    let repository = with_files(&[("sealed.yaml", text)]);
    refused(&repository, |run| with_value_files(&["sealed.yaml"])(run).env("SOPS_AGE_KEY", &key.identity))
}

#[test]
fn references_that_the_operator_did_not_allow() {
    let repository = with_files(&[]);
    let list =
        "awssecrets://team,awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:team,file:///app/,envsubst";
    for (reference, expected) in [
        ("ref+awssecrets://teams/x", "may not open ref+awssecrets://teams/x\n"),
        ("ref+awssecrets:///team/x", "may not open ref+awssecrets:///team/x\n"),
        ("ref+awssecrets://other/team/x", "may not open ref+awssecrets://other/team/x\n"),
        ("ref+awssecrets://team%2E/x", "may not open ref+awssecrets://team./x\n"),
        ("ref+awssecrets://team/../other/x", "a segment of the path is . or .."),
        ("ref+awssecrets://team/%2e%2e/other/x", "a segment of the path is . or .."),
        ("ref+AWSSECRETS://other", "may not open ref+awssecrets://other\n"),
        (
            "ref+awssecrets://team/x?role_arn=arn:aws:iam::1:role/admin",
            "may not open ref+awssecrets://team/x with role_arn",
        ),
        ("ref+awssecrets://team/x?profile=admin", "may not open ref+awssecrets://team/x with profile"),
        (
            "ref+awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:teams-AbCdEf",
            "may not open ref+awssecrets://arn:aws:secretsmanager:eu-west-1:1:secret:teams-AbCdEf\n",
        ),
        ("ref+awsssm://team/x", "may not open ref+awsssm://team/x\n"),
        ("ref+file:///shared.yaml", "may not open ref+file:///shared.yaml\n"),
        ("ref+file://../shared.yaml", "may not open ref+file:///shared.yaml\n"),
        ("ref+file:///app/../shared.yaml", "may not open ref+file:///shared.yaml\n"),
        ("ref+sops:///app/x.yaml", "may not open ref+sops:///app/x.yaml\n"),
        ("ref+echo://x", "may not open ref+echo://x\n"),
        ("ref+awssecrets://ref+echo://team/x", "may not open ref+echo://team/x\n"),
        (
            "ref+envsubst://$AWS_SECRET_ACCESS_KEY",
            "variable AWS_SECRET_ACCESS_KEY is not listed\nhelp: the operator lists variables in STRONGROOM_ALLOW_ENV",
        ),
        ("ref+envsubst://${AWS_SECRET_ACCESS_KEY:-x}", "variable AWS_SECRET_ACCESS_KEY is not listed"),
        ("ref+envsubst://$HOME_AND_MORE", "variable HOME_AND_MORE is not listed"),
    ] {
        let message = refused(&repository, |run| {
            with_password(reference)(run)
                .env("STRONGROOM_ALLOW_REFS", list)
                .env("STRONGROOM_ALLOW_ENV", "HOME")
                .env("AWS_SECRET_ACCESS_KEY", MARKER)
        });
        assert!(message.contains(expected), "{reference}: {message}");
    }
}

#[test]
fn what_only_the_operator_can_choose() {
    let denied = "may not open ref+awssecrets://team/x\n";
    let repository = with_files(&[]);
    let variables = [
        "ALLOW_REFS",
        "STRONGROOM_ALLOW_REFS",
        "STRONGROOM_HELM",
        "STRONGROOM_KEYS_DIR",
        "AWS_ENDPOINT_URL",
        "PATH",
    ];
    let message = refused(&repository, |run| {
        let run = with_password("ref+awssecrets://team/x")(run);
        variables.iter().fold(run, |run, name| run.env(format!("ARGOCD_ENV_{name}"), "*"))
    });
    assert!(message.contains(denied), "{message}");
    for setting in
        ["allowRefs", "helm", "keysDir", "STRONGROOM_ALLOW_REFS", "ignoreMac", "postRenderer", "plugins"]
    {
        let parameter = serde_json::json!([{ "name": setting, "string": "*" }]).to_string();
        let message = refused(&repository, |run| run.env("ARGOCD_APP_PARAMETERS", parameter));
        assert!(message.starts_with(&format!("parameter {setting:?} is not known\nhelp: ")), "{message}");
        let message = refused(&with_files(&[(".strongroom.yaml", &format!("{setting}: '*'\n"))]), |run| run);
        assert!(
            message.starts_with(&format!(".strongroom.yaml: {setting:?} is not known\nhelp: ")),
            "{message}"
        );
    }
}

#[test]
fn what_an_operator_wrote_wrong() {
    const RELATIVE: &str = "is not an absolute path, so a repository could bring its own";
    let repository = with_files(&[("token", MARKER)]);
    let schemes = "\"awssecret\" is no scheme\nhelp: there are awskms, awssecrets, awsssm, ";
    let kinds =
        "\"gpg\" is no kind of SOPS key\nhelp: there are age, azure_kv, gcp_kms, hc_vault, hckms, kms, pgp";
    for (variable, value, expected) in [
        ("STRONGROOM_ALLOW_REFS", "echo,awssecret://team/", format!("read STRONGROOM_ALLOW_REFS: {schemes}")),
        ("STRONGROOM_ALLOW_KEYS", "age,gpg:ABCD", format!("read STRONGROOM_ALLOW_KEYS: {kinds}")),
        (
            "STRONGROOM_ALLOW_ENV",
            "$HOME",
            "read STRONGROOM_ALLOW_ENV: \"$HOME\" is no name of a variable\nhelp: a name is letters, digits and _, \
             without $"
                .to_owned(),
        ),
        (
            "STRONGROOM_ALLOW_ADDRESSES",
            "htps://vault.example",
            "read STRONGROOM_ALLOW_ADDRESSES: \"htps://vault.example\" is no address: it must be an https:// or \
             http:// URL"
                .to_owned(),
        ),
        (
            "VAULT_TOKEN_FILE",
            "token",
            format!("use VAULT_TOKEN_FILE: \"token\" {RELATIVE}\nhelp: write the whole path, such as /etc/strongroom/token"),
        ),
        ("STRONGROOM_KEYS_DIR", "keys", format!("use STRONGROOM_KEYS_DIR: \"keys\" {RELATIVE}")),
        ("GOOGLE_APPLICATION_CREDENTIALS", "./token", format!("use GOOGLE_APPLICATION_CREDENTIALS: \"./token\" {RELATIVE}")),
    ] {
        let message = generate(&repository, "app").env(variable, value).fails();
        assert!(message.starts_with(&format!("strongroom: failed to {expected}")), "{variable}: {message}");
        assert!(!message.contains(MARKER), "{variable}: {message}");
    }
}

#[test]
fn what_helm_secrets_would_run_or_read() {
    let script = format!("#!/bin/sh\necho {MARKER} > \"$TMPDIR/was-run\"\n");
    let repository = with_files(&[("evil.sh", &script), ("values/a.yaml", "a: 1\n")]);
    let evil = repository.path().join("app/evil.sh");
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let other_backend = "names a backend other than `sops` and `vals`";
    for (file, expected) in [
        ("secrets://./evil.sh!values/a.yaml", format!("value file \"secrets://./evil.sh!values/a.yaml\" {other_backend}")),
        ("secrets://evil!a", format!("value file \"secrets://evil!a\" {other_backend}")),
        ("./evil.sh!x", "./evil.sh!x: no such file or directory in the repository".to_owned()),
        (
            "secrets+age-import:///etc/../x?values/a.yaml",
            "open secrets+age-import:///etc/../x?values/a.yaml: the key \"/etc/../x\" is not in the keys folder".to_owned(),
        ),
        (
            "secrets+gpg-import:///proc/self/environ?values/a.yaml",
            "open secrets+gpg-import:///proc/self/environ?values/a.yaml: the key \"/proc/self/environ\" is not in the \
             keys folder"
                .to_owned(),
        ),
        (
            "secrets+age-import-kubernetes://ns/name#key?values/a.yaml",
            "value file \"secrets+age-import-kubernetes://ns/name#key?values/a.yaml\" takes a key from the cluster, \
             which is not done\nhelp: mount the key into the keys folder and write secrets://FILE"
                .to_owned(),
        ),
        (
            "secrets+literal://vals!ref+exec://sh",
            "value file \"secrets+literal://vals!ref+exec://sh\" is no file\n\
             help: write the reference into `values` or `parameters`"
                .to_owned(),
        ),
        (
            "https://127.0.0.1/values.yaml",
            "value file \"https://127.0.0.1/values.yaml\" is a URL, which is not fetched\n\
             help: keep the file in the repository"
                .to_owned(),
        ),
        (
            "git+https://127.0.0.1/a?b=c",
            "value file \"git+https://127.0.0.1/a?b=c\" has an unknown scheme\nhelp: write a path, or \
             `secrets://FILE` as for helm-secrets; a file with SOPS metadata needs no prefix"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(&repository, with_value_files(&[file])), expected);
    }
    let script = serde_json::json!({ "password": "./evil.sh!x" }).to_string();
    let opened = generate(&repository, "app").env("ARGOCD_ENV_PARAMETERS", script).ok();
    assert!(opened.contains(&STANDARD.encode("./evil.sh!x")), "a value is a value: {opened}");
}

#[test]
fn references_that_cannot_be_resolved() {
    const ALLOWED: &str = "help: the operator allows references with STRONGROOM_ALLOW_REFS";
    let repository = with_files(&[("data.yaml", &format!("a: [{MARKER}]\n"))]);
    let denied = |what: &str| format!("app \"hello\" of project \"default\" may not open {what}\n{ALLOWED}");
    for (reference, expected) in [
        ("ref+awssecret://x", "unknown scheme \"awssecret\"\nhelp: did you mean awssecrets?".to_owned()),
        ("ref+pulumistateapi://x#/a", "scheme pulumistateapi is not supported yet".to_owned()),
        (
            "ref+exec://sh#/a",
            "scheme exec is refused: it would let a repository run programs here".to_owned(),
        ),
        ("ref+awssecrets://team/x", denied("ref+awssecrets://team/x")),
        ("ref+awsssm://team/x", denied("ref+awsssm://team/x")),
        ("ref+envsubst://$HOME", denied("ref+envsubst://$HOME")),
        (
            "ref+file://absent.yaml#/a",
            "/app/absent.yaml: no such file or directory in the repository".to_owned(),
        ),
        (
            "ref+sops://absent.yaml#/a",
            "/app/absent.yaml: no such file or directory in the repository".to_owned(),
        ),
        ("ref+sops://data.yaml#/a", "the file has no SOPS metadata".to_owned()),
        ("ref+file://data.yaml#/b", "no key \"b\"".to_owned()),
        ("ref+file://data.yaml#/a/1", "no item \"1\" below \"a\"".to_owned()),
        (
            "ref+echo://%zz",
            "a % that two hex digits do not follow\nhelp: a percent sign itself is written %25".to_owned(),
        ),
        (
            "ref+echo://a?optoinal=true",
            "scheme echo has no option \"optoinal\"\nhelp: did you mean optional?".to_owned(),
        ),
    ] {
        let message = refused(&repository, with_password(reference));
        let shown = reference.replace("=true", "=***");
        assert_eq!(message, format!("resolve password of parameter \"values\": {shown}: {expected}"));
    }
    let unlike = refused(&repository, with_password("ref+nonsense://x"));
    assert!(unlike.contains("unknown scheme \"nonsense\"\nhelp: known schemes are awskms, "), "{unlike}");
    assert!(unlike.ends_with("; a literal ref+ is written ref++"), "{unlike}");
    let parameters = r#"[{"name":"parameters","map":{"db.password":"ref+exec://sh"}}]"#;
    assert_eq!(
        refused(&repository, |run| run.env("ARGOCD_APP_PARAMETERS", parameters)),
        "resolve db.password of parameters: ref+exec://sh: scheme exec is refused: it would let a repository run \
         programs here"
    );
    let values = "a: ref+exec://x\nb: {c: ref+file://absent}\n";
    assert_eq!(
        refused(&repository, |run| run.env("ARGOCD_ENV_VALUES", values)),
        "resolve 2 references:\n  \
         a of parameter \"values\": ref+exec://x: scheme exec is refused: it would let a repository run programs here\n  \
         b.c of parameter \"values\": ref+file://absent: /app/absent: no such file or directory in the repository"
    );
}

#[test]
fn parameters_that_are_not_what_argo_cd_writes() {
    const SHAPE: &str = "ARGOCD_APP_PARAMETERS is not a list of parameters\n\
                         help: each has a `name`, and a `string`, an `array` of strings or a `map` of strings";
    let repository = with_files(&[]);
    for (parameters, expected) in [
        ("{", "ARGOCD_APP_PARAMETERS is not JSON (line 1, column 1)"),
        ("STRONGROOM-MARKER", "ARGOCD_APP_PARAMETERS is not JSON (line 1, column 1)"),
        ("[{\"name\":\"STRONGROOM-MARKER]", "ARGOCD_APP_PARAMETERS is not JSON (line 1, column 28)"),
        ("{}", SHAPE),
        ("[1]", SHAPE),
        (r#"[{"string":"a"}]"#, SHAPE),
        (r#"[{"name":"valueFiles","array":[1]}]"#, "parameter \"valueFiles\" must be an array of strings"),
        (r#"[{"name":"valueFiles","string":"a"}]"#, "parameter \"valueFiles\" must be an array of strings"),
        (r#"[{"name":"valueFiles"}]"#, "parameter \"valueFiles\" must be an array of strings"),
        (
            r#"[{"name":"parameters","map":{"a":{"b":"STRONGROOM-MARKER"}}}]"#,
            "parameter \"parameters\" must be a map of strings",
        ),
        (r#"[{"name":"releaseName","array":["a"]}]"#, "parameter \"releaseName\" must be a string"),
        (
            r#"[{"name":"skipCrds","string":"STRONGROOM-MARKER"}]"#,
            "parameter \"skipCrds\" must be true or false",
        ),
        (r#"[{"name":"releaseName","string":"a\u0000"}]"#, "parameter \"releaseName\" holds a NUL character"),
        (
            r#"[{"name":"valueFile","array":["a"]}]"#,
            "parameter \"valueFile\" is not known\nhelp: did you mean \"valueFiles\"?",
        ),
        (
            r#"[{"name":"skipCrds","string":"true"},{"name":"skipCrds","string":"true"}]"#,
            "parameter \"skipCrds\" is given twice",
        ),
        (
            r#"[{"name":"values","string":"a: ["}]"#,
            "open parameter \"values\": line 1, column 4: unclosed bracket '['",
        ),
        (
            r#"[{"name":"values","string":"- a"}]"#,
            "open parameter \"values\": it holds a list, not a mapping of values",
        ),
        (
            r#"[{"name":"parameters","map":{"a[x":"STRONGROOM-MARKER"}}]"#,
            "set values: --set: the index of a must be a number from 0 to 65536",
        ),
        (
            r#"[{"name":"parameters","map":{"a":"{STRONGROOM-MARKER}","a.b":"x"}}]"#,
            "set values: --set: a.b goes through a value that another flag sets to something else",
        ),
    ] {
        assert_eq!(refused(&repository, |run| run.env("ARGOCD_APP_PARAMETERS", parameters)), expected);
    }
    let unlike =
        refused(&repository, |run| run.env("ARGOCD_APP_PARAMETERS", r#"[{"name":"x","string":""}]"#));
    assert!(
        unlike.starts_with("parameter \"x\" is not known\nhelp: the names are releaseName, "),
        "{unlike}"
    );
    let flags = r#"[{"name":"releaseName","string":"--post-renderer=/bin/sh"},{"name":"namespace","string":"--debug"}]"#;
    let flags = refused(&repository, |run| run.env("ARGOCD_APP_PARAMETERS", flags));
    assert!(flags.contains("release name \"--post-renderer=/bin/sh\": invalid release name"), "{flags}");
}

#[test]
fn settings_in_other_places() {
    for (file, expected) in [
        (
            "valueFile: [a]",
            ".strongroom.yaml: \"valueFile\" is not known\nhelp: did you mean \"valueFiles\"?",
        ),
        ("valueFiles: a", ".strongroom.yaml: \"valueFiles\" must be an array of strings"),
        ("valueFiles: [a", "read .strongroom.yaml: line 1, column 13: unclosed bracket '['"),
        ("- a", ".strongroom.yaml is not a YAML mapping"),
        ("a: &a [*a]", ".strongroom.yaml: \"a\" is not known"),
    ] {
        let message = refused(&with_files(&[(".strongroom.yaml", file)]), |run| run);
        assert!(message.starts_with(expected), "{message}");
    }
    let repository = with_files(&[]);
    for (name, value, expected) in [
        ("ARGOCD_ENV_SKIP_CRDS", "maybe", "environment variable ARGOCD_ENV_SKIP_CRDS must be true or false"),
        (
            "ARGOCD_ENV_PARAMETERS",
            MARKER,
            "environment variable ARGOCD_ENV_PARAMETERS must be a map of strings",
        ),
        (
            "ARGOCD_ENV_VALUEFILES",
            "a.yaml",
            "environment variable ARGOCD_ENV_VALUEFILES is not known\nhelp: did you mean ARGOCD_ENV_VALUE_FILES?",
        ),
    ] {
        assert_eq!(refused(&repository, |run| run.env(name, value)), expected);
    }
}

/// The variables that bring the product to a store at `url`.
fn with_store(url: &str, reference: &str) -> impl FnOnce(Run) -> Run {
    let (url, with_password) = (url.to_owned(), with_password(reference));
    move |run| {
        with_password(run)
            .env("STRONGROOM_ALLOW_REFS", "awssecrets")
            .env("AWS_ENDPOINT_URL", url)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", MARKER)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }
}

#[test]
fn a_region_that_would_be_another_host() {
    let repository = with_files(&[]);
    for reference in [
        "ref+awssecrets://team/x?region=a@127.0.0.1/%23",
        "ref+awssecrets://team/x?region=evil.example/",
        "ref+awssecrets://team/x?region=EU",
        "ref+awssecrets://arn:aws:secretsmanager:evil.example:1:secret:x-AbCdEf",
    ] {
        let message = refused(&repository, with_store("http://127.0.0.1:9", reference));
        let expected = "the region is not a name\nhelp: it is letters, digits and hyphens, such as eu-west-1";
        assert_eq!(message, format!("resolve password of parameter \"values\": {reference}: {expected}"));
    }
}

const STORED: &str = "resolve password of parameter \"values\": ref+awssecrets://team/x: ";

#[test]
fn a_store_that_says_no() {
    let repository = with_files(&[]);
    let refusing = |code, message, times| {
        let secrets = [("team/x".to_owned(), format!("{MARKER}-stored"))];
        FakeSecretsManager::start_refusing(&secrets, Refusal { code, message, times })
    };
    let denial = "User: arn:aws:iam::1:user/a is not authorized to perform: secretsmanager:GetSecretValue";
    let denying = refusing("AccessDeniedException", denial, usize::MAX);
    let message = refused(&repository, with_store(&denying.url(), "ref+awssecrets://team/x"));
    assert_eq!(message, format!("{STORED}AWS says AccessDeniedException: {denial}"));
    let optional = "ref+awssecrets://team/x?optional=true";
    let message = refused(&repository, with_store(&denying.url(), optional));
    assert!(message.ends_with(denial), "only what is not found is forgiven: {message}");

    let missing = refusing("ResourceNotFoundException", MARKER, usize::MAX);
    let message = refused(&repository, with_store(&missing.url(), "ref+awssecrets://team/x"));
    assert_eq!(message, format!("{STORED}AWS says ResourceNotFoundException"));

    let serving = refusing("", "", 0);
    let message = refused(&repository, with_store(&serving.url(), "ref+awssecrets://team/x#/key"));
    assert!(message.starts_with(STORED.trim_end_matches(": ")), "{message}");
    assert!(message.contains("ref+awssecrets://team/x#/key: "), "{message}");
}

#[test]
fn a_store_that_throttles_is_asked_again() {
    let repository = with_files(&[]);
    let throttling = |times| {
        let refusal = Refusal { code: "ThrottlingException", message: "Rate exceeded", times };
        FakeSecretsManager::start_refusing(&[("team/x".to_owned(), MARKER.to_owned())], refusal)
    };
    let twice = throttling(2);
    let run = with_store(&twice.url(), "ref+awssecrets://team/x")(generate(&repository, "app"));
    assert!(run.ok().contains(&STANDARD.encode(MARKER)));
    assert_eq!(twice.answered(), 3);

    let always = throttling(usize::MAX);
    let message = refused(&repository, |run| {
        with_store(&always.url(), "ref+awssecrets://team/x")(run).env("STRONGROOM_TIMEOUT", "14")
    });
    assert!(message.starts_with(&format!("{STORED}AWS says ThrottlingException; and so ")), "{message}");
    assert!(message.contains(" times, until the render's deadline\nhelp: STRONGROOM_TIMEOUT "), "{message}");
    assert!(
        always.answered() > 5,
        "as often as the deadline allows, with pauses between: {}",
        always.answered()
    );
}

#[test]
fn a_store_that_never_answers() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let started = Instant::now();
    let message = refused(&with_files(&[]), |run| {
        with_store(&url, "ref+awssecrets://team/x")(run).env("STRONGROOM_TIMEOUT", "2")
    });
    assert_eq!(message, format!("{STORED}{}", strongroom::scope::TOO_LATE));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// A program in the place of helm, in a folder of its own.
struct FakeHelm(TempDir);

impl FakeHelm {
    fn new(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let started = folder.path().join("started");
        let script = format!("#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\n{script}\n", started.display());
        let helm = folder.path().join("helm");
        fs::write(&helm, script).unwrap();
        fs::set_permissions(&helm, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("helm")
    }

    /// Its process group, once it runs.
    fn group(&self) -> Pid {
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            if let Ok(text) = fs::read_to_string(self.0.path().join("started")) {
                return Pid::from_raw(text.trim().parse().unwrap()).unwrap();
            }
            assert!(Instant::now() < end, "helm was not started");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn assert_gone(&self) {
        let group = self.group().as_raw_nonzero().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let left: Vec<_> = processes.filter(|process| is_alive_in(&group, &process.path())).collect();
        assert!(left.is_empty(), "helm, or what it started, is still there: {left:?}");
    }
}

/// Whether the process of this folder of `/proc` runs in `group`. What was ended and not yet collected does not.
fn is_alive_in(group: &str, process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let Some((_, behind_name)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<_> = behind_name.split_whitespace().collect();
    fields.get(2) == Some(&group) && fields.first() != Some(&"Z")
}

#[test]
fn a_helm_that_cannot_be_used() {
    let repository = with_files(&[]);
    for (helm, expected) in [
        (
            "/nowhere/helm",
            "/nowhere/helm not found\nhelp: install helm 3.14 or newer, or set STRONGROOM_HELM to its path",
        ),
        ("helm", "helm not found\nhelp: install helm 3.14 or newer, or set STRONGROOM_HELM to its path"),
    ] {
        assert_eq!(refused(&repository, |run| run.env("STRONGROOM_HELM", helm)), expected);
    }
    let (path, said) = ("STRONGROOM_HELM", |helm: &FakeHelm| helm.path().display().to_string());
    let old =
        "case $1 in version) echo v3.13.3+g3a31588;; *) echo 'Error: unknown flag: --qps' >&2; exit 1;; esac";
    for (script, expected) in [
        (
            old,
            "HELM is v3.13.3+g3a31588, which is too old\nhelp: strongroom works with helm 3.14 or newer and helm 4",
        ),
        (
            "kill -KILL $$",
            "run helm: HELM was killed by SIGKILL, which the kernel also sends when memory runs out",
        ),
        ("kill -SEGV $$", "run helm: HELM was killed by SIGSEGV"),
        ("exit 3", "render the chart with helm: it failed with exit code 3 and said nothing"),
        ("echo partial; exit 1", "render the chart with helm: it failed with exit code 1 and said nothing"),
    ] {
        let helm = FakeHelm::new(script);
        let message = refused(&repository, |run| run.env(path, helm.path()));
        assert!(message.starts_with(&expected.replace("HELM", &said(&helm))), "{script}: {message}");
    }
}

#[test]
fn a_helm_that_is_silent_is_ended() {
    let helm = FakeHelm::new("sleep 86423 & sleep 86424");
    let message = refused(&with_files(&[]), |run| {
        run.env("STRONGROOM_HELM", helm.path()).env("STRONGROOM_TIMEOUT", "1")
    });
    let expected = format!("run helm: {} was still running after 1.", helm.path().display());
    assert!(message.starts_with(&expected), "{message}");
    assert!(
        message.ends_with("\nhelp: the operator gives renders more time with STRONGROOM_TIMEOUT"),
        "{message}"
    );
    helm.assert_gone();
}

#[test]
fn a_signal_while_a_store_is_silent() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let repository = with_files(&[]);
    let run = with_store(&url, "ref+awssecrets://team/x")(generate(&repository, "app"));
    let mut command = run.into_command();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asking = silent.accept().unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(143), Vec::new()));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "strongroom: stopped by SIGTERM\n");
    drop(asking);
}

#[test]
fn logs_of_every_level_show_no_secret() {
    let key = AgeKey::new();
    let repository = with_files(&[("sealed.yaml", &sealed_to(&key))]);
    let stored = FakeSecretsManager::start(&[("team/x".to_owned(), MARKER.to_owned())], Duration::ZERO);
    for reference in ["ref+awssecrets://team/x", "ref+awssecrets://team/y"] {
        let run = with_store(&stored.url(), reference)(generate(&repository, "app"));
        let run = run.env("ARGOCD_ENV_VALUE_FILES", "sealed.yaml").env("SOPS_AGE_KEY", &key.identity);
        let run = run.env("AWS_SESSION_TOKEN", format!("{MARKER}-token"));
        let stderr = run.env("STRONGROOM_LOG", "trace").env("STRONGROOM_LOG_FORMAT", "json").output().stderr;
        assert!(stderr.contains("data key opened"), "{stderr}");
        assert!(!stderr.contains(MARKER) && !stderr.contains(&STANDARD.encode(MARKER)), "{stderr}");
        assert!(!stderr.contains(&key.identity), "{stderr}");
    }
}

#[test]
fn the_other_commands() {
    let repository = with_files(&[("tab.yaml", &format!("a:\n\t- {MARKER}\n")), ("plain.yaml", "a: 1\n")]);
    let app = repository.path().join("app");
    for (arguments, code, expected) in [
        (&["decrypt", "absent"][..], 100, "failed to read absent: No such file or directory (os error 2)"),
        (&["decrypt", "plain.yaml"], 1, "failed to decrypt plain.yaml: the file has no SOPS metadata"),
        (
            &["decrypt", "tab.yaml"],
            1,
            "failed to decrypt tab.yaml: line 2, column 2: tabs disallowed within this context (block indentation)",
        ),
        (
            &["resolve", "-f", "tab.yaml"],
            1,
            "failed to open tab.yaml: line 2, column 2: tabs disallowed within this context (block indentation)",
        ),
        (&["get", MARKER], 2, "not a reference\nhelp: it has the form ref+scheme://path#/key"),
        (
            &["get", "ref+exec://x"],
            1,
            "failed to resolve ref+exec://x: scheme exec is refused: it would let a repository run programs here",
        ),
        (&["template", "a", "."], 1, "failed to render the chart with helm: "),
        (
            &["template", "a", "/nowhere"],
            1,
            "failed to read /nowhere: No such file or directory (os error 2)",
        ),
        (
            &["template", "a", ".", "-f", "absent.yaml"],
            1,
            "failed to open absent.yaml: No such file or directory (os error 2)",
        ),
        (
            &["template", "a", ".", "--set", MARKER],
            1,
            "failed to set values: --set: no value after the first key\n\
             help: it is key=value; a comma inside of a value is written \\,",
        ),
        (
            &["template", "--application", "plain.yaml"],
            1,
            "failed to read plain.yaml: holds no object of kind Application",
        ),
    ] {
        let output = strongroom().args(arguments).directory(&app).output();
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(code), ""), "{arguments:?}");
        let message = output.stderr.strip_prefix("strongroom: ").unwrap_or_default();
        assert!(message.starts_with(expected), "{arguments:?}: {}", output.stderr);
        assert!(!message.contains(MARKER), "{message}");
    }
}

#[test]
fn a_signal_in_the_middle_of_a_render() {
    let helm = FakeHelm::new("sleep 86425");
    let (repository, temporary) = (with_files(&[]), TempDir::new().unwrap());
    let before = repository.snapshot();
    for (signal, code, name) in [(Signal::TERM, 143, "SIGTERM"), (Signal::INT, 130, "SIGINT")] {
        let run = with_password(MARKER)(generate(&repository, "app")).env("STRONGROOM_HELM", helm.path());
        let mut command = run.env("TMPDIR", temporary.path()).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        helm.group();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("strongroom: stopped by {name}\n"));
        helm.assert_gone();
        fs::remove_file(helm.0.path().join("started")).unwrap();
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left in TMPDIR");
    assert_eq!(repository.snapshot(), before, "the repository was changed");
}
