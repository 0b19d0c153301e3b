//! The real Argo CD repo-server, newest and oldest supported release, has its applications rendered by the product.
//!
//! What the tests ask is what Argo CD's controller and user interface ask; what they look at is what those would get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a failure says with which release")]

mod support;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use support::MARKER;
use support::argocd::{ArgoCd, RELEASES, Release, commit, details_request, manifest_request, source};
use support::collector::MockCollector;
use support::process::{Output, Run};
use support::product::strongroom_with_helm;
use support::repository::Repository;
use support::sidecar::Sidecar;
use support::sops::encrypt;
use support::tools::{tool, top};
use support::wrapped_helm::{WrappedHelm, group_members};
use tempfile::TempDir;

/// What the controller and the API server wait for an answer, unless told otherwise.
const PATIENCE: &str = "60s";

/// No process takes longer to go, even when other builds use the machine.
const GONE: Duration = Duration::from_secs(30);

/// What needs no plugin.
const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

/// How many applications one commit may change.
const AT_ONCE: usize = 20;

/// What no single argument or variable of a program can hold.
const LONGER_THAN_AN_ARGUMENT: usize = 200 << 10;

/// The pod of the repo-server, the repository that it serves, and what its containers have mounted.
struct Pod {
    argo: ArgoCd,
    repository: Repository,
    folder: TempDir,
}

impl Pod {
    fn new(release: Release) -> Self {
        Self::with_flags(release, &[])
    }

    fn with_flags(release: Release, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "stock"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { argo: ArgoCd::start(release, flags), repository: Repository::with_example("hello"), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The product in the environment of its container.
    fn product(&self) -> Run {
        strongroom_with_helm(self.argo.release.helm)
            .env("ARGOCD_PLUGINSOCKFILEPATH", self.argo.plugins())
            .env("STRONGROOM_PLUGIN_CONFIG", self.path("plugin.yaml"))
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
    }

    fn serve(&self) -> Sidecar {
        self.serve_with(&[])
    }

    /// The product as a server of its own.
    fn serve_with(&self, environment: &[(&str, &str)]) -> Sidecar {
        let run = self
            .product()
            .env("ARGOCD_CMP_WORKDIR", self.path("work"))
            .env("STRONGROOM_HTTP", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .arg("serve");
        let healthy = || self.product().arg("health").output().status.success();
        Sidecar::start(run, &self.path("log"), healthy)
    }

    /// The product under Argo CD's own server, by its own `plugin.yaml`, as plugin `stock`.
    fn stock(&self) -> Sidecar {
        let config = fs::read_to_string(top().join("plugin.yaml")).unwrap();
        let command = support::product::program().display().to_string();
        let config = config.replace("/usr/local/bin/strongroom", &command);
        let config = config.replace("  name: strongroom\n", "  name: stock\n");
        assert!(config.contains(&command) && config.contains("name: stock"), "{config}");
        fs::write(self.path("stock/plugin.yaml"), config).unwrap();
        let run = self
            .argo
            .cmp_server(&self.path("stock"))
            .env("STRONGROOM_HELM", tool(self.argo.release.helm))
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"));
        let socket = self.argo.plugins().join("stock.sock");
        Sidecar::start(run, &self.path("stock.log"), || UnixStream::connect(&socket).is_ok())
    }

    /// The example with a plugin's block, and all that is in the repository committed.
    fn request(&self, plugin: &Json) -> Json {
        let revision = commit(&self.repository);
        manifest_request("hello", &source(&self.repository, "app", json!({ "plugin": plugin })), &revision)
    }

    fn call(&self, request: &Json) -> Run {
        self.argo.call("GenerateManifest", request, PATIENCE)
    }

    /// The answer, which has to be one.
    fn generate(&self, request: &Json) -> Json {
        serde_json::from_str(&self.call(request).ok()).unwrap()
    }

    /// The message of failure, which has to be one.
    fn fails(&self, request: &Json) -> String {
        let message = self.call(request).fails();
        assert_without_secrets(&message);
        message
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// How many renders `strongroom serve` answered.
    fn rendered(&self) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains("answered") && line.contains("method=\"GenerateManifest\""))
            .count()
    }
}

/// Runs a test with each release, and looks for secrets in what the servers said.
fn with_each_release(test: impl Fn(&Pod)) {
    for release in RELEASES {
        eprintln!("with {release:?}");
        let pod = Pod::new(release);
        test(&pod);
        assert_without_secrets(&pod.argo.log());
        assert_without_secrets(&pod.log());
    }
}

/// Neither as it is nor as a Secret's data have it.
fn assert_without_secrets(text: &str) {
    // Without its last character, which depends on what follows.
    let encoded = BASE64_STANDARD.encode(&MARKER[..MARKER.len() / 3 * 3]);
    assert!(!text.contains(MARKER) && !text.contains(&encoded), "{text}");
}

/// The plugin by name, with all three encrypted files of the example.
fn named(plugin: &str) -> Json {
    named_with(plugin, &[])
}

/// The same, with more parameters.
fn named_with(plugin: &str, more: &[Json]) -> Json {
    let files = ["secrets/database.yaml", "secrets/mail.yaml", "secrets/session.yaml"];
    let mut parameters = vec![json!({"name": "valueFiles", "array": files})];
    parameters.extend_from_slice(more);
    json!({"name": plugin, "parameters": parameters})
}

/// The manifests of an answer, which the repo-server gives as JSON each.
fn manifests(answer: &Json) -> Vec<Json> {
    let texts = answer["manifests"].as_array().unwrap_or_else(|| panic!("no manifests: {answer}"));
    texts.iter().map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()).collect()
}

fn of_kind(answer: &Json, kind: &str) -> Json {
    let found = manifests(answer).into_iter().find(|manifest| manifest["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}: {answer}"))
}

/// One field of the example's Secret.
fn secret(answer: &Json, field: &str) -> String {
    let secret = of_kind(answer, "Secret");
    String::from_utf8(BASE64_STANDARD.decode(secret["data"][field].as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_named_plugin_is_listed_renders_and_opens_secrets() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let listed: Json =
            serde_json::from_str(&pod.argo.call("ListPlugins", &Json::Null, PATIENCE).ok()).unwrap();
        assert_eq!(listed, json!({"items": [{"name": "strongroom"}]}));
        let request = pod.request(&named("strongroom"));
        let answer = pod.generate(&request);
        assert_eq!((&answer["sourceType"], &answer["revision"]), (&json!("Plugin"), &request["revision"]));
        let kinds: Vec<_> = manifests(&answer).iter().map(|manifest| manifest["kind"].clone()).collect();
        assert_eq!(kinds, ["Secret", "ConfigMap", "Deployment"]);
        for (field, expected) in [
            ("DATABASE_PASSWORD", "STRONGROOM-MARKER-database-password"),
            ("MAIL_PASSWORD", "STRONGROOM-MARKER-mail-password"),
            ("SESSION_KEY", "STRONGROOM-MARKER-session-key"),
            ("API_TOKEN", "STRONGROOM-MARKER-api-token"),
            ("API_URL", "https://user:STRONGROOM-MARKER-api-user@api.example/v1"),
        ] {
            assert_eq!(secret(&answer, field), expected, "{field}");
        }
    });
}

#[test]
fn both_ways_of_running_the_plugin_give_the_same_bytes() {
    with_each_release(|pod| {
        let (_sidecar, _stock) = (pod.serve(), pod.stock());
        let more = [json!({"name": "parameters", "map": {"replicas": "3"}})];
        let [ours, stock] = ["strongroom", "stock"]
            .map(|plugin| pod.generate(&pod.request(&named_with(plugin, &more)))["manifests"].clone());
        assert_eq!(ours, stock);
        assert!(ours[2].as_str().unwrap().contains("\"replicas\":3"), "{ours}");
        assert_eq!(pod.rendered(), 1);
    });
}

#[test]
fn the_plugin_gives_what_argo_cd_s_own_helm_source_gives_for_the_plaintext() {
    for release in RELEASES {
        let mut pod = Pod::new(release);
        pod.repository = Repository::with_secret_chart();
        let plaintext = format!("password: {MARKER}-1\n");
        pod.repository.write("app/plain.yaml", &plaintext);
        let recipient = fs::read_to_string(top().join("examples/keys/test-only.agekey")).unwrap();
        let (_, recipient) = recipient.split_once("public key: ").unwrap();
        let sealed = pod.repository.write("app/sealed.yaml", &plaintext);
        encrypt(&sealed, &["--age", recipient.lines().next().unwrap()]);
        let _sidecar = pod.serve();
        let parameters = json!([{"name": "valueFiles", "array": ["sealed.yaml"]}]);
        let ours = pod.request(&json!({"name": "strongroom", "parameters": parameters}));
        let mut native = ours.clone();
        let helm = json!({ "helm": {"valueFiles": ["plain.yaml"]} });
        native["applicationSource"] = source(&pod.repository, "app", helm);
        let (ours, native) = (pod.generate(&ours), pod.generate(&native));
        assert_eq!(native["sourceType"], "Helm");
        assert_eq!(ours["manifests"], native["manifests"], "{release:?}");
        assert_eq!(secret(&ours, "password"), format!("{MARKER}-1"));
    }
}

#[test]
fn without_discovery_only_apps_that_name_the_plugin_get_it() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        // Argo CD's own helm would print the example's values into Argo CD's log.
        pod.repository.write("native/Chart.yaml", "apiVersion: v2\nname: native\nversion: 0.1.0\n");
        pod.repository.write("native/templates/a.yaml", CONFIG_MAP);
        let unnamed = pod.fails(&pod.request(&json!({})));
        assert!(unnamed.contains("plugin"), "{unnamed}");
        let mut untyped = pod.request(&json!({}));
        untyped["applicationSource"] = source(&pod.repository, "native", json!({}));
        let answer = pod.generate(&untyped);
        assert_eq!(answer["sourceType"], "Helm");
        assert_eq!(pod.rendered(), 0);
    });
}

#[test]
fn with_discovery_apps_get_the_plugin_by_what_is_in_them() {
    let config = "\
apiVersion: argoproj.io/v1alpha1
kind: ConfigManagementPlugin
metadata: {name: strongroom}
spec:
  version: v1
  discover: {find: {glob: '**/secrets/*.yaml'}}
  parameters:
    static: [{name: valueFiles, title: Value files, collectionType: array}]
";
    with_each_release(|pod| {
        fs::write(pod.path("plugin.yaml"), config).unwrap();
        let _sidecar = pod.serve();
        pod.repository.write("plain/a.yaml", CONFIG_MAP);
        let revision = commit(&pod.repository);
        let request = |path: &str, more: Json| {
            manifest_request("hello", &source(&pod.repository, path, more), &revision)
        };
        for (path, more) in [
            ("app", json!({})),
            ("app", json!({ "plugin": {} })),
            ("app", json!({ "plugin": {"name": "strongroom-v1"} })),
        ] {
            let answer = pod.generate(&request(path, more.clone()));
            assert_eq!(answer["sourceType"], "Plugin", "{more}");
            assert_eq!(secret(&answer, "API_TOKEN"), "STRONGROOM-MARKER-api-token", "{more}");
        }
        assert_eq!(pod.generate(&request("plain", json!({})))["sourceType"], "Directory");
        let refused = pod.fails(&request("plain", json!({ "plugin": {"name": "strongroom-v1"} })));
        assert!(refused.contains("plugin"), "{refused}");
        let asked = details_request("hello", &source(&pod.repository, "app", json!({})));
        let details: Json =
            serde_json::from_str(&pod.argo.call("GetAppDetails", &asked, PATIENCE).ok()).unwrap();
        assert_eq!(details["type"], "Plugin", "{details}");
        let announced = &details["plugin"]["parametersAnnouncement"][0];
        assert_eq!(
            (&announced["name"], &announced["title"], &announced["collectionType"]),
            (&json!("valueFiles"), &json!("Value files"), &json!("array"))
        );
    });
}

#[test]
fn parameters_of_each_kind_and_overrides_in_the_repository_count() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let more = [
            json!({"name": "releaseName", "string": "shop"}),
            json!({"name": "parameters", "map": {"replicas": "5", "version": "a,b"}}),
        ];
        let plugin = named_with("strongroom", &more);
        let answer = pod.generate(&pod.request(&plugin));
        assert_eq!(of_kind(&answer, "Secret")["metadata"]["name"], "shop");
        assert_eq!(of_kind(&answer, "Deployment")["spec"]["replicas"], 5);
        assert_eq!(of_kind(&answer, "ConfigMap")["data"]["VERSION"], "a,b");
        assert_eq!(secret(&answer, "MAIL_PASSWORD"), "STRONGROOM-MARKER-mail-password");

        // A list in it is taken whole, and the file for one app is applied after the file for all.
        pod.repository.write(
            "app/.argocd-source.yaml",
            "plugin: {parameters: [{name: parameters, map: {replicas: '7'}}]}\n",
        );
        let answer = pod.generate(&pod.request(&plugin));
        assert_eq!(of_kind(&answer, "Secret")["metadata"]["name"], "hello");
        assert_eq!(of_kind(&answer, "Deployment")["spec"]["replicas"], 7);
        assert_eq!(secret(&answer, "MAIL_PASSWORD"), "");
        pod.repository.write(
            "app/.argocd-source-hello.yaml",
            "plugin: {parameters: [{name: parameters, map: {replicas: '9'}}]}\n",
        );
        let answer = pod.generate(&pod.request(&plugin));
        assert_eq!(of_kind(&answer, "Deployment")["spec"]["replicas"], 9);
    });
}

#[test]
fn parameters_longer_than_any_argument_arrive() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let values = format!("maintenance: true\nversion: {}\n", "x".repeat(LONGER_THAN_AN_ARGUMENT));
        let plugin = named_with("strongroom", &[json!({"name": "values", "string": values})]);
        let answer = pod.generate(&pod.request(&plugin));
        let data = &of_kind(&answer, "ConfigMap")["data"];
        assert_eq!(data["MAINTENANCE"], "on");
        assert_eq!(data["VERSION"].as_str().unwrap().len(), LONGER_THAN_AN_ARGUMENT);
        assert_eq!(secret(&answer, "SESSION_KEY"), "STRONGROOM-MARKER-session-key");
    });
}

#[test]
fn a_hard_refresh_renders_again_and_nothing_else_does() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let mut request = pod.request(&named("strongroom"));
        let first = pod.generate(&request);
        assert_eq!(pod.generate(&request), first);
        assert_eq!(pod.rendered(), 1);
        request["noCache"] = json!(true);
        assert_eq!(pod.generate(&request)["manifests"], first["manifests"]);
        assert_eq!(pod.rendered(), 2);
    });
}

#[test]
fn a_failure_names_app_and_file_and_no_secret() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let tampered = fs::read_to_string(pod.repository.path().join("app/secrets/mail.yaml")).unwrap();
        pod.repository.write(
            "app/secrets/bad.yaml",
            tampered.replacen("ENC[AES256_GCM,data:", "ENC[AES256_GCM,data:AA", 1),
        );
        pod.repository.write("app/values-broken.yaml", format!("a: [{MARKER}\n"));
        for (parameter, expected) in [
            (json!({"name": "valueFiles", "array": ["none.yaml"]}), "none.yaml: no such file"),
            (json!({"name": "valueFiles", "array": ["secrets/bad.yaml"]}), "secrets/bad.yaml"),
            (json!({"name": "valueFiles", "array": ["values-broken.yaml"]}), "values-broken.yaml"),
            (json!({"name": "valueFile", "array": []}), "valueFile"),
            (
                json!({"name": "parameters", "map": {"password": "ref+file://none.txt"}}),
                "ref+file://none.txt",
            ),
        ] {
            let plugin = json!({"name": "strongroom", "parameters": [parameter]});
            let message = pod.fails(&pod.request(&plugin));
            assert!(message.contains("app \"hello\": ") && message.contains(expected), "{message}");
        }
        pod.repository.write("app/templates/broken.yaml", "a: {{ fail .Values.database.password }}\n");
        let message = pod.fails(&pod.request(&named("strongroom")));
        assert!(message.contains("app \"hello\": ") && message.contains("broken.yaml"), "{message}");
    });
}

#[test]
fn twenty_apps_at_once_get_each_its_own_manifests() {
    with_each_release(|pod| {
        let _sidecar = pod.serve();
        let revision = commit(&pod.repository);
        let request = |number: usize| {
            let more = [json!({"name": "parameters", "map": {"replicas": number.to_string()}})];
            let of_app = json!({ "plugin": named_with("strongroom", &more) });
            let source = source(&pod.repository, "app", of_app);
            manifest_request(&format!("hello-{number}"), &source, &revision)
        };
        std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..AT_ONCE).map(|number| scope.spawn(move || pod.generate(&request(number)))).collect();
            for (number, call) in calls.into_iter().enumerate() {
                let answer = call.join().unwrap();
                assert_eq!(of_kind(&answer, "Deployment")["spec"]["replicas"], number);
                assert_eq!(of_kind(&answer, "Secret")["metadata"]["name"], format!("hello-{number}"));
                assert_eq!(secret(&answer, "MAIL_PASSWORD"), "STRONGROOM-MARKER-mail-password");
            }
        });
        assert_eq!(pod.rendered(), AT_ONCE);
    });
}

/// A helm that waits until it is let go.
struct Held {
    helm: WrappedHelm,
    folder: TempDir,
}

impl Held {
    fn new(pod: &Pod) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
        let helm = WrappedHelm::new(&format!(
            "[ \"$1\" = version ] || {{ : >'{}'; until [ -e '{}' ]; do /bin/sleep 0.02; done; }}\nexec '{}' \"$@\"",
            begun.display(),
            go.display(),
            tool(pod.argo.release.helm).display()
        ));
        Self { helm, folder }
    }

    /// Starts the sidecar with it.
    fn serve(&self, pod: &Pod) -> Sidecar {
        let helm = self.helm.path();
        pod.serve_with(&[("STRONGROOM_HELM", helm.to_str().unwrap()), ("STRONGROOM_UNCONFINED_HELM", "true")])
    }

    /// Waits until a render has come to helm; its process.
    fn begun(&self) -> i32 {
        wait_until(|| self.folder.path().join("begun").exists(), "helm began");
        self.helm.wait_until_started()
    }

    fn let_go(&self) {
        fs::write(self.folder.path().join("go"), "").unwrap();
    }
}

fn wait_until(done: impl Fn() -> bool, what: &str) {
    let end = Instant::now() + GONE;
    while !done() {
        assert!(Instant::now() < end, "not after {GONE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is answered to a call, and what `during` gives, which runs while helm waits.
fn while_helm_waits<T>(pod: &Pod, held: &Held, during: impl FnOnce(i32) -> T) -> (Output, T) {
    let request = pod.request(&named("strongroom"));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| pod.call(&request).output());
        let done = during(held.begun());
        (call.join().unwrap(), done)
    })
}

#[test]
fn a_deadline_ends_helm_and_says_so() {
    with_each_release(|pod| {
        let held = Held::new(pod);
        let _sidecar = held.serve(pod);
        let message = pod.argo.call("GenerateManifest", &pod.request(&named("strongroom")), "5s").fails();
        assert!(message.contains("app \"hello\": the deadline passed while "), "{message}");
        assert!(message.contains("controller.repo.server.timeout.seconds"), "{message}");
        let helm = held.begun();
        wait_until(|| group_members(helm).is_empty(), "helm's processes are gone");
    });
}

#[test]
fn a_sidecar_that_is_asked_to_end_finishes_what_it_renders() {
    with_each_release(|pod| {
        let held = Held::new(pod);
        let sidecar = held.serve(pod);
        let socket = pod.argo.plugins().join("strongroom.sock");
        let (output, status) = while_helm_waits(pod, &held, |_| {
            sidecar.signal(Signal::TERM);
            wait_until(|| !socket.exists(), "the socket is gone");
            held.let_go();
            sidecar.end()
        });
        assert!(output.status.success(), "{}", output.stderr);
        let answer: Json = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(secret(&answer, "SESSION_KEY"), "STRONGROOM-MARKER-session-key");
        assert_eq!(status.code(), Some(0));
    });
}

#[test]
fn a_killed_sidecar_fails_the_render_and_serves_after_its_restart() {
    with_each_release(|pod| {
        let held = Held::new(pod);
        let sidecar = held.serve(pod);
        let (output, _) = while_helm_waits(pod, &held, |_| {
            sidecar.signal(Signal::KILL);
            sidecar.end()
        });
        held.let_go();
        assert!(!output.status.success(), "{}", output.stdout);
        assert_without_secrets(&output.stderr);
        let _again = pod.serve();
        let answer = pod.generate(&pod.request(&named("strongroom")));
        assert_eq!(secret(&answer, "SESSION_KEY"), "STRONGROOM-MARKER-session-key");
    });
}

#[test]
fn a_mock_collector_gets_the_render_inside_argo_cd_s_own_trace() {
    for release in RELEASES {
        let collector = MockCollector::start();
        let address = collector.endpoint.trim_start_matches("http://");
        let pod = Pod::with_flags(release, &["--otlp-address", address]);
        let sidecar = pod.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)]);
        pod.generate(&pod.request(&named("strongroom")));
        sidecar.signal(Signal::TERM);
        assert_eq!(sidecar.end().code(), Some(0));
        // The repo-server sends its spans every few seconds.
        let argo = "repository.RepoServerService/GenerateManifest";
        wait_until(|| collector.spans().iter().any(|span| span.name == argo), "Argo CD's span arrives");
        let spans = collector.spans();
        let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        assert_eq!(of("helm").trace, of(argo).trace, "{release:?}");
        assert_without_secrets(&collector.sent());
    }
}
