//! The stories that the product exists for, with the real peers: keys made by gpg, files encrypted by sops, secrets kept
//! by moto, charts rendered by every helm. What `strongroom generate` prints is what `helm template` prints for the same
//! values in plain text, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::MARKER;
use support::fake_aws::FakeSecretsManager;
use support::helm::{HELMS, helm_template};
use support::keys::{AgeKey, GpgHome, KeysFolder};
use support::moto::{REGION, moto};
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::sops::{encrypt, encrypt_by, sops};
use support::tools::{tool, top};

const CREDENTIALS: &str = "password: test\n";
/// The chart of the stories, with `password: test`.
const SECRET: &str = "\
---
# Source: app/templates/secret.yaml
apiVersion: v1
kind: Secret
metadata:
  name: hello
data:
  password: \"dGVzdA==\"
";
const CREDENTIALS_PARAMETER: &str = r#"[{"name":"valueFiles","array":["credentials.yaml"]}]"#;

/// The chart of the references: every value below `secrets` as text, and its type.
const TYPES_TEMPLATE: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
{{- range $name, $value := .Values.secrets }}
  {{ $name }}: {{ printf \"%s %v\" (kindOf $value) $value | quote }}
{{- end }}
";

#[test]
fn a_file_encrypted_for_a_gpg_key_without_passphrase() {
    let home = GpgHome::new();
    let fingerprint = home.generate("rsa4096");
    let keys = KeysFolder::new().with("key.asc", home.export(&fingerprint));
    let sealer = sops().env("GNUPGHOME", home.path());
    sops_story(sealer, &["--pgp", &fingerprint], |run| run.env("STRONGROOM_KEYS_DIR", keys.path()));
}

#[test]
fn a_file_encrypted_for_an_age_key() {
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("key.txt", &key.identity);
    sops_story(sops(), &["--age", &key.recipient], |run| run.env("STRONGROOM_KEYS_DIR", keys.path()));
}

#[test]
fn a_file_encrypted_by_aws_kms() {
    let arn = moto().create_key();
    sops_story(sops().envs(moto().environment()), &["--kms", &arn], |run| run.envs(moto().environment()));
}

#[test]
fn a_file_encrypted_by_aws_kms_with_an_encryption_context() {
    let arn = moto().create_key();
    let seal = ["--kms", &arn, "--encryption-context", "app:hello,stage:test"];
    let repository =
        sops_story(sops().envs(moto().environment()), &seal, |run| run.envs(moto().environment()));

    // KMS checks the context, so what was encrypted for one app does not open as another's.
    let file = repository.path().join("app/credentials.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("app: hello"), "{text}");
    repository.write("app/credentials.yaml", text.replace("app: hello", "app: other"));
    let message = story(&repository, "helm").envs(moto().environment()).fails();
    assert!(message.contains("credentials.yaml") && message.contains(&arn), "{message}");
}

/// `credentials.yaml` with `password: test`, encrypted by `sealer` with the flags `keys`, becomes the Secret under every
/// helm. `with_keys` gives the product what opens it.
fn sops_story(sealer: Run, keys: &[&str], with_keys: impl Fn(Run) -> Run) -> Repository {
    let repository = Repository::with_secret_chart();
    let file = repository.write("app/credentials.yaml", CREDENTIALS);
    let expected =
        HELMS.map(|helm| helm_template(helm, repository.path().join("app")).arg("-f").arg(&file).ok());
    encrypt_by(sealer, &file, keys);
    assert!(fs::read_to_string(&file).unwrap().starts_with("password: ENC["), "sops encrypted nothing");
    for (helm, expected) in HELMS.into_iter().zip(expected) {
        assert_eq!(expected, SECRET, "{helm}");
        assert_eq!(with_keys(story(&repository, helm)).ok(), expected, "{helm}");
    }
    repository
}

fn story(repository: &Repository, helm: &str) -> Run {
    generate(repository, "app")
        .env("STRONGROOM_HELM", tool(helm))
        .env("ARGOCD_APP_PARAMETERS", CREDENTIALS_PARAMETER)
}

#[test]
fn references_to_secrets_manager_in_the_chart_s_own_values_and_in_value_files() {
    moto().create_secret("path/to/my/secret/value", MARKER);
    moto().create_secret("myteam/mydoc", &format!("{{\"foo\": {{\"bar\": \"{MARKER}-db\"}}}}"));
    let values = "\
# References, and what must reach helm as it is.
password: ref+awssecrets://path/to/my/secret/value # kept
db: ref+awssecrets://myteam/mydoc#/foo/bar
off: no
mode: 0644
";
    let plain = format!("password: {MARKER}\ndb: {MARKER}-db\noff: no\nmode: 0644\n");
    let template = "\
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}
data:
  password: {{ .Values.password | b64enc | quote }}
  db: {{ .Values.db | b64enc | quote }}
  rest: {{ printf \"%v %v\" .Values.off .Values.mode | b64enc | quote }}
";
    for file in ["values.yaml", "production.yaml"] {
        let parameters = format!(r#"[{{"name":"valueFiles","array":["{file}"]}}]"#);
        let given = if file == "values.yaml" { "null" } else { &parameters };
        let repository = Repository::with_secret_chart();
        repository.write("app/templates/secret.yaml", template);
        repository.write(format!("app/{file}"), &plain);
        let expected = HELMS
            .map(|helm| helm_template(helm, repository.path().join("app")).args(["--values", file]).ok());
        repository.write(format!("app/{file}"), values);
        for (helm, expected) in HELMS.into_iter().zip(expected) {
            let run = generate(&repository, "app")
                .envs(moto().environment())
                .env("STRONGROOM_HELM", tool(helm))
                .env("STRONGROOM_ALLOW_REFS", "awssecrets")
                .env("ARGOCD_APP_PARAMETERS", given);
            assert_eq!(run.ok(), expected, "{file}, {helm}");
        }
    }
}

#[test]
fn a_reference_that_the_operator_does_not_allow_is_not_opened() {
    let store = FakeSecretsManager::start(&[("team-a/db".to_owned(), MARKER.to_owned())], Duration::ZERO);
    let repository = Repository::with_secret_chart();
    repository.write("app/values.yaml", "password: ref+awssecrets://team-a/db\n");
    let run =
        |list: &[(&str, &str)]| at(&store, generate(&repository, "app")).envs(list.iter().copied()).output();
    for list in [&[][..], &[("STRONGROOM_ALLOW_REFS", "echo,awssecrets://team-b/")]] {
        let output = run(list);
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""), "{}", output.stderr);
        let said = "app \"hello\" of project \"default\" may not open ref+awssecrets://team-a/db";
        assert!(output.stderr.contains(said), "{}", output.stderr);
        assert!(output.stderr.contains("STRONGROOM_ALLOW_REFS"), "{}", output.stderr);
    }
    assert_eq!(store.answered(), 0, "a reference that is denied was fetched");
    let output = run(&[("STRONGROOM_ALLOW_REFS", "awssecrets://team-a/")]);
    assert!(output.status.success(), "{}", output.stderr);
}

/// Each row: what stands in the values, and what the chart sees.
#[test]
fn every_scheme_gives_what_it_points_to() {
    moto().create_parameter("/stories/db/password", MARKER);
    moto().create_parameter("/stories/db/user", "hello");
    moto().create_parameter("/stories/doc", &format!("password: {MARKER}-doc\nport: 5432\n"));
    moto().create_secret("stories/typed", r#"{"port": 5432, "on": true, "list": ["a"], "none": null}"#);
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("key.txt", &key.identity);
    let rows: &[(&str, String)] = &[
        ("ref+awsssm://stories/db/password", format!("string {MARKER}")),
        ("ref+awsssm:///stories/db#/user", "string hello".to_owned()),
        ("ref+awsssm://stories/doc?mode=singleparam#/password", format!("string {MARKER}-doc")),
        ("ref+awsssm://stories/doc?mode=singleparam#/port", "float64 5432".to_owned()),
        ("ref+awssecrets://stories/typed#/port", "float64 5432".to_owned()),
        ("ref+awssecrets://stories/typed#/on", "bool true".to_owned()),
        ("ref+awssecrets://stories/typed#/list", "slice [a]".to_owned()),
        ("ref+awssecrets://stories/typed#/list/0", "string a".to_owned()),
        ("secretref+awssecrets://stories/typed#/list/0", "string a".to_owned()),
        ("ref+sops://sealed.yaml#/db/password", format!("string {MARKER}-sops")),
        ("ref+sops:///app/sealed.json#/port", "float64 5432".to_owned()),
        ("ref+file://conf/token.txt", format!("string {MARKER}-file")),
        ("ref+file:///shared/doc.yaml#/a/1", "string two".to_owned()),
        ("ref+echo://plain", "string plain".to_owned()),
        (
            "https://ref+echo://user+:ref+awsssm://stories/db/password+@host/x",
            format!("string https://user:{MARKER}@host/x"),
        ),
        ("ref+envsubst://$STORIES_TOKEN", format!("string {MARKER}-env")),
        ("ref+envsubst://${STORIES_ABSENT:-fallback}", "string fallback".to_owned()),
    ];
    let repository = Repository::with_secret_chart();
    repository.write("app/templates/secret.yaml", TYPES_TEMPLATE);
    repository.write("app/conf/token.txt", format!("{MARKER}-file"));
    repository.write("shared/doc.yaml", "a: [one, two]\n");
    let sealed = repository.write("app/sealed.yaml", format!("db:\n  password: {MARKER}-sops\n"));
    encrypt(&sealed, &["--age", &key.recipient]);
    encrypt(&repository.write("app/sealed.json", "{\"port\": 5432}"), &["--age", &key.recipient]);
    let mut values = String::from("secrets:\n");
    for (number, (reference, _)) in rows.iter().enumerate() {
        writeln!(values, "  row{number:02}: {reference}").unwrap();
    }
    repository.write("app/references.yaml", values);

    let output = generate(&repository, "app")
        .envs(moto().environment())
        .env("STRONGROOM_KEYS_DIR", keys.path())
        .env("STRONGROOM_ALLOW_REFS", "awsssm,awssecrets,sops,file,echo,envsubst")
        .env("STRONGROOM_ALLOW_ENV", "STORIES_TOKEN,STORIES_ABSENT")
        .env("STORIES_TOKEN", format!("{MARKER}-env"))
        .env("ARGOCD_APP_PARAMETERS", r#"[{"name":"valueFiles","array":["references.yaml"]}]"#)
        .ok();
    for (number, (reference, expected)) in rows.iter().enumerate() {
        let line = format!("  row{number:02}: \"{expected}\"\n");
        assert!(output.contains(&line), "{reference} should give {expected}:\n{output}");
    }
}

#[test]
fn references_in_parameters_and_inline_values() {
    moto().create_secret("stories/inline", r#"{"number": 5432, "text": "a,b{c}=d"}"#);
    let parameters = r#"[
        {"name": "parameters", "map": {
            "secrets.set_number": "ref+awssecrets://stories/inline#/number",
            "secrets.set_text": "ref+awssecrets://stories/inline#/text"}},
        {"name": "stringParameters", "map": {
            "secrets.string_number": "ref+awssecrets://stories/inline#/number",
            "secrets.string_text": "ref+awssecrets://stories/inline#/text"}},
        {"name": "values", "string": "secrets:\n  inline: ref+awssecrets://stories/inline#/text\n  plain: no\n"}]"#;
    let repository = Repository::with_secret_chart();
    repository.write("app/templates/secret.yaml", TYPES_TEMPLATE);
    let output = generate(&repository, "app")
        .envs(moto().environment())
        .env("STRONGROOM_ALLOW_REFS", "awssecrets")
        .env("ARGOCD_APP_PARAMETERS", parameters)
        .ok();
    for line in [
        "set_text: \"string a,b{c}=d\"",
        "string_text: \"string a,b{c}=d\"",
        "string_number: \"string 5432\"",
        "inline: \"string a,b{c}=d\"",
        "plain: \"bool false\"",
        "set_number: \"float64 5432\"",
    ] {
        assert!(output.contains(line), "{line}:\n{output}");
    }
}

/// One key in five places, from the weakest to the strongest. Only the strongest is fetched.
#[test]
fn what_a_later_source_overrides_is_not_fetched() {
    let names = ["chart", "first", "second", "inline", "set"];
    let secrets = names.map(|name| (name.to_owned(), format!("{MARKER}-{name}")));
    let reference = |name: &str| format!("secrets:\n  one: ref+awssecrets://{name}\n");
    for (count, winner) in names.iter().enumerate() {
        let store = FakeSecretsManager::start(&secrets[count..=count], Duration::ZERO);
        let repository = Repository::with_secret_chart();
        repository.write("app/templates/secret.yaml", TYPES_TEMPLATE);
        repository.write("app/values.yaml", reference("chart"));
        let mut files = Vec::new();
        for name in names.iter().skip(1).take(2.min(count)) {
            repository.write(format!("app/{name}.yaml"), reference(name));
            files.push(format!("{name}.yaml"));
        }
        let mut parameters = vec![serde_json::json!({"name": "valueFiles", "array": files})];
        if count >= 3 {
            parameters.push(serde_json::json!({"name": "values", "string": reference("inline")}));
        }
        if count == 4 {
            let map = serde_json::json!({"secrets.one": "ref+awssecrets://set"});
            parameters.push(serde_json::json!({"name": "parameters", "map": map}));
        }
        let output = at(&store, generate(&repository, "app"))
            .env("STRONGROOM_ALLOW_REFS", "awssecrets")
            .env("ARGOCD_APP_PARAMETERS", serde_json::Value::from(parameters).to_string())
            .ok();
        assert!(output.contains(&format!("one: \"string {MARKER}-{winner}\"")), "{winner}:\n{output}");
        assert_eq!(store.answered(), 1, "{winner}");
    }
}

/// Folders and archives, aliases, conditions, globals, and what a chart above says. `reference` spells a value.
fn chart_of_charts(reference: impl Fn(&str) -> String) -> Repository {
    let repository = Repository::with_secret_chart();
    let all = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {{{{ .Chart.Name }}}}}}\ndata: {{{name}: {{{{ .Values | toJson | \
             quote }}}}}}\n"
        )
    };
    let chart = |path: &str, rest: &str, values: &str| {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let manifest = format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n{rest}");
        repository.write(format!("{path}/Chart.yaml"), manifest);
        repository.write(format!("{path}/values.yaml"), values);
        repository.write(format!("{path}/templates/secret.yaml"), all(name));
    };
    let dependencies = "dependencies:\n  \
        - {name: db, version: 0.1.0, alias: primary, condition: primary.enabled}\n  \
        - {name: db, version: 0.1.0, alias: replica, condition: 'nothing,replica.enabled'}\n  \
        - {name: cache, version: 0.1.0}\n  - {name: off, version: 0.1.0, tags: [extras]}\n";
    let defaults =
        "primary: {user: plain, conf: {b: mine}}\nreplica: {enabled: false}\ntags: {extras: true}\n";
    chart("app", dependencies, defaults);
    let db = format!(
        "password: {}\nuser: {}\nmode: 0644\nconf: {}\nlist: [a, {{no: no, b: {}}}]\n",
        reference("db#/password"),
        reference("absent"),
        reference("db#/conf"),
        reference("db#/password")
    );
    chart("app/charts/db", "", &db);
    chart("app/charts/off", "", &format!("password: {}\n", reference("absent")));
    chart("app/charts/unlisted", "", &format!("password: {}\n", reference("plain")));
    let metrics = "dependencies: [{name: metrics, version: 0.1.0, alias: watch, condition: watch.on}]\n";
    let cache = format!(
        "token: {}\nglobal: {{token: {}, own: {}}}\n",
        reference("plain"),
        reference("absent"),
        reference("plain")
    );
    chart("cache", metrics, &cache);
    chart("cache/charts/metrics", "", &format!("on: yes\ntoken: {}\n", reference("plain")));
    let pack =
        Run::new(tool("helm")).env("HOME", repository.path()).args(["package", "-d", "app/charts", "cache"]);
    pack.directory(repository.path()).ok();
    repository.write("app/given.yaml", "global: {token: given}\ntags: {extras: false}\n");
    repository
}

#[test]
fn references_in_default_values_of_subcharts_resolve_where_the_chart_is_rendered() {
    let document = serde_json::json!({"password": format!("{MARKER}-db"), "conf": {"a": 1, "b": 2}});
    let secrets = [("db", document.to_string()), ("plain", format!("{MARKER}-plain"))];
    let secrets = secrets.map(|(name, value)| (name.to_owned(), value));
    let store = FakeSecretsManager::start(&secrets, Duration::ZERO);
    let plain = chart_of_charts(|reference| match reference {
        "db#/password" => format!("{MARKER}-db"),
        "db#/conf" => "{a: 1, b: 2}".to_owned(),
        "plain" => format!("{MARKER}-plain"),
        _ => "nothing".to_owned(),
    });
    let repository = chart_of_charts(|reference| format!("ref+awssecrets://{reference}"));
    for helm in HELMS {
        let expected = helm_template(helm, plain.path().join("app")).args(["--values", "given.yaml"]).ok();
        assert!(expected.contains("watch") && !expected.contains("replica/"), "{expected}");
        let run = at(&store, generate(&repository, "app"))
            .env("STRONGROOM_HELM", tool(helm))
            .env("STRONGROOM_ALLOW_REFS", "awssecrets")
            .env("ARGOCD_APP_PARAMETERS", r#"[{"name":"valueFiles","array":["given.yaml"]}]"#);
        assert_eq!(run.ok(), expected, "{helm}");
    }
    assert_eq!(store.answered(), HELMS.len(), "one batch a render, of what is there");
}

#[test]
fn a_reference_in_a_subchart_that_fails_is_told_with_its_file() {
    let repository = chart_of_charts(|_| "ref+awssecrets://absent".to_owned());
    let error = generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", "null").fails();
    for place in [
        "password of the chart's charts/db/values.yaml",
        "list[1].b of the chart's charts/db/values.yaml",
        "token of the chart's charts/cache-0.1.0.tgz: charts/metrics/values.yaml",
        "global.own of the chart's charts/cache-0.1.0.tgz: values.yaml",
    ] {
        assert!(error.contains(place), "{place}:\n{error}");
    }
    assert!(!error.contains("user of"), "what the chart above overrides is not asked for:\n{error}");
}

/// Twenty references to five secrets are five secrets, and one request.
#[test]
fn what_is_referenced_twice_is_fetched_once() {
    let secrets: Vec<_> =
        (0..5).map(|number| (format!("one{number}"), format!("{MARKER}-{number}"))).collect();
    let store = FakeSecretsManager::start(&secrets, Duration::ZERO);
    let repository = Repository::with_secret_chart();
    repository.write("app/templates/secret.yaml", TYPES_TEMPLATE);
    let mut values = String::from("secrets:\n");
    for number in 0..20 {
        writeln!(values, "  row{number:02}: ref+awssecrets://one{}", number % 5).unwrap();
    }
    repository.write("app/values.yaml", values);
    let output = at(&store, generate(&repository, "app")).env("STRONGROOM_ALLOW_REFS", "awssecrets").ok();
    assert!(output.contains(&format!("row19: \"string {MARKER}-4\"")), "{output}");
    assert_eq!(store.answered(), 1);
}

/// Reaches `store`, and nothing else.
fn at(store: &FakeSecretsManager, run: Run) -> Run {
    run.env("AWS_ENDPOINT_URL", store.url())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", REGION)
}

#[test]
fn a_check_names_every_key_and_reference_and_shows_no_secret() {
    let chart = top().join("examples/hello");
    let check = |files: &[&str]| {
        let run = strongroom()
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .args(["check", "hello"])
            .arg(&chart);
        files.iter().fold(run, |run, file| run.arg("-f").arg(chart.join(file)))
    };
    let good = check(&["secrets/database.yaml", "secrets/mail.yaml"]).ok();
    assert!(good.contains("opened   age  age1"), "{good}");
    assert!(good.contains("database.yaml\n"), "{good}");
    assert!(good.ends_with("hello: everything opens, and it renders\n"), "{good}");
    assert!(!good.contains(MARKER), "{good}");

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, "a: ref+sops:///none.yaml#/a\nb: ref+nothing://b\n").unwrap();
    let output = check(&["secrets/database.yaml"])
        .arg("-f")
        .arg(&broken)
        .args(["-f", "/nonexistent.yaml", "-o", "json"])
        .output();
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    let found: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let problems = found["renders"][0]["problems"].to_string();
    for expected in ["/nonexistent.yaml", "ref+sops:///none.yaml#/a", "ref+nothing://b"] {
        assert!(problems.contains(expected), "{expected} is not in {problems}");
    }
    assert!(!output.stdout.contains(MARKER) && !output.stderr.contains(MARKER));
}

#[test]
fn a_check_covers_references_that_templates_built() {
    let repository = Repository::with_secret_chart();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: built}\ndata:\n  \
                    a: {{ printf \"ref+file:///%s.json#/a\" .Release.Name }}\n";
    repository.write("app/templates/built.yaml", template);
    repository.write("hello.json", format!("{{\"a\": \"{MARKER}\"}}"));
    let check = |release: &str| {
        let run = strongroom().directory(repository.path()).args(["check", release, "app"]);
        run.args(["--set", "password=x", "--resolve-manifests"]).output()
    };
    let good = check("hello");
    assert_eq!(good.status.code(), Some(3), "{good:?}");
    assert!(good.stdout.contains("opened   ref+file:///hello.json#/a\n"), "{good:?}");
    assert!(good.stdout.contains("leaks    ConfigMap built: data.a\n"), "{good:?}");
    assert!(!good.stdout.contains(MARKER), "{good:?}");
    let bad = check("other");
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(bad.stdout.contains("problem  ") && bad.stdout.contains("other.json"), "{bad:?}");
}
