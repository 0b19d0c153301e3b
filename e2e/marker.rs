//! The hunt for the marker that every test secret holds: with all that can be logged logged, after success and after
//! every failure, it must stand in no message, in no argument and no variable of helm, and in no file. A run that is
//! stopped in the middle leaves nothing behind either.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use support::MARKER;
use support::fake_aws::FakeSecretsManager;
use support::keys::{AgeKey, KeysFolder};
use support::process::{Output, Run};
use support::product::{generate, strongroom};
use support::repository::{Repository, list};
use support::sops::encrypt;
use support::wrapped_helm::{WrappedHelm, group_members};

/// All that can be asked for, also of libraries by name.
const LOUDEST: &str = "trace,hyper=trace,aws_smithy_runtime::client=trace,aws_smithy_http_client=trace";

/// An application with secrets of every origin, and folders that must stay as they are.
struct Scene {
    repository: Repository,
    keys: KeysFolder,
    store: FakeSecretsManager,
    home: TempDir,
    helm: WrappedHelm,
}

impl Scene {
    fn new(helm: WrappedHelm) -> Self {
        Self::with_latency(helm, Duration::ZERO)
    }

    /// With a store that lets its clients wait.
    fn with_latency(helm: WrappedHelm, latency: Duration) -> Self {
        let key = AgeKey::new();
        let repository = Repository::with_secret_chart();
        let app = |name: &str| Path::new("app").join(name);
        repository.write(app("values.yaml"), "password: ref+awssecrets://team/db#/password\n");
        let sealed = format!("sealed: {MARKER}-sops\nmap: {{text: '{MARKER}-map', number: 5432}}\n");
        encrypt(&repository.write(app("sealed.yaml"), &sealed), &["--age", &key.recipient]);
        encrypt(&repository.write(app("other.yaml"), &sealed), &["--age", &AgeKey::new().recipient]);
        let text = fs::read_to_string(repository.path().join("app/sealed.yaml")).unwrap();
        repository.write(app("cut.yaml"), &text[..text.len() / 2]);
        repository.write(app("tampered.yaml"), text.replacen("lastmodified: \"20", "lastmodified: \"19", 1));
        repository.write(app("added.yaml"), format!("added: {MARKER}-added\n{text}"));
        repository.write(app("broken.yaml"), format!("a: [{MARKER}-broken\nb: }}\n"));
        repository.write(app("list.yaml"), format!("- {MARKER}-list\n"));
        repository.write(app("token.txt"), format!("{MARKER}-token: [not yaml\n"));
        repository.write(app("latin.yaml"), [b"a: ", MARKER.as_bytes(), b"\xff\n"].concat());
        let document =
            format!("{{\"password\": \"{MARKER}-store\", \"port\": 5432, \"list\": [\"{MARKER}\"]}}");
        let secrets =
            [("team/db".to_owned(), document), ("team/text".to_owned(), format!("{MARKER}: [text"))];
        Self {
            repository,
            keys: KeysFolder::new().with("age.txt", &key.identity),
            store: FakeSecretsManager::start(&secrets, latency),
            home: TempDir::new().unwrap(),
            helm,
        }
    }

    fn generate(&self) -> Run {
        let value_files = json!([{"name": "valueFiles", "array": ["sealed.yaml"]}]);
        self.hunted(generate(&self.repository, "app"))
            .env("ARGOCD_APP_PARAMETERS", value_files.to_string())
            .env("STRONGROOM_ALLOW_REFS", "awssecrets,sops,file,echo,envsubst")
            .env("STRONGROOM_ALLOW_ENV", "STORIES_TOKEN")
            .env("STORIES_TOKEN", format!("{MARKER}-env"))
    }

    /// With every way of talking on, and with homes of its own.
    fn hunted(&self, run: Run) -> Run {
        run.env("STRONGROOM_LOG", LOUDEST)
            .env("STRONGROOM_HELM", self.helm.path())
            .env("STRONGROOM_KEYS_DIR", self.keys.path())
            .env("TMPDIR", self.home.path())
            .env("HOME", self.home.path())
            .env("AWS_ENDPOINT_URL", self.store.url())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", format!("{MARKER}-aws"))
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("RUST_BACKTRACE", "full")
            // Makes the AWS SDK log what it received.
            .env("LOG_SENSITIVE_BODIES", "true")
    }

    /// What is in the repository and in the homes.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = self.repository.snapshot();
        list(self.home.path(), &mut files);
        files.sort();
        files
    }
}

/// The marker as text, in capitals or not, and as base64 at any place of a longer text.
fn holds_marker(text: &str) -> bool {
    let encoded = (0..3).map(|shift| {
        let text = STANDARD_NO_PAD.encode(format!("{}{MARKER}", "x".repeat(shift)));
        // The first and the last characters depend on what stands around.
        text[(shift * 8).div_ceil(6)..text.len() - 2].to_owned()
    });
    text.to_uppercase().contains(MARKER) || encoded.into_iter().any(|form| text.contains(&form))
}

#[test]
fn the_hunt_finds_the_marker_where_it_is() {
    for text in [
        format!("a{MARKER}b"),
        MARKER.to_lowercase(),
        STANDARD_NO_PAD.encode(format!("user:{MARKER}-x")),
        STANDARD_NO_PAD.encode(format!("a:{MARKER}")),
        STANDARD_NO_PAD.encode(MARKER),
    ] {
        assert!(holds_marker(&text), "{text}");
    }
    assert!(!holds_marker("STRONGROOM"));
}

#[test]
fn a_render_shows_its_secrets_to_nobody_but_standard_output() {
    let scene = Scene::new(WrappedHelm::real());
    scene.repository.write("app/notes.txt", format!("{MARKER}-notes"));
    let before = scene.files();
    let settings = json!([
        {"name": "valueFiles", "array": ["sealed.yaml"]},
        {"name": "values", "string": format!("inline: {MARKER}-inline\nenv: ref+envsubst://$STORIES_TOKEN\n")},
        {"name": "parameters", "map": {
            "set": format!("{MARKER}-set"), "list[0]": "ref+awssecrets://team/db#/list/0", "n": "ref+sops://sealed.yaml#/map/number"}},
        {"name": "stringParameters", "map": {"deep.string": format!("{MARKER}-string"), "list[1].a": format!("{MARKER}-item")}},
        {"name": "fileParameters", "map": {"file": "notes.txt"}},
    ]);
    scene.repository.write(
        "app/templates/all.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: all\nstringData:\n  all: {{ toJson .Values | quote }}\n",
    );
    let before = [before, vec![]].concat();
    let all = scene.repository.path().join("app/templates/all.yaml");
    for format in ["text", "json"] {
        let output = scene
            .generate()
            .env("STRONGROOM_LOG_FORMAT", format)
            .env("ARGOCD_APP_PARAMETERS", settings.to_string())
            .output();
        assert!(output.status.success(), "{}", output.stderr);
        for origin in ["store", "sops", "map", "inline", "env", "set", "string", "item", "notes"] {
            assert!(output.stdout.contains(&format!("{MARKER}-{origin}")), "{origin}: {}", output.stdout);
        }
        assert!(!output.stderr.is_empty(), "nothing was logged");
        assert!(!holds_marker(&output.stderr), "{}", output.stderr);
    }
    let seen = scene.helm.seen();
    assert!(seen.contains("template") && seen.contains("memfd:"), "{seen}");
    assert!(!holds_marker(&seen), "{seen}");
    let after: Vec<_> = scene.files().into_iter().filter(|(path, _)| *path != all).collect();
    assert_eq!(after, before, "the repository or a home was changed");
}

/// Helm warns of values that hide each other, and prints them.
#[test]
fn warnings_of_helm_are_logged_without_secrets() {
    let scene = Scene::new(WrappedHelm::real());
    scene.repository.write("app/values.yaml", "password: x\nsealed: {a: b}\nmap: text\n");
    let output = scene.generate().output();
    assert!(output.status.success(), "{}", output.stderr);
    assert!(output.stderr.contains("warning: "), "helm did not warn: {}", output.stderr);
    assert!(!holds_marker(&output.stderr), "{}", output.stderr);
}

/// What goes wrong: a template of the chart, and settings.
fn failures() -> Vec<(&'static str, Option<&'static str>, Json)> {
    let files = |file: &str| json!([{"name": "valueFiles", "array": ["sealed.yaml", file]}]);
    let values = |text: &str| json!([{"name": "values", "string": text}]);
    let template = |text| (text, Some(text), files("sealed.yaml"));
    vec![
        template("{{ fail .Values.sealed }}"),
        template("{{ fail (toJson .Values) }}"),
        template("{{ fail (b64enc .Values.password) }}"),
        template("{{ fail (printf \"user:%s\" .Values.password | b64enc) }}"),
        template("{{ fail (toYaml .Values | quote) }}"),
        template("{{ .Values.sealed.absent }}"),
        template("{{ index .Values.sealed \"x\" }}"),
        template("{{ .Values.password | fromJson | required \"x\" }}{{ fail \"x\" }}"),
        template("{{ mustFromJson .Values.password }}"),
        template("{{ mustToDate \"2006\" .Values.password }}"),
        template("{{ tpl (printf \"{{ %s\" .Values.password) . }}"),
        template("{{ include .Values.password . }}"),
        template("{{ regexMatch (printf \"[%s\" .Values.password) \"x\" | required \"x\" }}{{ fail \"x\" }}"),
        template("a: {{ .Values.password }}: [\n"),
        template("apiVersion: v1\nkind: {{ .Values.password }}\nmetadata: {name: a}\ndata: [\n"),
        template("- {{ .Values.password }}\n"),
        template(
            "apiVersion: v1\nkind: A\nmetadata: {name: '{{ .Values.password }}'}\nx: ref+awssecrets://a\n",
        ),
        template("apiVersion: v1\nkind: A\nx:\n  {{ .Values.password }}: ref+awssecrets://a\n"),
        ("no key", None, files("other.yaml")),
        ("cut off", None, files("cut.yaml")),
        ("tampered", None, files("tampered.yaml")),
        ("added", None, files("added.yaml")),
        ("broken", None, files("broken.yaml")),
        ("list", None, files("list.yaml")),
        ("not UTF-8", None, files("latin.yaml")),
        ("missing", None, files("absent.yaml")),
        ("not YAML", None, values(&format!("a: [{MARKER}\nb: }}"))),
        ("missing key", None, values("a: ref+awssecrets://team/db#/password/deeper")),
        ("missing field", None, values("a: ref+awssecrets://team/db#/absent")),
        ("no such item", None, values("a: ref+awssecrets://team/db#/list/7")),
        ("missing secret", None, values("a: ref+awssecrets://team/absent")),
        ("not a document", None, values("a: ref+awssecrets://team/text#/a")),
        ("file that is no document", None, values("a: ref+file://token.txt#/a")),
        ("missing in sops", None, values("a: ref+sops://sealed.yaml#/sealed/deeper")),
        ("sops without key", None, values("a: ref+sops://other.yaml#/sealed")),
        ("sops that is plain", None, values("a: ref+sops://list.yaml#/0")),
        ("not listed", None, values("a: ref+envsubst://$AWS_SECRET_ACCESS_KEY")),
        ("unknown scheme", None, values("a: ref+nothing://team/db\nb: ref+awssecrets://team/db#/absent")),
        ("set", None, json!([{"name": "parameters", "map": {"a[x": MARKER, "b": MARKER}}])),
        ("set in a map", None, json!([{"name": "parameters", "map": {"a": MARKER, "a.b": MARKER}}])),
        ("no map", None, json!([{"name": "parameters", "map": {"a": [MARKER]}}])),
        ("wrong type", None, json!([{"name": "valueFiles", "string": MARKER}])),
        ("not parameters", None, json!({"secret": MARKER})),
        ("not known", None, json!([{"name": "value", "string": MARKER}])),
    ]
}

#[test]
fn no_failure_shows_a_secret() {
    let scene = Scene::new(WrappedHelm::real());
    for (name, template, settings) in failures() {
        let path = "app/templates/failing.yaml";
        match template {
            Some(text) => drop(scene.repository.write(path, text)),
            None => drop(fs::remove_file(scene.repository.path().join(path))),
        }
        let before = scene.files();
        let output = scene.generate().env("ARGOCD_APP_PARAMETERS", settings.to_string()).output();
        is_silent(name, &output);
        assert_eq!(scene.files(), before, "{name}: the repository or a home was changed");
    }
    let seen = scene.helm.seen();
    assert!(!holds_marker(&seen), "{seen}");
}

/// It failed, said so, and showed nothing.
fn is_silent(name: &str, output: &Output) {
    assert!(!output.status.success(), "{name} did not fail:\n{}", output.stdout);
    assert_eq!(output.stdout, "", "{name}");
    assert!(output.stderr.contains("strongroom: "), "{name}: {}", output.stderr);
    assert!(!output.stderr.contains("internal error"), "{name}: {}", output.stderr);
    assert!(!holds_marker(&output.stderr), "{name}: {}", output.stderr);
}

#[test]
fn a_schema_that_quotes_what_it_refuses_shows_no_secret() {
    let scene = Scene::new(WrappedHelm::real());
    for property in [
        json!({"pattern": "^x$"}),
        json!({"enum": ["x"]}),
        json!({"type": "integer"}),
        json!({"format": "email"}),
        json!({"const": "x"}),
        json!({"maxLength": 3}),
    ] {
        let schema = json!({"properties": {"password": property, "sealed": property, "map": {"additionalProperties": property}}});
        scene.repository.write("app/values.schema.json", schema.to_string());
        let output = scene.generate().output();
        assert!(!holds_marker(&output.stderr), "{property}: {}", output.stderr);
        assert!(output.status.success() || output.stdout.is_empty(), "{property}");
    }
}

#[test]
fn a_helm_that_fails_in_its_own_way_shows_no_secret() {
    for (script, code) in [
        ("/bin/cat \"$1\" \"$2\" /proc/self/fd/* >&2; exit 1", 1),
        (
            "for a in \"$@\"; do case $a in --values=*) /bin/cat ${a#--values=} ${a#--values=} >&2;; esac; done; exit 1",
            1,
        ),
        ("for a in \"$@\"; do case $a in --values=*) /bin/cat ${a#--values=};; esac; done; exit 1", 1),
        ("for a in \"$@\"; do case $a in --values=*) /bin/cat ${a#--values=};; esac; done", 1),
        (
            "for a in \"$@\"; do case $a in --values=*) /bin/cat ${a#--values=} >&2;; esac; done; kill -9 $$",
            75,
        ),
        (
            "for a in \"$@\"; do case $a in --values=*) /usr/bin/base64 ${a#--values=} >&2;; esac; done; exit 1",
            1,
        ),
        ("printf 'kind: A\\377'", 1),
        ("/bin/sleep 600", 75),
    ] {
        let scene = Scene::new(WrappedHelm::new(script));
        let before = scene.files();
        let output = scene.generate().env("STRONGROOM_TIMEOUT", "3").output();
        is_silent(script, &output);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", output.stderr);
        assert_eq!(scene.files(), before, "{script}: the repository or a home was changed");
    }
}

#[test]
fn the_commands_of_a_terminal_show_no_secret_when_they_fail() {
    let scene = Scene::new(WrappedHelm::real());
    scene.repository.write("app/templates/failing.yaml", "{{ fail .Values.password }}");
    let before = scene.files();
    let set = format!("a[x={MARKER}");
    let json = format!("a={{\"x\": {MARKER}");
    for arguments in [
        &["template", "hello", "."][..],
        &["template", "hello", ".", "--reveal", "-f", "sealed.yaml"],
        &["template", "hello", ".", "-f", "broken.yaml"],
        &["template", "hello", ".", "--set", &set],
        &["template", "hello", ".", "--set-json", &json],
        &["template", "--application", "broken.yaml"],
        &["decrypt", "other.yaml"],
        &["decrypt", "cut.yaml"],
        &["decrypt", "tampered.yaml"],
        &["decrypt", "added.yaml"],
        &["decrypt", "broken.yaml"],
        &["resolve", "-f", "broken.yaml"],
        &["resolve", "-f", "latin.yaml"],
        &["get", "ref+awssecrets://team/db#/absent"],
        &["get", "ref+awssecrets://team/text#/a"],
        &["get", "ref+file://token.txt#/a"],
    ] {
        let run = scene.hunted(strongroom()).directory(scene.repository.path().join("app")).args(arguments);
        is_silent(&arguments.join(" "), &run.output());
    }
    assert_eq!(scene.files(), before, "the repository or a home was changed");
    assert!(!holds_marker(&scene.helm.seen()), "{}", scene.helm.seen());
}

#[test]
fn a_dry_run_masks_what_it_prints() {
    let scene = Scene::new(WrappedHelm::real());
    scene.repository.write(
        "app/templates/config.yaml",
        "# {{ .Values.password }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  {{ .Values.sealed }}: {{ .Values.password | \
         quote }}\n  url: https://u:{{ .Values.password }}@host\n  coded: {{ printf \"u:%s\" .Values.password | b64enc }}\n  block: |\n    \
         password={{ .Values.sealed }}\n",
    );
    let run = || {
        scene.hunted(strongroom()).directory(scene.repository.path().join("app")).args([
            "template",
            "hello",
            ".",
            "-f",
            "sealed.yaml",
        ])
    };
    let masked = run().output();
    assert!(masked.status.success(), "{}", masked.stderr);
    assert!(masked.stdout.contains("<masked:"), "{}", masked.stdout);
    assert!(!holds_marker(&masked.everything()), "{}", masked.everything());
    let revealed = run().arg("--reveal").output();
    assert!(revealed.stdout.contains(&format!("{MARKER}-sops")), "{}", revealed.stdout);
    assert!(!holds_marker(&revealed.stderr), "{}", revealed.stderr);
}

/// A run that was stopped while helm ran.
struct Stopped {
    output: Output,
    helm: i32,
}

/// Starts a render, looks at it while helm runs, sends `signal`, and waits for its end.
fn stop(scene: &Scene, signal: Signal) -> Stopped {
    let before = scene.files();
    let mut command = scene.generate().into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let helm = scene.helm.wait_until_started();
    assert_eq!(scene.files(), before, "a file was made while helm ran");
    for process in [child.id().cast_signed(), helm] {
        assert_eq!(files_on_disk(process), Vec::<PathBuf>::new(), "files are open while helm runs");
    }
    kill_process(pid(child.id().cast_signed()), signal).unwrap();
    let output = finish(child);
    assert_eq!(output.stdout, "");
    assert!(!holds_marker(&output.stderr), "{}", output.stderr);
    assert!(!holds_marker(&scene.helm.seen()), "{}", scene.helm.seen());
    assert_eq!(scene.files(), before, "something was left behind");
    Stopped { output, helm }
}

fn finish(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn pid(raw: i32) -> Pid {
    Pid::from_raw(raw).unwrap()
}

/// What a process has open that has, or had, a place on a disk.
fn files_on_disk(process: i32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let elsewhere = ["/dev/null", "/memfd:strongroom", "anon_inode:", "pipe:", "socket:"];
    targets
        .filter(|target| !elsewhere.iter().any(|start| target.to_string_lossy().starts_with(start)))
        .filter(|target| target.file_name().is_none_or(|name| name != "helm"))
        .collect()
}

/// Waits a little for the processes of a group to be gone.
fn is_gone(group: i32) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while !group_members(group).is_empty() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn sigterm_in_the_middle_ends_helm_and_leaves_nothing() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        for helm in [WrappedHelm::slow(), WrappedHelm::stubborn()] {
            let scene = Scene::new(helm);
            let Stopped { output, helm } = stop(&scene, signal);
            assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
            let name = if signal == Signal::TERM { "SIGTERM" } else { "SIGINT" };
            assert!(output.stderr.contains(&format!("strongroom: stopped by {name}")), "{}", output.stderr);
            assert!(is_gone(helm), "helm's process group lives on: {:?}", group_members(helm));
        }
    }
}

#[test]
fn sigkill_in_the_middle_leaves_nothing_on_disk() {
    let scene = Scene::new(WrappedHelm::slow());
    let Stopped { output, helm } = stop(&scene, Signal::KILL);
    assert_eq!(output.status.code(), None, "{}", output.stderr);
    // Nobody was left to end it.
    kill_process_group(pid(helm), Signal::KILL).unwrap();
    assert!(is_gone(helm));
}

#[test]
fn a_store_that_does_not_answer_holds_nothing_up() {
    let scene = Scene::with_latency(WrappedHelm::real(), Duration::from_mins(10));
    let before = scene.files();
    let started = Instant::now();
    let output = scene.generate().env("STRONGROOM_TIMEOUT", "1").output();
    is_silent("timeout", &output);
    assert_eq!(output.status.code(), Some(75), "{}", output.stderr);
    assert!(output.stderr.contains("ref+awssecrets://team/db"), "{}", output.stderr);

    let asked = scene.store.asked();
    let mut command = scene.generate().into_command();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while scene.store.asked() == asked {
        assert!(started.elapsed() < Duration::from_mins(1), "the store was not asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(pid(child.id().cast_signed()), Signal::TERM).unwrap();
    let output = finish(child);
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(143), ""), "{}", output.stderr);
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert_eq!(scene.files(), before, "something was left behind");
}
