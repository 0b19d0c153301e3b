//! `strongroom explain` beside what the real helm makes of the same values.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use strongroom::render::mask::placeholder;

use support::MARKER;
use support::helm::HELMS;
use support::keys::AgeKey;
use support::process::Run;
use support::product::strongroom_with_helm;
use support::repository::Repository;
use support::sops::encrypt;
use support::tools::tool;

const CHART: &str = "apiVersion: v2\nname: app\nversion: 0.1.0\n";
const PRINTER: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  json: {{ .Values | toJson | quote }}\n";
const DEFAULTS: &str = "\
image: {repository: shop, tag: '1.0', pull: Always}
replicas: 2
hosts: [a.example, b.example]
removed: {by: null, and: this}
kept: {}
limits: &limits
  cpu: 100m
  memory: 1Gi
worker: {<<: *limits, cpu: 200m}
mode: 0644
switch: no
large: 12345678
text: |
  <two>
  lines
sub: {own: parent}
global: {region: eu}
";
const FIRST: &str = "\
# a comment
image:
  tag: '1.1'
removed: null
hosts:
- c.example
- name: d.example
  paths: [/, /api]
worker:
  cpu: 300m
unknown: null
\"dotted.key\": {a: 1}
";
const SECOND: &str = "{\"image\": {\"tag\": \"1.2\"}, \"replicas\": 4, \"sub\": {\"size\": 3}}";

/// A chart with a subchart, whose own templates do not render.
fn repository() -> Repository {
    let repository = Repository::new();
    repository.write("app/Chart.yaml", CHART);
    repository.write("app/values.yaml", DEFAULTS);
    repository.write("app/templates/a.yaml", "{{ fail \"a template\" }}");
    repository.write("app/values.schema.json", "{\"required\": [\"nowhere\"]}");
    repository.write("app/charts/sub/Chart.yaml", CHART.replace("app", "sub"));
    repository
        .write("app/charts/sub/values.yaml", "own: child\nsize: 1\nless: [1]\nglobal: {region: none}\n");
    repository.write("first.yaml", FIRST);
    repository.write("second.json", SECOND);
    repository
}

/// The same chart with nothing but a template that prints its values.
fn values_by_helm(helm: &str, repository: &Repository, flags: &[&str]) -> Json {
    let printer = Repository::new();
    support::repository::copy(&repository.path().join("app"), &printer.path().join("app"));
    printer.write("app/templates/a.yaml", PRINTER);
    printer.write("app/values.schema.json", "{}");
    let run = Run::new(tool(helm)).env("HOME", "/nonexistent").directory(repository.path());
    let chart = printer.path().join("app");
    let text = run.args(["template", "shop"]).arg(chart).args(flags).ok();
    let object: Json = serde_yaml::from_str(&text).unwrap();
    serde_json::from_str(object["data"]["json"].as_str().unwrap()).unwrap()
}

fn explained(helm: &str, repository: &Repository, key: Option<&AgeKey>, flags: &[&str]) -> String {
    let run = strongroom_with_helm(helm).directory(repository.path());
    let run = key.into_iter().fold(run, |run, key| run.env("SOPS_AGE_KEY", &key.identity));
    run.args(["explain", "shop", "app"]).args(flags).ok()
}

/// Each final value by its path, and where it comes from as text.
fn by_path(output: &str) -> BTreeMap<String, (Json, String)> {
    let reports: Vec<Json> = serde_json::from_str(output).unwrap();
    let place = |place: &Json| {
        let line = place["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        let source = place["source"].as_str().unwrap_or_default();
        let encrypted = if place["encrypted"] == true { " encrypted" } else { "" };
        let references = place["references"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let references = references.map(|reference| format!(" {reference}")).collect::<String>();
        format!("{source}{line}{encrypted}{references}")
    };
    let values = reports[0]["values"].as_array().unwrap().iter().map(|value| {
        let over = value["over"].as_array().into_iter().flatten().map(|over| format!(" < {}", place(over)));
        let from = place(&value["from"]) + &over.collect::<String>();
        (value["path"].as_str().unwrap().to_owned(), (value["value"].clone(), from))
    });
    values.collect()
}

/// The leaves of what helm sees, by path.
fn leaves(value: &Json, path: &str, found: &mut BTreeMap<String, Json>) {
    let mut below: Vec<(String, &Json)> = Vec::new();
    match value {
        Json::Object(fields) => {
            let join = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            below.extend(fields.iter().map(|(key, value)| (join(key), value)));
        }
        Json::Array(items) => {
            below.extend(items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)));
        }
        _ => {}
    }
    if below.is_empty() {
        found.insert(path.to_owned(), value.clone());
    }
    for (path, value) in below {
        leaves(value, &path, found);
    }
}

#[test]
fn the_values_are_those_that_every_helm_sees() {
    let repository = repository();
    let flags: [&[&str]; 4] = [
        &[],
        &["-f", "first.yaml"],
        &[
            "-f",
            "first.yaml",
            "-f",
            "second.json",
            "--set",
            "replicas=7,hosts[0]=x,kept.a=null,worker.cpu=null",
        ],
        &[
            "--set-json",
            "image={\"a\":[1,{\"b\":2}]}",
            "--set-string",
            "mode=08",
            "--set-literal",
            "text=a,b",
        ],
    ];
    for helm in HELMS {
        for flags in flags {
            let mut seen = BTreeMap::new();
            leaves(&values_by_helm(helm, &repository, flags), "", &mut seen);
            let output = explained(helm, &repository, None, &[flags, &["-o", "json"]].concat());
            let told: BTreeMap<_, _> =
                by_path(&output).into_iter().map(|(path, (value, _))| (path, value)).collect();
            assert_eq!(told, seen, "{helm} {flags:?}");
        }
    }
}

#[test]
fn each_value_has_its_place_and_what_it_overrides() {
    let repository = repository();
    let flags = ["-f", "first.yaml,second.json", "--set", "replicas=7,hosts[1].name=e", "-o", "json"];
    let told = by_path(&explained("helm", &repository, None, &flags));
    let expected = [
        ("image.repository", "the chart's values.yaml:1"),
        ("image.tag", "second.json:1 < first.yaml:3 < the chart's values.yaml:1"),
        ("replicas", "--set < second.json:1 < the chart's values.yaml:2"),
        ("hosts[0]", "first.yaml:6 < the chart's values.yaml:3"),
        ("hosts[1].name", "--set < first.yaml:7 < the chart's values.yaml:3"),
        ("hosts[1].paths[1]", "first.yaml:8 < the chart's values.yaml:3"),
        ("worker.cpu", "first.yaml:10 < the chart's values.yaml:9"),
        ("worker.memory", "the chart's values.yaml:8"),
        ("kept", "the chart's values.yaml:5"),
        ("text", "the chart's values.yaml:13"),
        ("dotted.key.a", "first.yaml:12"),
        ("sub.size", "second.json:1 < the chart's charts/sub/values.yaml:2"),
        ("sub.own", "the chart's values.yaml:16 < the chart's charts/sub/values.yaml:1"),
        ("sub.less[0]", "the chart's charts/sub/values.yaml:3"),
        ("sub.global.region", "the chart's values.yaml:17 < the chart's charts/sub/values.yaml:4"),
    ];
    for (path, from) in expected {
        assert_eq!(told.get(path).map(|(_, from)| from.as_str()), Some(from), "{path}");
    }
    assert!(!told.keys().any(|path| path.starts_with("removed")), "null removes");
}

#[test]
fn secrets_are_masked_and_said_to_be_encrypted_or_referenced() {
    let repository = repository();
    let key = AgeKey::new();
    let secret = |name: &str| format!("{MARKER}-{name}");
    let json = serde_json::json!({"user": secret("user"), "password": secret("password"), "map": {"a": secret("a")}});
    repository.write("a.json", json.to_string());
    let plain = format!(
        "# {}\ndatabase:\n  user: admin\n  password: {}\n  reference: ref+echo://{}\n",
        secret("comment"),
        secret("file"),
        secret("hidden")
    );
    let sealed = repository.write("secrets.yaml", plain);
    encrypt(&sealed, &["--age", &key.recipient]);
    repository.write(
        "references.yaml",
        "database: {password: again}\nwhole: ref+file:///a.json#/map\npart: x-ref+file:///a.json#/user+-y\n\
         ref+file:///a.json#/: {own: 1}\nsame: admin\n",
    );
    let flags = ["-f", "secrets.yaml,references.yaml", "--set", "image.tag=ref+file:///a.json#/password"];
    let output = explained("helm", &repository, Some(&key), &[&flags[..], &["-o", "json"]].concat());
    let told = by_path(&output);
    let masked = |text: String| Json::from(placeholder(&text));
    let file = "ref+file:///a.json#";
    let expected = [
        ("database.user", masked("admin".to_owned()), "secrets.yaml:3 encrypted".to_owned()),
        ("database.password", Json::from("again"), "references.yaml:1 < secrets.yaml:4 encrypted".to_owned()),
        ("database.reference", masked(secret("hidden")), "secrets.yaml:5 encrypted <redacted>".to_owned()),
        ("whole.a", masked(secret("a")), format!("references.yaml:2 {file}/map")),
        ("part", masked(format!("x-{}-y", secret("user"))), format!("references.yaml:3 {file}/user")),
        ("user", masked(secret("user")), format!("references.yaml:4 {file}/")),
        ("same", masked("admin".to_owned()), "references.yaml:5".to_owned()),
        ("replicas", Json::from(2), "the chart's values.yaml:2".to_owned()),
        (
            "image.tag",
            masked(secret("password")),
            format!("--set {file}/password < the chart's values.yaml:1"),
        ),
    ];
    for (path, value, from) in expected {
        assert_eq!(told.get(path), Some(&(value, from)), "{path}");
    }
    let text = explained("helm", &repository, Some(&key), &flags);
    assert!(!output.contains(MARKER) && !text.contains(MARKER), "{output}\n{text}");
    assert!(
        text.contains("database.password: \"again\"  # references.yaml:1; over secrets.yaml:4 (encrypted)\n")
    );
}

#[test]
fn an_application_is_explained_as_the_sidecar_would_render_it() {
    let repository = repository();
    repository.write(
        "application.yaml",
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: shop}\nspec:\n  \
         destination: {namespace: demo}\n  source:\n    repoURL: https://git.example/a.git\n    path: app\n    \
         plugin:\n      name: strongroom\n      parameters:\n        - {name: valueFiles, array: [/first.yaml]}\n        \
         - {name: values, string: 'replicas: 5'}\n        - {name: parameters, map: {image.tag: '9'}}\n",
    );
    let run = strongroom_with_helm("helm").directory(repository.path());
    let told = by_path(&run.args(["explain", "--application", "application.yaml", "-o", "json"]).ok());
    let from = |path: &str| told[path].1.as_str();
    assert_eq!(from("replicas"), "parameter \"values\":1 < the chart's values.yaml:2");
    assert_eq!(from("image.tag"), "parameters < /first.yaml:3 < the chart's values.yaml:1");
}

#[test]
fn what_cannot_be_explained_says_why_and_leaves_nothing() {
    let repository = Repository::new();
    repository.write("manifests/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    repository.write("app/Chart.yaml", CHART);
    repository.write("broken.yaml", format!("a: [{MARKER}\n"));
    let fails = |chart: &str, flags: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let run = strongroom_with_helm("helm").directory(repository.path()).env("TMPDIR", folder.path());
        let error = run.args(["explain", "shop", chart]).args(flags).fails();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
        assert!(!error.contains(MARKER), "{error}");
        error
    };
    assert!(fails("manifests", &[]).contains("the app directory has no Chart.yaml, so there are no values"));
    assert!(fails("app", &["-f", "missing.yaml"]).contains("missing.yaml"));
    assert!(fails("app", &["-f", "broken.yaml"]).contains("failed to open broken.yaml: line 1"));
    assert!(fails("app", &["--set", "a=ref+file:///nothing"]).contains("ref+file:///nothing"));
    assert!(!Path::new("strongroom-values.yaml").exists());
}
