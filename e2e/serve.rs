//! `strongroom serve` as a sidecar runs it, called by a real grpc-go client, with the real helm.
#![allow(clippy::disallowed_methods, reason = "the test looks after its own processes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::MARKER;
use support::collector::MockCollector;
use support::grpc_go::{grpc_go, told};
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::sidecar::Sidecar;
use support::tools::top;
use support::wrapped_helm::WrappedHelm;
use tempfile::TempDir;

/// The last signal of a process that is not asked.
const KILL: i32 = 9;

/// The folders of a sidecar's container.
struct Pod {
    folder: TempDir,
    repository: Repository,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plugins", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, repository: Repository::with_example("hello") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("plugins/strongroom.sock")
    }

    /// Starts the sidecar and waits until it is healthy.
    fn start(&self) -> Sidecar {
        self.start_with(&[])
    }

    /// The same, with more in its environment.
    fn start_with(&self, environment: &[(&str, &str)]) -> Sidecar {
        let run = self
            .configured(strongroom())
            .env("ARGOCD_CMP_WORKDIR", self.path("work"))
            .env("STRONGROOM_HTTP", "127.0.0.1:0")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .envs(environment.iter().copied())
            .arg("serve");
        let healthy = || self.configured(strongroom()).arg("health").output().status.success();
        Sidecar::start(run, &self.path("log"), healthy)
    }

    fn configured(&self, run: Run) -> Run {
        run.env("ARGOCD_PLUGINSOCKFILEPATH", self.path("plugins"))
            .env("STRONGROOM_PLUGIN_CONFIG", self.path("plugin.yaml"))
    }

    /// A call for the app, with the environment that `generate` gets, and `more`, in which the later one counts.
    fn call(&self, more: &[&str]) -> Run {
        grpc_go(&self.socket(), &self.repository.path(), "app").args(told(self.generate())).args(more)
    }

    fn generate(&self) -> Run {
        generate(&self.repository, "app")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .env("ARGOCD_APP_PARAMETERS", PARAMETERS)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the log says `line` so often.
    fn wait(&self, line: &str, times: usize) {
        let end = Instant::now() + Duration::from_mins(1);
        while self.log().matches(line).count() < times {
            assert!(Instant::now() < end, "{line}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The audit trail, a JSON object a line.
    fn audit(&self) -> Vec<Json> {
        audit_of(&self.log())
    }

    /// A page of the HTTP side.
    fn page(&self, path: &str) -> String {
        let log = self.log();
        let (_, address) = log.split_once(" http=").unwrap();
        let mut connection = TcpStream::connect(address.split_whitespace().next().unwrap()).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asserts that the metrics have the `line`.
    fn counts(&self, line: &str) {
        let metrics = self.page("/metrics");
        assert!(metrics.lines().any(|shown| shown == line), "{line}\n{metrics}");
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.path("work/_cmp_server")).unwrap().count()
    }
}

/// All three encrypted files of the example.
const PARAMETERS: &str =
    r#"[{"name":"valueFiles","array":["secrets/database.yaml","secrets/mail.yaml","secrets/session.yaml"]}]"#;

fn audit_of(log: &str) -> Vec<Json> {
    log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of one repository.
const APPS: usize = 200;

/// Three encrypted files, and the references of the chart's own values to a file and an echo.
const OPENED: usize = 5;

#[test]
fn the_sidecar_gives_byte_for_byte_what_generate_gives() {
    let pod = Pod::new();
    let sidecar = pod.start();
    let expected = pod.generate().ok();
    assert!(expected.contains("kind: Secret"));
    for hits in 0..3 {
        assert_eq!(pod.call(&[]).ok(), expected);
        let metrics = pod.page("/metrics");
        for (result, count) in [("miss", 1), ("hit", hits)] {
            let line =
                format!("strongroom_cache_lookups_total{{cache=\"render\",result=\"{result}\"}} {count}");
            assert!(count == 0 || metrics.contains(&line), "{line}\n{metrics}");
        }
    }
    assert_eq!(pod.audit().iter().filter(|line| line["result"] == "opened").count(), 3 * OPENED);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    assert!(!pod.socket().exists());
    assert_eq!(pod.leftovers(), 0);
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn a_commit_that_changes_one_of_200_apps_is_one_run_of_helm() {
    let pod = Pod::new();
    let helm = WrappedHelm::real();
    let map = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {{{{ .Release.Name }}}}}}\ndata:\n  a: {value}\n"
        )
    };
    for app in 0..APPS {
        let write = |name: &str, text: &str| pod.repository.write(format!("apps/{app}/{name}"), text);
        write("Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\n");
        write("templates/a.yaml", &map("{{ .Values.mail.password | b64enc | quote }}"));
    }
    let helm_path = helm.path();
    // Confined, it could not write down how often it runs.
    let _sidecar = pod.start_with(&[
        ("STRONGROOM_HELM", helm_path.to_str().unwrap()),
        ("STRONGROOM_UNCONFINED_HELM", "true"),
    ]);
    let shared = r#"ARGOCD_APP_PARAMETERS=[{"name":"valueFiles","array":["/app/secrets/mail.yaml"]}]"#;
    let all = || {
        let run = grpc_go(&pod.socket(), &pod.repository.path(), "apps/{number}");
        let run = run.args(["-calls", &APPS.to_string(), "-at-once", "4"]).args(told(pod.generate()));
        // It takes longer than any other client; each of its calls has a deadline.
        let output = run.args(["ARGOCD_APP_NAME=app-{number}", shared]).into_command().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let changed = |manifests: &str| manifests.matches("a: changed").count();
    let before = all();
    assert_eq!(
        (helm.renders(), before.matches("kind: ConfigMap").count(), changed(&before)),
        (APPS, APPS, 0)
    );
    pod.repository.write("apps/77/templates/a.yaml", map("changed"));
    assert_eq!((changed(&all()), helm.renders()), (1, APPS + 1));
    assert_eq!(pod.audit().iter().filter(|line| line["result"] == "opened").count(), 2 * APPS);
}

#[test]
fn several_with_the_same_archive_at_once_each_get_what_generate_gives() {
    let pod = Pod::new();
    let sidecar = pod.start_with(&[("STRONGROOM_RENDERS", "4")]);
    let client =
        grpc_go(&pod.socket(), &pod.repository.path(), "app").args(["-calls", "16", "-at-once", "8"]);
    assert_eq!(client.args(told(pod.generate())).ok(), pod.generate().ok().repeat(16));
    assert_eq!(pod.audit().iter().filter(|line| line["result"] == "opened").count(), 16 * OPENED);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    assert_eq!(pod.leftovers(), 0);
}

#[test]
fn each_function_that_is_left_to_chance_is_rendered_anew() {
    let pod = Pod::new();
    let sidecar = pod.start();
    for function in [
        "randAlphaNum 32",
        "randAlpha 32",
        "randNumeric 32",
        "randAscii 32 | b64enc",
        "randBytes 32",
        "randInt 0 1000000000",
        "uuidv4",
        "now | toString",
        "shuffle \"abcdefghijklmnopqrstuvwxyz0123456789\"",
        "bcrypt \"a\"",
        "htpasswd \"a\" \"b\"",
        "encryptAES \"a\" \"b\"",
        "genPrivateKey \"ecdsa\"",
        "(genCA \"a\" 1).Cert",
        "(genSelfSignedCert \"a\" nil nil 1).Cert",
        "(genSignedCert \"a\" nil nil 1 (genCA \"a\" 1)).Cert",
    ] {
        let template =
            format!("apiVersion: v1\nkind: ConfigMap\ndata: {{a: {{{{ {function} | quote }}}}}}\n");
        pod.repository.write("app/templates/chance.yaml", template);
        assert_ne!(pod.call(&[]).ok(), pod.call(&[]).ok(), "{function}");
    }
    pod.counts(r#"strongroom_unkept_renders_total{reason="chance"} 32"#);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
}

#[test]
fn what_changes_a_render_is_no_hit_and_a_denial_stays_one() {
    let pod = Pod::new();
    let _sidecar = pod.start_with(&[("STRONGROOM_ALLOW_REFS", "echo,file")]);
    let parameters = |map: &str| format!(r#"ARGOCD_APP_PARAMETERS=[{{"name":"parameters","map":{map}}}]"#);
    let of = |map: &str| pod.call(&[&parameters(map)]);
    let first = of(r#"{"database.user":"ref+file://../secret.txt"}"#);
    pod.repository.write("secret.txt", "one");
    let one = first.ok();
    pod.repository.write("secret.txt", "two");
    assert_ne!(of(r#"{"database.user":"ref+file://../secret.txt"}"#).ok(), one);
    pod.repository.write("secret.txt", "one");
    assert_eq!(of(r#"{"database.user":"ref+file://../secret.txt"}"#).ok(), one);
    let denied = of(r#"{"database.user":"ref+vault://secret/a#/b"}"#).fails();
    assert!(denied.starts_with("PermissionDenied: "), "{denied}");
}

#[test]
fn keys_that_come_and_go_count_without_a_restart_and_what_one_opened_is_forgotten() {
    let pod = Pod::new();
    let keys = pod.path("keys");
    fs::create_dir(&keys).unwrap();
    let _sidecar = pod.start_with(&[("STRONGROOM_KEYS_DIR", keys.to_str().unwrap())]);
    let refused = || pod.call(&[]).fails();
    assert!(refused().contains("secrets/database.yaml"), "{}", refused());
    fs::copy(top().join("examples/keys/test-only.agekey"), keys.join("test-only.agekey")).unwrap();
    pod.wait("keys changed, and what is there now counts", 1);
    assert_eq!(pod.call(&[]).ok(), pod.generate().ok());
    fs::remove_file(keys.join("test-only.agekey")).unwrap();
    pod.wait("keys changed, and what is there now counts", 2);
    assert!(refused().contains("secrets/database.yaml"), "{}", refused());
    pod.counts(r#"strongroom_reloads_total{what="keys",result="ok"} 2"#);
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn a_passphrase_that_is_gone_leaves_what_was_there_and_says_so() {
    let pod = Pod::new();
    let passphrase = pod.path("passphrase");
    fs::write(&passphrase, "STRONGROOM-MARKER-passphrase\n").unwrap();
    let _sidecar = pod.start_with(&[("STRONGROOM_PASSPHRASE_FILE", passphrase.to_str().unwrap())]);
    fs::remove_file(&passphrase).unwrap();
    pod.wait("passphrase changed, and what was there before stays", 1);
    assert_eq!(pod.call(&[]).ok(), pod.generate().ok());
    assert!(pod.page("/readyz").starts_with("HTTP/1.1 200 "));
    pod.counts(r#"strongroom_reloads_total{what="passphrase",result="failed"} 1"#);
    pod.counts(r#"strongroom_reloads_total{what="keys",result="failed"} 0"#);
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn a_plugin_yaml_that_changes_counts_without_a_restart_unless_it_is_another_plugin() {
    let pod = Pod::new();
    let write = |name: &str, more: &str| {
        let text = format!(
            "kind: ConfigManagementPlugin\nmetadata: {{name: {name}}}\nspec: {{generate: {{command: [a]}}{more}}}\n"
        );
        fs::write(pod.path("plugin.yaml"), text).unwrap();
    };
    write("strongroom", "");
    let _sidecar = pod.start();
    write("strongroom", ", provideGitCreds: true");
    pod.wait("plugin.yaml changed, and what is there now counts", 1);
    for (change, name) in ["other", "["].into_iter().enumerate() {
        write(name, "");
        pod.wait("plugin.yaml changed, and what was there before stays", change + 1);
    }
    for (result, count) in [("ok", 1), ("failed", 2)] {
        pod.counts(&format!(r#"strongroom_reloads_total{{what="plugin.yaml",result="{result}"}} {count}"#));
    }
    assert_eq!(pod.call(&[]).ok(), pod.generate().ok());
}

#[test]
fn without_a_cache_helm_runs_each_time() {
    let pod = Pod::new();
    let _sidecar = pod.start_with(&[("STRONGROOM_RENDER_CACHE_MB", "0")]);
    assert_eq!(pod.call(&[]).ok(), pod.call(&[]).ok());
    assert!(!pod.page("/metrics").contains("cache=\"render\""));
}

#[test]
fn a_failure_is_one_message_that_names_the_app_and_keeps_secrets() {
    let pod = Pod::new();
    let _sidecar = pod.start();
    pod.repository.write("app/templates/broken.yaml", "a: {{ fail .Values.password }}\n");
    let rows = [
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"valueFiles","array":["none.yaml"]}]"#,
            "NotFound: render app \"hello\": none.yaml: no such file",
        ),
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"valuefiles","array":[]}]"#,
            "InvalidArgument: render app \"hello\": ",
        ),
        ("ARGOCD_APP_PARAMETERS=no", "InvalidArgument: render app \"hello\": "),
        (
            r#"ARGOCD_APP_PARAMETERS=[{"name":"parameters","map":{"password":"ref+echo://STRONGROOM-MARKER-1"}}]"#,
            "InvalidArgument: render app \"hello\": ",
        ),
    ];
    for (parameters, expected) in rows {
        let message = pod.call(&[parameters]).fails();
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains(MARKER), "{message}");
    }
    assert!(!pod.log().contains(MARKER), "{}", pod.log());
}

#[test]
fn after_a_kill_it_starts_again_over_what_was_left() {
    let pod = Pod::new();
    let killed = pod.start();
    fs::create_dir_all(pod.path("work/_cmp_server/left/behind")).unwrap();
    killed.signal(rustix::process::Signal::KILL);
    assert_eq!(killed.end().signal(), Some(KILL));
    assert!(pod.socket().exists());
    let _sidecar = pod.start();
    assert_eq!(pod.leftovers(), 0);
    assert!(pod.call(&[]).ok().contains("kind: Secret"));
}

#[test]
fn what_happened_is_counted_logged_and_audited_without_a_secret() {
    let pod = Pod::new();
    let sidecar =
        pod.start_with(&[("STRONGROOM_ALLOW_REFS", "echo,file"), ("STRONGROOM_METRICS_BY_APP", "true")]);
    assert!(pod.page("/readyz").starts_with("HTTP/1.1 200 "));
    pod.call(&[]).ok();
    let denied = r#"ARGOCD_APP_PARAMETERS=[{"name":"parameters","map":{"a":"ref+vault://secret/db#/x"}}]"#;
    assert!(pod.call(&[denied]).fails().starts_with("PermissionDenied: "));
    let metrics = pod.page("/metrics");
    for line in [
        r#"strongroom_requests_total{method="GenerateManifest",result="ok"} 1"#,
        r#"strongroom_renders_total{result="ok",stage="done"} 1"#,
        r#"strongroom_renders_total{result="denied",stage="resolve"} 1"#,
        r#"strongroom_app_renders_total{app="hello",project="default",result="ok"} 1"#,
        r#"strongroom_stage_duration_seconds_count{stage="helm"} 1"#,
        r#"strongroom_decryptions_total{key_type="age",result="ok"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    let audit = pod.audit();
    assert_eq!(audit.len(), OPENED + 3, "{audit:#?}");
    for (line, file) in audit.iter().zip(["database", "mail", "session"]) {
        assert_eq!(line["file"], format!("secrets/{file}.yaml"), "{line}");
        assert_eq!((&line["result"], &line["key_type"]), (&"opened".into(), &"age".into()), "{line}");
        assert!(line["key_id"].as_str().unwrap().starts_with("age1"), "{line}");
    }
    let last = audit.iter().find(|line| line["result"] == "denied").unwrap();
    for (field, expected) in [
        ("target", "strongroom::audit"),
        ("app", "hello"),
        ("project", "default"),
        ("repository", "https://git.example/team/apps.git"),
        ("revision", "0123456789abcdef0123456789abcdef01234567"),
        ("reference", "ref+vault://secret/db"),
        ("result", "denied"),
        ("class", "denied"),
    ] {
        assert!(last[field].as_str().is_some_and(|text| text.starts_with(expected)), "{field}: {last}");
    }
    let log = pod.log();
    let line = log.lines().find(|line| line.contains("answered")).unwrap();
    for field in ["request=", "app=\"hello\"", "revision=", "queue_ms=", "open_ms=", "helm_ms=", "check_ms="]
    {
        assert!(line.contains(field), "{field}: {line}");
    }
    assert!(!log.contains(MARKER) && !metrics.contains(MARKER), "{log}");
}

#[test]
fn generate_keeps_its_audit_trail_out_of_messages_of_failure() {
    let pod = Pod::new();
    let done = pod.generate().output();
    assert!(done.status.success());
    assert_eq!(audit_of(&done.stderr).len(), OPENED, "{}", done.stderr);
    let broken = || pod.generate().env("ARGOCD_APP_PARAMETERS", PARAMETERS.replace("mail", "none"));
    assert_eq!(audit_of(&broken().fails()).len(), 0);
    let file = pod.path("audit");
    broken().env("STRONGROOM_AUDIT", &file).fails();
    let done = pod.generate().env("STRONGROOM_AUDIT", &file).output();
    assert_eq!(done.stderr, "");
    let trail = fs::read_to_string(file).unwrap();
    assert!(audit_of(&trail).len() >= OPENED, "{trail}");
    assert!(!trail.contains(MARKER), "{trail}");
}

#[test]
fn helm_cannot_read_or_write_what_is_not_the_app_s() {
    let pod = Pod::new();
    let (secret, written) = (pod.path("secret"), pod.path("written"));
    fs::write(&secret, "STRONGROOM-MARKER-file").unwrap();
    let helm = pod.path("helm");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = version ] && echo v3.18.0 && exit\n\
         read=$(cat '{}' || echo denied)\n(echo x >'{}') || wrote=denied\n(echo x >here) || here=denied\n\
         printf 'apiVersion: v1\\nkind: A\\nread: %s\\nwrote: %s\\nhere: %s\\nchart: %s\\n' \
         \"$read\" \"$wrote\" \"$here\" \"$(grep -c name Chart.yaml)\"\n",
        secret.display(),
        written.display()
    );
    fs::write(&helm, script).unwrap();
    fs::set_permissions(&helm, fs::Permissions::from_mode(0o755)).unwrap();
    let helm = helm.to_str().unwrap();
    {
        let _sidecar = pod.start_with(&[("STRONGROOM_HELM", helm)]);
        let said = pod.call(&[]).ok();
        assert!(said.contains("read: denied\nwrote: denied\nhere: denied\nchart: 1\n"), "{said}");
        assert!(!written.exists());
        assert!(pod.log().contains("confined=true"), "{}", pod.log());
    }
    let _sidecar = pod.start_with(&[("STRONGROOM_HELM", helm), ("STRONGROOM_UNCONFINED_HELM", "true")]);
    assert!(pod.call(&[]).ok().contains("wrote: \n"));
    assert!(pod.log().contains("confined=false"), "{}", pod.log());
}

#[test]
fn a_schema_does_not_make_helm_call_anybody() {
    let pod = Pod::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let schema = format!(r#"{{"$ref": "https://{}/a.json"}}"#, listener.local_addr().unwrap());
    fs::write(pod.repository.path().join("app/values.schema.json"), schema).unwrap();
    listener.set_nonblocking(true).unwrap();
    {
        let _sidecar = pod.start();
        let said = pod.call(&[]).fails();
        assert!(said.contains("connect: permission denied"), "{said}");
        for way in ["$defs", "skipSchemaValidation", "STRONGROOM_UNCONFINED_HELM"] {
            assert!(said.contains(way), "{said}");
        }
        assert!(listener.accept().is_err());
    }
    listener.set_nonblocking(false).unwrap();
    let (called, calls) = mpsc::channel();
    std::thread::spawn(move || called.send(listener.accept().is_ok()));
    let _sidecar = pod.start_with(&[("STRONGROOM_UNCONFINED_HELM", "true")]);
    assert!(!pod.call(&[]).fails().contains("helm has no network"));
    assert_eq!(calls.recv_timeout(Duration::from_secs(20)), Ok(true));
}

#[test]
fn a_mock_collector_gets_the_stages_of_a_render_inside_its_call() {
    let pod = Pod::new();
    let collector = MockCollector::start();
    let sidecar = pod.start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
        ("OTEL_SERVICE_NAME", "strongroom-test"),
    ]);
    pod.call(&[]).ok();
    // The last spans are sent at the end.
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    let spans = collector.spans();
    let call = spans.iter().find(|span| span.name == "GenerateManifest").expect("a span of the call");
    for stage in ["queue", "receive", "plan", "open", "resolve", "helm", "check"] {
        let found = spans.iter().find(|span| span.name == stage).unwrap_or_else(|| panic!("no {stage}"));
        assert_eq!(found.trace, call.trace, "{stage}");
        assert_eq!(found.parent, call.id, "{stage}");
    }
    let sent = collector.sent();
    assert!(sent.contains("strongroom-test") && sent.contains("hello"), "{sent}");
    assert!(!sent.contains(MARKER), "{sent}");
}

#[test]
fn a_mock_collector_behind_tls_gets_spans_by_the_certificate_that_the_operator_names() {
    for variable in ["OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"] {
        let pod = Pod::new();
        let (collector, authority) = MockCollector::start_tls();
        let path = pod.path("ca.pem").display().to_string();
        fs::write(&path, authority).unwrap();
        let sidecar =
            pod.start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint), (variable, &path)]);
        pod.call(&[]).ok();
        sidecar.signal(rustix::process::Signal::TERM);
        assert_eq!(sidecar.end().code(), Some(0));
        assert!(collector.spans().iter().any(|span| span.name == "GenerateManifest"), "{variable}");
        assert!(!pod.log().contains("does not take traces"), "{}", pod.log());
    }
}

#[test]
fn a_mock_collector_whose_certificate_is_not_trusted_gets_nothing_and_renders_go_on() {
    let pod = Pod::new();
    let (collector, _) = MockCollector::start_tls();
    let sidecar = pod.start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    pod.call(&[]).ok();
    pod.wait("the collector does not take traces; renders go on", 1);
    pod.call(&[]).ok();
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.end().code(), Some(0));
    let log = pod.log();
    let line = log.lines().find(|line| line.contains("does not take traces")).unwrap();
    for part in ["WARN", &collector.endpoint, "UnknownIssuer"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(log.matches("does not take traces").count(), 1, "{log}");
    assert_eq!(collector.sent(), "");
}

#[test]
fn a_collector_is_not_sent_to_where_its_certificates_cannot_be_read() {
    let pod = Pod::new();
    let run = pod.configured(strongroom()).arg("serve");
    let said = run
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca.pem")
        .fails();
    assert!(
        said.contains(
            "trust the certificates of /nonexistent/ca.pem, as OTEL_EXPORTER_OTLP_CERTIFICATE says"
        ),
        "{said}"
    );
    assert!(said.contains("help: it is the absolute path of a file in PEM"), "{said}");
}
