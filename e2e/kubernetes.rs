//! `ref+k8s` with the real API server of Kubernetes and the real vals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize as _;
use serde_json::{Value as Json, json};
use strongroom::kubernetes::{Kubernetes, Settings};
use strongroom::policy::AllowList;
use strongroom::refs::ambient::Ambient;
use strongroom::refs::resolve::Resolver;
use strongroom::sops::open::OpenOptions;
use support::MARKER;
use support::beside_vals::{self, Row, assert_rows, resolve, resolve_all};
use support::cluster::{Cluster, TEAM};
use support::helm::helm_bare;
use support::process::Run;
use support::product::{generate, strongroom};
use support::proxy::Proxy;
use support::repository::Repository;
use support::tools::{tool, top};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let cluster = Cluster::start();
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let secret = |namespace: &str, name: &str, data: Json| {
        let metadata = json!({"namespace": namespace, "name": name});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    };
    let encoded = |text: &str| STANDARD.encode(text);
    cluster.apply(&[namespace("team"), namespace("other"), namespace("made")]);
    cluster.apply(&[
        secret("team", "db", json!({
            "user": encoded("me"), "password": encoded("STRONGROOM-MARKER p"), "port": encoded("5432"),
            "conf.yaml": encoded("db: {port: 5432, hosts: [a, b]}\n"), "lines": encoded("one\ntwo\n"),
        })),
        secret("team", "keystore", json!({"password": encoded("STRONGROOM-MARKER k"), "store": STANDARD.encode([0xff, 0xfe])})),
        secret("team", "empty", json!({})),
        secret("other", "db", json!({"password": encoded("STRONGROOM-MARKER other")})),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "team", "name": "app"},
            "data": {"level": "info", "app.yaml": "replicas: 3\n"}, "binaryData": {"logo": STANDARD.encode([0xff])},
        }),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "default", "name": "strongroom"}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": "team", "name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"namespace": "team", "name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "team"},
                {"kind": "ServiceAccount", "namespace": "default", "name": "strongroom"},
            ],
        }),
    ]);
    cluster
});

/// What the tests log in as, each in a context of its own.
static KUBECONFIG: LazyLock<String> = LazyLock::new(|| {
    let users =
        [("team", json!({"token": TEAM})), ("stranger", json!({"token": "STRONGROOM-MARKER-stranger"}))];
    CLUSTER.kubeconfig("team", &users).display().to_string()
});

fn resolver(environment: &[(&str, &str)], settings: Settings, policy: AllowList) -> Resolver {
    let environment: strongroom::environment::Environment = environment.iter().copied().collect();
    let ambient = Ambient {
        kubernetes: Arc::new(Kubernetes::new(environment.clone(), settings)),
        environment,
        addresses: Vec::new(),
        aws: Arc::default(),
        azure: Arc::default(),
        google: Arc::default(),
        vault: Arc::default(),
        keyring: Arc::default(),
        sops: OpenOptions::default(),
        envsubst: None,
    };
    Resolver::new(ambient, Arc::new(policy))
}

/// Of an application, whose operator has that kubeconfig and allows everything.
fn of_team() -> Resolver {
    resolver(&[("KUBECONFIG", &KUBECONFIG)], Settings::default(), AllowList::everything())
}

fn vals(reference: &str) -> Result<Json, String> {
    beside_vals::vals(reference, |run| run.env("HOME", CLUSTER.home()).env("KUBECONFIG", &*KUBECONFIG))
}

fn rows() -> Vec<Row> {
    let missing = "no such option";
    vec![
        ("ref+k8s://v1/Secret/team/db/password", Ok(json!("STRONGROOM-MARKER p")), None),
        ("ref+k8s://v1/Secret/team/db#/password", Ok(json!("STRONGROOM-MARKER p")), None),
        ("ref+k8s://v1/Secret/team/db/port", Ok(json!("5432")), None),
        ("ref+k8s://v1/Secret/team/db#/port", Ok(json!("5432")), None),
        ("ref+k8s://v1/Secret/team/db/lines", Ok(json!("one\ntwo\n")), None),
        ("ref+k8s://v1/Secret/team/db#/conf.yaml", Ok(json!("db: {port: 5432, hosts: [a, b]}\n")), None),
        ("ref+k8s://v1/ConfigMap/team/app/level", Ok(json!("info")), None),
        ("ref+k8s://v1/ConfigMap/team/app#/level", Ok(json!("info")), None),
        ("ref+k8s://v1/Secret/team/empty", Ok(json!("{}")), None),
        ("ref+k8s://v1/Secret/team/db/password?kubeContext=team", Ok(json!("STRONGROOM-MARKER p")), None),
        (
            "ref+k8s://v1/ConfigMap/team/app",
            Ok(json!(r#"{"app.yaml": "replicas: 3\n", "level": "info"}"#)),
            Some("JSON without spaces"),
        ),
        (
            "ref+k8s://v1/Secret/team/db/conf.yaml#/db/hosts/1",
            Ok(json!("b")),
            Some("a fragment is of the whole object only"),
        ),
        ("ref+k8s://v1/Secret/te%61m/db/port", Ok(json!("5432")), None),
        ("ref+k8s://v1/Secret/team/keystore/store?encode=base64", Ok(json!("//4=")), Some(missing)),
        (
            "ref+k8s://v1/ConfigMap/team/app/logo?encode=base64",
            Ok(json!("/w==")),
            Some("binaryData is not read"),
        ),
        (
            "ref+k8s://v1/Secret/team/keystore/store",
            Err("invalid: the document cannot be a string"),
            Some("bytes that are no text are replaced"),
        ),
        (
            "ref+k8s://v1/Secret/team/keystore#/password",
            Err("invalid: the key \"store\" is not text\nhelp: name one key in the path"),
            Some("bytes that are no text are replaced"),
        ),
        ("ref+k8s://v1/Secret/team/keystore/password", Ok(json!("STRONGROOM-MARKER k")), None),
        (
            "ref+k8s://v1/Secret/team/db/absent",
            Err("not_found: no key \"absent\" in v1/Secret/team/db"),
            None,
        ),
        ("ref+k8s://v1/Secret/team/db#/absent", Err("not_found: no key \"absent\""), None),
        (
            "ref+k8s://v1/Secret/team/none/a",
            Err("not_found: Kubernetes has nothing at v1/Secret/team/none"),
            None,
        ),
        ("ref+k8s://v1/ConfigMap/team/none/a", Err("not_found: "), None),
        ("ref+k8s://v1/Secret/team/none/a?default=x", Ok(json!("x")), Some(missing)),
        ("ref+k8s://v1/Secret/team/db/absent?optional=true", Ok(json!("")), Some(missing)),
        ("ref+k8s://v1/Secret/team/db/", Err("invalid: the key is not one"), None),
        ("ref+k8s://v1/Secret/team", Err("invalid: it must be v1/Secret/namespace/name/key"), None),
        ("ref+k8s://v1/Pod/team/db/a", Err("invalid: the kind is neither Secret nor ConfigMap"), None),
        ("ref+k8s://v2/Secret/team/db/a", Err("invalid: the version of"), None),
        ("ref+k8s://v1/Secret/other/db/password", Err("denied: Kubernetes says HTTP 403"), None),
        (
            "ref+k8s://v1/Secret/team/db/password?kubeContext=absent",
            Err("invalid: the kubeconfig has no context \"absent\"\nhelp: its contexts are team, stranger"),
            None,
        ),
        (
            "ref+k8s://v1/Secret/team/db/password?kubeContext=stranger",
            Err("denied: Kubernetes says HTTP 401"),
            None,
        ),
        (
            "ref+k8s://v1/Secret/team/db/password?kubeConfigPath=/absent",
            Err("denied: \"/absent\" is not a"),
            None,
        ),
        ("ref+k8s://v1/Secret/team/db/password?inCluster", Err("invalid: no cluster is named"), None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn references_mean_what_they_mean_to_vals_unless_the_row_says_so() {
    let resolver = of_team();
    assert_rows(&resolver, rows(), vals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_says_who_was_denied_what_and_is_never_forgiven() {
    let said = resolve(&of_team(), "ref+k8s://v1/Secret/other/db/password?optional=true").await.unwrap_err();
    assert_eq!(
        said,
        "denied: Kubernetes says HTTP 403 for v1/Secret/other/db: secrets \"db\" is forbidden: User \"team\" cannot \
         get resource \"secrets\" in API group \"\" in the namespace \"other\""
    );
}

/// The server's own audit trail says what it was asked for. The `ConfigMap` is of this test alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_read_once_for_all_its_keys_and_never_before_the_policy_allows_it() {
    let objects = ["batch", "forbidden"].map(|name| {
        let metadata = json!({"namespace": "team", "name": name});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1", "b": "2"}})
    });
    CLUSTER.apply(&objects);
    let policy = AllowList::default().with_references("k8s://v1/ConfigMap/team/batch").unwrap();
    let resolver = resolver(&[("KUBECONFIG", &KUBECONFIG)], Settings::default(), policy);
    let references = [
        "ref+k8s://v1/ConfigMap/team/batch/a",
        "ref+k8s://v1/ConfigMap/team/batch/b",
        "ref+k8s://v1/ConfigMap/te%61m/batch#/a",
        "ref+k8s://v1/ConfigMap/team/batch",
        "ref+k8s://v1/ConfigMap/team/forbidden/a",
        "ref+k8s://v1/ConfigMap/team/batch%2F..%2Fforbidden/a",
        "ref+k8s://v1/ConfigMap/team/batch/a?kubeContext=team",
        "ref+k8s://v1/ConfigMap/team/batch/a?inCluster",
    ];
    let values = resolve_all(&resolver, &references).await;
    assert_eq!(values[..3], [Ok(json!("1")), Ok(json!("2")), Ok(json!("1"))]);
    assert!(values[3].is_ok());
    let help = "\nhelp: the operator allows references with STRONGROOM_ALLOW_REFS";
    let denied =
        |what: &str| Err(format!("denied: app \"\" may not open ref+k8s://v1/ConfigMap/team/{what}{help}"));
    assert_eq!(values[4], denied("forbidden/a"));
    assert!(values[5].as_ref().unwrap_err().starts_with("invalid: it must be"), "{:?}", values[5]);
    assert_eq!(values[6..], [denied("batch/a with kubeContext"), denied("batch/a with inCluster")]);
    let asked = CLUSTER.asked_by("strongroom/");
    let of =
        |name: &str| asked.iter().filter(|asked| asked.contains(&format!("/{name} "))).collect::<Vec<_>>();
    assert_eq!(of("batch"), ["/api/v1/namespaces/team/configmaps/batch 200"]);
    assert!(of("forbidden").is_empty(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_asks_as_its_service_account_and_takes_a_token_that_is_replaced() {
    let folder = CLUSTER.service_account("default", "strongroom");
    let settings = Settings { service_account: folder.clone(), ..Settings::default() };
    let pod = CLUSTER.pod();
    let pod: Vec<_> = pod.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reference = "ref+k8s://v1/Secret/team/db/port";
    let own = resolver(&pod, settings.clone(), AllowList::everything());
    assert_eq!(resolve(&own, reference).await, Ok(json!("5432")));
    let both = [pod.as_slice(), &[("KUBECONFIG", "/absent")]].concat();
    let both = resolver(&both, settings.clone(), AllowList::everything());
    assert_eq!(resolve(&both, &format!("{reference}?inCluster")).await, Ok(json!("5432")));
    let denied = resolve(&own, "ref+k8s://v1/Secret/other/db/password").await.unwrap_err();
    assert!(denied.contains("User \"system:serviceaccount:default:strongroom\" cannot get"), "{denied}");

    let late = resolver(&pod, settings, AllowList::everything());
    let token = fs::read(folder.join("token")).unwrap();
    fs::write(folder.join("token"), "STRONGROOM-MARKER-ended").unwrap();
    let ended = resolve(&late, reference).await;
    assert_eq!(ended, Err("denied: Kubernetes says HTTP 401 for v1/Secret/team/db".to_owned()));
    fs::write(folder.join("token"), token).unwrap();
    assert_eq!(resolve(&late, reference).await, Ok(json!("5432")), "the kept login is not taken for good");

    let none = Settings { service_account: "/absent".into(), ..Settings::default() };
    let none = resolve(&resolver(&pod, none, AllowList::everything()), reference).await.unwrap_err();
    assert_eq!(none, "invalid: /absent/ca.crt cannot be read: entity not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_logs_in_by_a_token_a_file_or_a_certificate_and_the_server_is_verified() {
    let (certificate, key) = CLUSTER.client("team");
    let file = CLUSTER.home().join("team.token");
    fs::write(&file, TEAM).unwrap();
    let users = [
        ("file", json!({ "tokenFile": "team.token" })),
        (
            "certificate",
            json!({
                "client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key),
            }),
        ),
        (
            "broken",
            json!({"client-certificate-data": "STRONGROOM-MARKER", "client-key-data": "STRONGROOM-MARKER"}),
        ),
        ("absent", json!({"tokenFile": "/absent"})),
    ];
    let path = CLUSTER.kubeconfig("logins", &users).display().to_string();
    let of = |path: &str| resolver(&[("KUBECONFIG", path)], Settings::default(), AllowList::everything());
    let own = of(&path);
    let reference = |context: &str| format!("ref+k8s://v1/Secret/team/db/port?kubeContext={context}");
    for (context, expected) in [
        ("file", Ok(json!("5432"))),
        ("certificate", Ok(json!("5432"))),
        ("broken", Err("invalid: the client certificate or its key cannot be read")),
        ("absent", Err("denied: the token /absent cannot be read: entity not found")),
    ] {
        let outcome = resolve(&own, &reference(context)).await;
        match (&outcome, &expected) {
            (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{context}: {said}"),
            _ => assert_eq!(outcome, expected.map_err(str::to_owned), "{context}"),
        }
    }
    let mut config: Json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let cluster = &mut config["clusters"][0]["cluster"];
    cluster.as_object_mut().unwrap().remove("certificate-authority-data");
    let unknown = written("unknown", &config);
    let said = resolve(&of(&unknown), &reference("file")).await.unwrap_err();
    assert!(
        said.starts_with("unavailable: Kubernetes cannot be reached: ") && said.contains("certificate"),
        "{said}"
    );
    config["clusters"][0]["cluster"]["certificate-authority"] = json!("certificates/apiserver.crt");
    assert_eq!(resolve(&of(&written("by-path", &config)), &reference("file")).await, Ok(json!("5432")));
    config["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:1");
    let said = resolve(&of(&written("down", &config)), &reference("file")).await.unwrap_err();
    assert!(said.starts_with("unavailable: Kubernetes cannot be reached: "), "{said}");
}

/// A kubeconfig beside the others.
fn written(name: &str, config: &Json) -> String {
    let path = CLUSTER.home().join(format!("{name}.kubeconfig"));
    fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

/// A program that logs in as the user `team`, and what shows that it ran.
fn program(folder: &Path) -> (PathBuf, PathBuf) {
    let (path, ran) = (folder.join("log-in"), folder.join("ran"));
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": TEAM},
    });
    fs::write(&path, format!("#!/bin/sh\ntouch '{}'\necho '{credential}'\n", ran.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path, ran)
}

fn by_program(command: &Path) -> Json {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never",
    }})
}

#[test]
fn a_program_logs_in_at_a_terminal_and_never_for_an_application() {
    let repository = Repository::with_secret_chart();
    let (command, ran) = program(&repository.path());
    let config = CLUSTER.kubeconfig("program", &[("program", by_program(&command))]);
    repository.write("app/values.yaml", "password: ref+k8s://v1/Secret/team/db/password\n");
    let said =
        generate(&repository, "app").env("KUBECONFIG", &config).env("STRONGROOM_ALLOW_REFS", "k8s").fails();
    assert!(
        said.contains("the kubeconfig logs in by running a program, which is for a terminal only"),
        "{said}"
    );
    assert!(!ran.exists());
    let get = |reference: &str| strongroom().args(["get", reference]).env("PATH", "/usr/bin:/bin");
    let value = get("ref+k8s://v1/Secret/team/db/password").env("KUBECONFIG", &config).ok();
    assert_eq!(value.trim_end(), "STRONGROOM-MARKER p");
    assert!(ran.exists());

    // Its home's kubeconfig, and any other that it names.
    let home = repository.path();
    fs::create_dir(home.join(".kube")).unwrap();
    fs::copy(&config, home.join(".kube/config")).unwrap();
    assert_eq!(get("ref+k8s://v1/Secret/team/db/port").env("HOME", &home).ok().trim_end(), "5432");
    let named = format!("ref+k8s://v1/Secret/team/db/port?kubeConfigPath={}", config.display());
    assert_eq!(get(&named).ok().trim_end(), "5432");

    // What it prints where it fails is not told.
    fs::write(
        &command,
        "#!/bin/sh\necho STRONGROOM-MARKER-printed\necho STRONGROOM-MARKER-said >&2\nexit 3\n",
    )
    .unwrap();
    let said = get("ref+k8s://v1/Secret/team/db/port").env("KUBECONFIG", &config).fails();
    assert!(
        said.contains("the program that logs in failed: exit status: 3") && !said.contains(MARKER),
        "{said}"
    );
}

#[test]
fn a_kubeconfig_of_the_repository_is_never_read() {
    let repository = Repository::with_secret_chart();
    let (command, ran) = program(&repository.path());
    let config = CLUSTER.kubeconfig("repository", &[("program", by_program(&command))]);
    repository.write("app/kubeconfig", fs::read(config).unwrap());
    for named in
        ["kubeconfig", "./kubeconfig", &repository.path().join("app/kubeconfig").display().to_string()]
    {
        let value = format!("password: ref+k8s://v1/Secret/team/db/password?kubeConfigPath={named}\n");
        repository.write("app/values.yaml", value);
        let said = generate(&repository, "app")
            .env("KUBECONFIG", &*KUBECONFIG)
            .env("STRONGROOM_ALLOW_REFS", "*")
            .fails();
        assert!(said.contains("is not a kubeconfig that the operator names"), "{said}");
    }
    assert!(!ran.exists());
}

#[test]
fn an_application_gets_the_secrets_that_the_operator_allows_it() {
    let repository = Repository::with_secret_chart();
    let render = |reference: &str| {
        repository.write("app/values.yaml", format!("password: {reference}\n"));
        generate(&repository, "app")
            .env("KUBECONFIG", &*KUBECONFIG)
            .env("STRONGROOM_ALLOW_REFS", "k8s://v1/Secret/team/db")
    };
    let manifests = render("ref+k8s://v1/Secret/team/db/password").ok();
    assert!(manifests.contains(&STANDARD.encode("STRONGROOM-MARKER p")), "{manifests}");
    let said = render("ref+k8s://v1/Secret/team/keystore/password").fails();
    assert!(said.contains("may not open ref+k8s://v1/Secret/team/keystore/password"), "{said}");
    let not_listed = generate(&repository, "app").env("KUBECONFIG", &*KUBECONFIG).fails();
    assert!(not_listed.contains("the operator allows references with STRONGROOM_ALLOW_REFS"), "{not_listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_lets_the_pod_read_the_secret_that_it_names_and_no_other() {
    let values = top().join("argocd-values/kubernetes.yaml");
    let rendered = helm_bare("helm", top().join("e2e/fixtures/argo-chart")).arg("-f").arg(values).ok();
    let objects: Vec<Json> = serde_yaml::Deserializer::from_str(&rendered)
        .map(|object| Json::deserialize(object).unwrap())
        .collect();
    let of = |kinds: &[&str]| {
        let is_of = |object: &&Json| kinds.contains(&object["kind"].as_str().unwrap());
        objects.iter().filter(is_of).cloned().collect::<Vec<_>>()
    };
    let settings = of(&["ConfigMap"]).remove(0)["data"].take();
    let list = settings["STRONGROOM_ALLOW_REFS"].as_str().unwrap().to_owned();
    let account = json!({"namespace": "argocd", "name": "argocd-repo-server"});
    let secret = |name: &str| {
        let metadata = json!({"namespace": "team", "name": name});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": STANDARD.encode(MARKER)}})
    };
    CLUSTER.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})]);
    CLUSTER.apply(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}),
        secret("database"),
        secret("private"),
    ]);
    let access = of(&["Role", "RoleBinding"]);
    assert_eq!(access.len(), 2);
    CLUSTER.apply(&access);

    let service_account = CLUSTER.service_account("argocd", "argocd-repo-server");
    let settings = Settings { service_account, ..Settings::default() };
    let pod = CLUSTER.pod();
    let pod: Vec<_> = pod.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let listed = AllowList::default().with_references(&list).unwrap();
    for policy in [listed.clone(), AllowList::everything()] {
        let resolver = resolver(&pod, settings.clone(), policy);
        assert_eq!(resolve(&resolver, "ref+k8s://v1/Secret/team/database/a").await, Ok(json!(MARKER)));
        let said = resolve(&resolver, "ref+k8s://v1/Secret/team/private/a").await.unwrap_err();
        assert!(said.starts_with("denied: "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_operator_is_on_the_way_unless_it_is_not_for_the_cluster() {
    let [_, (_, port)] = CLUSTER.pod();
    let proxy = Proxy::start(port.parse().unwrap());
    let near: Json = serde_json::from_str(&fs::read_to_string(&*KUBECONFIG).unwrap()).unwrap();
    let mut far = near.clone();
    far["clusters"][0]["cluster"]["server"] = json!("https://kubernetes.default.svc");
    let mut own = far.clone();
    own["clusters"][0]["cluster"]["proxy-url"] = json!(proxy.url());
    let by_proxy = ["kubernetes.default.svc:443"].as_slice();
    for (name, config, variables, expected, asked) in [
        (
            "far",
            &far,
            [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", "other.svc".to_owned())],
            Ok("5432"),
            by_proxy,
        ),
        (
            "far",
            &far,
            [("https_proxy", proxy.url()), ("NO_PROXY", ".svc".to_owned())],
            Err("unavailable: "),
            &[],
        ),
        ("near", &near, [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", String::new())], Ok("5432"), &[]),
        ("own", &own, [("HTTPS_PROXY", String::new()), ("NO_PROXY", String::new())], Ok("5432"), by_proxy),
    ] {
        let config = written(&format!("proxy-{name}"), config);
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
        let variables: Vec<_> = variables.chain([("KUBECONFIG", config.as_str())]).collect();
        let resolver = resolver(&variables, Settings::default(), AllowList::everything());
        match (resolve(&resolver, "ref+k8s://v1/Secret/team/db/port").await, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, json!(expected), "{name}"),
            (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{name}: {said}"),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
        assert_eq!(proxy.asked(), asked, "{name}");
    }
}

/// What the cluster has of a Secret of the namespace `made` once `manifests` are applied, as text.
fn applied(manifests: String, name: &str) -> Json {
    CLUSTER.kubectl().args(["apply", "-n", "made", "-f", "-"]).stdin(manifests).ok();
    let object = CLUSTER.kubectl().args(["get", "secret", "-n", "made", name, "-o", "json"]).ok();
    let mut data = serde_json::from_str::<Json>(&object).unwrap()["data"].take();
    for value in data.as_object_mut().unwrap().values_mut() {
        let decoded = STANDARD.decode(value.as_str().unwrap()).unwrap();
        *value = String::from_utf8(decoded).unwrap().into();
    }
    data
}

#[test]
fn references_in_the_base64_of_a_secret_reach_the_cluster_as_values_as_with_vals() {
    let reference = STANDARD.encode("ref+k8s://v1/Secret/team/db/password");
    let inside = STANDARD.encode("a: ref+k8s://v1/Secret/team/db#/port\n");
    let secret = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\n\
             data: {{whole: {reference}, inside: {inside}, plain: {}}}\n",
            STANDARD.encode("as it is")
        )
    };
    let ours = strongroom().args(["resolve", "--decode-kubernetes-secrets"]).stdin(secret("ours"));
    let theirs = Run::new(tool("vals"))
        .args(["eval", "-decode-kubernetes-secrets", "-f", "-"])
        .stdin(secret("theirs"));
    let here = |run: Run| run.env("KUBECONFIG", &*KUBECONFIG).env("HOME", CLUSTER.home()).ok();
    let expected = json!({"whole": "STRONGROOM-MARKER p", "inside": "a: 5432\n", "plain": "as it is"});
    assert_eq!(applied(here(ours), "ours"), expected);
    assert_eq!(applied(here(theirs), "theirs"), expected);
}

#[test]
fn references_that_a_chart_builds_reach_the_cluster_as_values() {
    let repository = Repository::with_secret_chart();
    let template = r#"
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
stringData:
  text: {{ printf "ref+k8s://v1/Secret/team/%s/password" .Values.from }}
data:
  encoded: {{ printf "ref+k8s://v1/Secret/team/%s#/port" .Values.from | b64enc }}
"#;
    repository.write("app/templates/secret.yaml", template);
    let render = |from: &str| {
        repository.write("app/values.yaml", format!("from: {from}\n"));
        generate(&repository, "app")
            .env("KUBECONFIG", &*KUBECONFIG)
            .env("STRONGROOM_ALLOW_REFS", "k8s://v1/Secret/team/db")
            .env("ARGOCD_APP_PARAMETERS", r#"[{"name": "resolveManifests", "string": "true"}]"#)
    };
    let expected = json!({"text": "STRONGROOM-MARKER p", "encoded": "5432"});
    assert_eq!(applied(render("db").ok(), "hello"), expected);
    let said = render("keystore").fails();
    assert!(said.contains("may not open ref+k8s://v1/Secret/team/keystore"), "{said}");
}
