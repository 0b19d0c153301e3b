//! What references mean, row by row of `vals/rows.yaml`, to Strongroom and to the real vals.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use strongroom::aws::Aws;
use strongroom::document::value::Value;
use strongroom::document::{self, Format};
use strongroom::environment::Environment;
use strongroom::fault::{Class, Fault};
use strongroom::policy::AllowList;
use strongroom::refs::ambient::Ambient;
use strongroom::refs::resolve::Resolver;
use strongroom::refs::scan::{apply, scan};
use strongroom::scope::Scope;
use strongroom::sops::open::OpenOptions;
use support::moto::Moto;
use support::process::Run;
use support::product::strongroom;
use support::repository::Repository;
use support::tools::tool;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    environment: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    input: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    expect: Option<String>,
    error: Option<String>,
    vals: String,
}

/// Data to compare, or the label of the failure's class.
type Outcome = Result<serde_json::Value, String>;

#[tokio::test]
async fn references_mean_what_the_table_says_here_and_in_vals() {
    let table: Table = serde_yaml::from_str(include_str!("vals/rows.yaml")).unwrap();
    let (repository, moto) = world(&table);
    let mut wrong = Vec::new();
    for row in &table.rows {
        let expected: Outcome = match (&row.expect, &row.error) {
            (Some(text), None) => Ok(data(text).expect(&row.name)),
            (None, Some(class)) => Err(class.clone()),
            _ => panic!("{}: either expect or error", row.name),
        };
        let mut environment = table.environment.clone();
        environment.extend(row.environment.clone());
        let ours = evaluate(&resolver(&environment, &moto), &repository.path(), &row.input).await;
        if ours != expected {
            wrong.push(format!("{}: {ours:?} here, not {expected:?}", row.name));
        }
        let theirs = vals(&environment, &moto, &repository.path(), &row.input);
        let same = match (&theirs, &expected) {
            (Ok(theirs), Ok(expected)) => theirs == expected,
            (theirs, expected) => theirs.is_err() && expected.is_err(),
        };
        if same != (row.vals == "same") {
            wrong.push(format!("{}: {theirs:?} in vals, and the row says {:?}", row.name, row.vals));
        }
        assert!(row.vals == "same" || row.vals.starts_with("differs: "), "{}", row.name);
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn ciphertexts_of_a_real_key_say_the_same_here_and_in_vals() {
    let moto = Moto::start();
    let key = moto.create_key();
    let plain = moto.encrypt(&key, "user: STRONGROOM-MARKER", &[]);
    let bound = moto.encrypt(&key, "STRONGROOM-MARKER", &[("team", "a")]);
    let context = |team: &str| format!("context=%7B%22team%22:%22{team}%22%7D");
    let marker = || Ok(serde_json::json!({"a": "STRONGROOM-MARKER"}));
    for (reference, expected) in [
        (format!("ref+awskms://{plain}#/user"), marker()),
        (format!("ref+awskms://{bound}?{}", context("a")), marker()),
        (format!("ref+awskms://{bound}?optional=true&{}", context("b")), Err("invalid".to_owned())),
        (format!("ref+awskms://{bound}"), Err("invalid".to_owned())),
    ] {
        assert_both(&reference, expected, &moto).await;
    }
}

#[tokio::test]
async fn arns_are_paths_here_and_in_vals() {
    let moto = Moto::start();
    let arn = moto.create_secret("team/arn", r#"{"user": "STRONGROOM-MARKER", "port": 5432}"#);
    for (reference, expected) in [
        (format!("ref+awssecrets://{arn}#/user"), Ok(serde_json::json!({"a": "STRONGROOM-MARKER"}))),
        (
            format!("ref+awssecrets://{arn}?version_stage=AWSCURRENT#/port"),
            Ok(serde_json::json!({"a": 5432})),
        ),
        (format!("x ref+awssecrets://{arn}#/port y"), Ok(serde_json::json!({"a": "x 5432 y"}))),
        (format!("ref+awssecrets://{arn}#/absent"), Err("not_found".to_owned())),
        (format!("ref+awssecrets://{arn}-absent"), Err("not_found".to_owned())),
    ] {
        assert_both(&reference, expected, &moto).await;
    }
}

#[tokio::test]
async fn versions_and_binary_secrets_are_the_same_here_and_in_vals() {
    let moto = Moto::start();
    let put = |value: &str| {
        let input = serde_json::json!({"SecretId": "team/versions", "SecretString": value});
        let made = moto.call("secretsmanager", "secretsmanager.PutSecretValue", &input);
        made["VersionId"].as_str().expect("moto names the version").to_owned()
    };
    moto.create_secret("team/versions", "STRONGROOM-MARKER none");
    let (first, second) = (put("STRONGROOM-MARKER first"), put("STRONGROOM-MARKER second"));
    let binary = serde_json::json!({"Name": "team/binary", "SecretBinary": STANDARD.encode("user: STRONGROOM-MARKER")});
    moto.call("secretsmanager", "secretsmanager.CreateSecret", &binary);
    moto.create_parameter("/team/versions", "STRONGROOM-MARKER first");
    let parameter = serde_json::json!({
        "Name": "/team/versions", "Value": "STRONGROOM-MARKER second", "Type": "SecureString", "Overwrite": true
    });
    moto.call("ssm", "AmazonSSM.PutParameter", &parameter);
    let absent = "00000000-0000-4000-8000-000000000000";
    for (reference, expected) in [
        ("awssecrets://team/versions".to_owned(), Some("STRONGROOM-MARKER second")),
        ("awssecrets://team/versions?version_stage=AWSPREVIOUS".to_owned(), Some("STRONGROOM-MARKER first")),
        (format!("awssecrets://team/versions?version_id={first}"), Some("STRONGROOM-MARKER first")),
        (format!("awssecrets://team/versions?version_id={second}"), Some("STRONGROOM-MARKER second")),
        (format!("awssecrets://team/versions?version_id={absent}"), None),
        ("awssecrets://team/versions?version_stage=ABSENT".to_owned(), None),
        ("awssecrets://team/binary".to_owned(), Some("user: STRONGROOM-MARKER")),
        ("awssecrets://team/binary#/user".to_owned(), Some("STRONGROOM-MARKER")),
        ("awsssm://team/versions".to_owned(), Some("STRONGROOM-MARKER second")),
        ("awsssm://team/versions?version=1".to_owned(), Some("STRONGROOM-MARKER first")),
        ("awsssm://team/versions?version=2".to_owned(), Some("STRONGROOM-MARKER second")),
        ("awsssm://team/versions?version=3".to_owned(), None),
    ] {
        let expected =
            expected.map_or_else(|| Err("not_found".to_owned()), |text| Ok(serde_json::json!({ "a": text })));
        assert_both(&format!("ref+{reference}"), expected, &moto).await;
    }
}

/// `a: reference` is evaluated to `expected` here, and in vals where it is no error.
async fn assert_both(reference: &str, expected: Outcome, moto: &Moto) {
    let (repository, environment) = (Repository::new(), BTreeMap::new());
    let input = format!("a: {reference}\n");
    let ours = evaluate(&resolver(&environment, moto), &repository.path(), &input).await;
    assert_eq!(ours, expected, "{reference}");
    let theirs = vals(&environment, moto, &repository.path(), &input);
    assert_eq!(theirs.ok(), expected.ok(), "{reference} in vals");
}

/// The commands of both, and what is compared: text, or data where vals sorts keys and prints them anew.
#[test]
fn commands_give_what_those_of_vals_give() {
    let repository = Repository::new();
    let variables = "A: ref+echo://foo/bar\nB: \"it's ref+echo://foo/x $s\"\nC: plain\n";
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata: {{p: {}, q: cGxhaW4=}}\n",
        STANDARD.encode("ref+echo://foo/bar")
    );
    repository.write("e.yaml", variables);
    repository.write("s.yaml", &secret);
    let run = |run: Run, line: &str, stdin: &str| {
        run.args(line.split(' ')).directory(repository.path()).env("PATH", "/usr/bin:/bin").stdin(stdin).ok()
    };
    // Each quotes in its own way, so it is a shell that compares.
    let set = |lines: String| {
        let shell =
            Run::new("/bin/sh").args(["-c", "eval \"$0\"; printf '%s|%s|%s' \"$A\" \"$B\" \"$C\"", &lines]);
        (shell.ok(), lines.matches("export ").count())
    };
    for (ours, theirs, stdin) in
        [("env -f e.yaml", "env -f e.yaml", ""), ("env --export -f -", "env -export -f -", variables)]
    {
        let outputs = (run(strongroom(), ours, stdin), run(Run::new(tool("vals")), theirs, stdin));
        let ours = set(outputs.0);
        assert_eq!(ours.0, "foo/bar|it's foo/x $s|plain");
        assert_eq!(ours, set(outputs.1));
    }
    // The order of variables is random in vals.
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    for (ours, theirs, stdin) in [
        ("exec -f e.yaml -- /usr/bin/env", "exec -f e.yaml /usr/bin/env", ""),
        ("get ref+echo://foo/bar", "get ref+echo://foo/bar", ""),
    ] {
        let outputs = (run(strongroom(), ours, stdin), run(Run::new(tool("vals")), theirs, stdin));
        assert_eq!(lines(&outputs.0), lines(&outputs.1), "{ours}");
    }
    let stream = "a: ref+echo://foo/bar\n---\n# nothing\n---\nb: [{c: ref+echo://x/y}]\n";
    for (ours, theirs, stdin) in [
        ("resolve -o json -f e.yaml", "eval -o json -f e.yaml", ""),
        ("resolve -o json", "eval -o json", r#"{"a": "ref+echo://foo/bar", "b": [1, null]}"#),
        ("resolve -o yaml", "eval -o yaml", r#"{"a": "ref+echo://foo/bar", "b": [1, null]}"#),
        ("resolve", "eval", variables),
        ("resolve", "eval", stream),
        ("resolve -o json", "eval -o json", stream),
        ("resolve --decode-kubernetes-secrets -f s.yaml", "eval -decode-kubernetes-secrets -f s.yaml", ""),
        ("resolve -f s.yaml", "eval -f s.yaml", ""),
    ] {
        let outputs = (run(strongroom(), ours, stdin), run(Run::new(tool("vals")), theirs, stdin));
        assert_eq!(documents(&outputs.0), documents(&outputs.1), "{ours}");
    }
}

/// What both refuse and what only Strongroom does, with a part of its message.
#[test]
fn commands_refuse_what_those_of_vals_refuse_and_more() {
    let repository = Repository::new();
    repository.write("e.yaml", "A: b\n");
    let run = |run: Run, line: &str, stdin: &str| {
        run.args(line.split(' '))
            .directory(repository.path())
            .env("PATH", "/usr/bin:/bin")
            .stdin(stdin)
            .output()
    };
    let not_base64 = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {p: '!!'}\n";
    for (ours, theirs, stdin, also_in_vals, expected) in [
        ("get ref+file://e.yaml#/absent", "get ref+file://e.yaml#/absent", "", false, "no key \"absent\""),
        ("get ref+file://absent", "get ref+file://absent", "", true, "ref+file://absent: "),
        ("get ref+nothing://x", "get ref+nothing://x", "", false, "unknown scheme \"nothing\""),
        ("get plain", "get plain", "", false, "not a reference"),
        ("resolve -f absent.yaml", "eval -f absent.yaml", "", true, "absent.yaml"),
        ("resolve", "eval", "a: {", true, "line 1"),
        ("resolve", "eval", "a: ref+file://absent\n", true, "ref+file://absent: "),
        ("env -f -", "env -f -", "A: [x]\n", true, "variable A is a list, not text"),
        ("env -f -", "env -f -", "[x]\n", true, "variables are a map of names to values"),
        ("env -f -", "env -f -", "A: ref+file://absent\n", true, "ref+file://absent: "),
        ("env -f -", "env -f -", "'a;b': x\n", false, "\"a;b\" is no name of a variable"),
        ("env -f -", "env -f -", "A: b\n---\nC: d\n", false, "variables are one document"),
        ("exec -f e.yaml -- /absent", "exec -f e.yaml /absent", "", true, "/absent"),
        ("exec -f absent.yaml -- /usr/bin/env", "exec -f absent.yaml /usr/bin/env", "", true, "absent.yaml"),
    ] {
        let (ours_said, theirs_said) =
            (run(strongroom(), ours, stdin), run(Run::new(tool("vals")), theirs, stdin));
        assert!(!ours_said.status.success(), "{ours} < {stdin}");
        assert_eq!(ours_said.stdout, "", "{ours} < {stdin}");
        assert!(ours_said.stderr.contains(expected), "{ours} < {stdin}: {}", ours_said.stderr);
        assert_eq!(!theirs_said.status.success(), also_in_vals, "{theirs} < {stdin}: {}", theirs_said.stderr);
    }
    let kept = run(strongroom(), "resolve --decode-kubernetes-secrets", not_base64);
    assert_eq!(kept.stdout, not_base64, "what holds no reference stays as it is");
    assert!(!run(Run::new(tool("vals")), "eval -decode-kubernetes-secrets", not_base64).status.success());
    let nil = run(Run::new(tool("vals")), "get ref+file://e.yaml#/absent", "");
    assert_eq!(nil.stdout, "<nil>", "what a missing key becomes in vals");
    let failing =
        strongroom().args(["exec", "-f", "-", "--", "/bin/sh", "-c", "exit 7"]).stdin("A: b\n").output();
    assert_eq!(failing.status.code(), Some(7), "vals makes 1 of it");
}

/// The documents of a stream, whatever the order of their keys; JSON has a line for each.
fn documents(text: &str) -> Vec<serde_json::Value> {
    let lines = serde_json::Deserializer::from_str(&text.replace("---\n", "")).into_iter().collect();
    let values: Result<Vec<serde_json::Value>, _> = lines;
    values.unwrap_or_else(|_| {
        let documents = serde_yaml::Deserializer::from_str(text);
        let documents = documents
            .map(|document| serde_json::Value::deserialize(document).expect("a program prints YAML"));
        documents.filter(|document| !document.is_null()).collect()
    })
}

fn world(table: &Table) -> (Repository, Moto) {
    let repository = Repository::new();
    for (name, content) in &table.files {
        repository.write(name, content);
    }
    let moto = Moto::start();
    for (name, value) in &table.secrets {
        moto.create_secret(name, value);
    }
    for (name, value) in &table.parameters {
        moto.create_parameter(name, value);
    }
    (repository, moto)
}

fn resolver(environment: &BTreeMap<String, String>, moto: &Moto) -> Resolver {
    let credentials = Credentials::new("test", "test", None, None, "moto");
    let aws = Aws::emulated(moto.url(), support::moto::REGION, credentials);
    let ambient = Ambient {
        environment: environment.clone().into_iter().collect::<Environment>(),
        addresses: Vec::new(),
        aws: Arc::new(aws),
        azure: Arc::default(),
        google: Arc::default(),
        kubernetes: Arc::default(),
        vault: Arc::default(),
        keyring: Arc::default(),
        sops: OpenOptions::default(),
        envsubst: None,
    };
    Resolver::new(ambient, Arc::new(AllowList::everything()))
}

async fn evaluate(resolver: &Resolver, repository: &Path, input: &str) -> Outcome {
    let scope =
        Scope { repository: Some(repository.into()), directory: Some(repository.into()), ..Scope::default() };
    let stream = document::parse(input, Format::Yaml).expect("a row is YAML");
    let found = scan(&stream);
    let expressions: Vec<_> = found.iter().map(|found| &found.expression).collect();
    let values = resolver.resolve(&scope, &expressions).await.into_iter();
    let class = |class: Class| class.label().to_owned();
    let values: Vec<_> = values.collect::<Result<_, _>>().map_err(|errors| class(errors[0].class()))?;
    let edits = apply(input, &found, &values).map_err(|error| class(error.class()))?;
    data(edits.apply(input).expect("edits of one text fit together").expose())
}

fn vals(environment: &BTreeMap<String, String>, moto: &Moto, repository: &Path, input: &str) -> Outcome {
    let run = Run::new(tool("vals")).args(["eval", "-f", "-"]).directory(repository).stdin(input);
    let output = run.env("PATH", "/usr/bin:/bin").envs(moto.environment()).envs(environment.clone()).output();
    if output.status.success() { data(&output.stdout) } else { Err(output.stderr) }
}

fn data(text: &str) -> Outcome {
    let value = Value::parse(text).map_err(|error| error.to_string())?;
    Ok(serde_json::from_str(value.to_flow().expose()).expect("a flow value is JSON"))
}
