//! What references mean, row by row of `vals/rows.yaml`, to Strongroom and to the real vals.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_credential_types::Credentials;
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
    let nothing = "environment: {}\nfiles: {}\nsecrets: {}\nparameters: {}\nrows: []\n";
    let table: Table = serde_yaml::from_str(nothing).unwrap();
    let (repository, moto) = world(&table);
    let resolver = resolver(&table.environment, &moto);
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
        let input = format!("a: {reference}\n");
        assert_eq!(evaluate(&resolver, &repository.path(), &input).await, expected, "{reference}");
        let theirs = vals(&table.environment, &moto, &repository.path(), &input);
        assert_eq!(theirs.ok(), expected.ok(), "{reference} in vals");
    }
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
