//! What Argo CD, helm-secrets and helm lead their users to expect of the commands: the environment of `generate`, the
//! settings of an application, the spellings of value files, helm's own flags, exit codes, and what is never let out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use strongroom::render::parameters::{FILE_NAME, Kind, PARAMETERS, Parameter};

use support::MARKER;
use support::helm::{HELMS, helm_bare, helm_template};
use support::keys::{AgeKey, GpgHome, KeysFolder};
use support::process::Run;
use support::product::{generate, strongroom_with_helm};
use support::repository::{Repository, copy};
use support::sops::{encrypt, encrypt_by, sops};
use support::tools::top;

/// Shows all that a chart can see.
const PROBE: &str = r#"{{- define "types" }}
{{- if kindIs "map" . }}{ {{- range $key, $value := . }}{{ $key }}: {{ include "types" $value }}, {{ end -}} }
{{- else if kindIs "slice" . }}[ {{- range . }}{{ include "types" . }}, {{ end -}} ]
{{- else }}{{ kindOf . }}({{ . }}){{ end }}
{{- end -}}
{{- if ne (toString .Values.v) "empty" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
data:
  v: {{ .Values.v | quote }}
  kube: {{ .Capabilities.KubeVersion.Version | quote }}
  has: {{ .Capabilities.APIVersions.Has "example.com/v1" | quote }}
  types: {{ include "types" .Values | quote }}
  yaml: |-
    {{- toYaml .Values | nindent 4 }}
{{- end }}
"#;
const TEST_HOOK: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations:
    helm.sh/hook: test
";
const CRD: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.example.com
";
const SCHEMA: &str = r#"{"properties": {"v": {"enum": ["chart", "a", "b", "empty", "ref+awssecrets://x"]}}}"#;

/// A repository whose app is a chart that shows all it can see.
fn probe() -> Repository {
    let repository = Repository::with_secret_chart();
    fs::remove_file(repository.path().join("app/templates/secret.yaml")).unwrap();
    repository.write("app/templates/probe.yaml", PROBE);
    repository.write("app/values.yaml", "v: chart\n");
    repository
}

fn parameters(settings: &Json) -> String {
    let entries = settings.as_object().unwrap().iter().map(|(name, value)| {
        let kind = match value {
            Json::Array(_) => "array",
            Json::Object(_) => "map",
            _ => "string",
        };
        let value = value.as_bool().map_or_else(|| value.clone(), |flag| flag.to_string().into());
        json!({"name": name, kind: value})
    });
    Json::from(entries.collect::<Vec<_>>()).to_string()
}

#[test]
fn an_app_outside_argo_cd_s_namespace_is_released_under_its_own_name() {
    let repository = probe();
    let expected = generate(&repository, "app").ok();
    assert!(expected.contains("  name: hello\n  namespace: demo\n"), "{expected}");
    assert!(expected.contains("kube: \"v1.33.0\""), "{expected}");
    assert_eq!(generate(&repository, "app").env("ARGOCD_APP_NAME", "team-a_hello").ok(), expected);
}

#[test]
fn no_parameters_are_spelled_in_several_ways() {
    let repository = probe();
    let expected = helm_template("helm", repository.path().join("app")).ok();
    for text in ["null", "[]", ""] {
        assert_eq!(
            generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", text).ok(),
            expected,
            "{text:?}"
        );
    }
    assert_eq!(generate(&repository, "app").without_env("ARGOCD_APP_PARAMETERS").ok(), expected);
}

/// What one setting does to [`probe`].
struct Effect {
    value: Json,
    /// A value that must lose against the first.
    other: Json,
    /// What the output shows then, and not without it; `None`: the render fails without it.
    shows: Option<&'static str>,
    /// What else the repository holds.
    files: &'static [(&'static str, &'static str)],
    /// What else is set.
    variables: &'static [(&'static str, &'static str)],
}

fn effect(parameter: &Parameter) -> Effect {
    let effect =
        |value, other, shows| Effect { value, other, shows: Some(shows), files: &[], variables: &[] };
    let rescue =
        |files, variables| Effect { value: json!(true), other: json!(false), shows: None, files, variables };
    match parameter.name {
        "releaseName" => effect(json!("a"), json!("b"), "  name: a\n"),
        "namespace" => effect(json!("a"), json!("b"), "  namespace: a\n"),
        "valueFiles" => Effect {
            files: &[("app/a.yaml", "v: a\n"), ("app/b.yaml", "v: b\n"), ("app/c.yaml", "v: c\n")],
            ..effect(json!(["b.yaml", "a.yaml"]), json!(["c.yaml"]), "v: \"a\"\n")
        },
        "values" => effect(json!("v: a\n"), json!("v: b\n"), "v: \"a\"\n"),
        "valuesObject" => effect(json!({"v": "a"}), json!({"v": "b"}), "v: \"a\"\n"),
        "parameters" => effect(json!({"v": "{1,no}"}), json!({"v": "b"}), "v: [int64(1), string(no), ]"),
        "stringParameters" => {
            effect(json!({"v": "{1,no}"}), json!({"v": "b"}), "v: [string(1), string(no), ]")
        }
        "fileParameters" => Effect {
            files: &[("app/a.txt", "content of a"), ("app/b.txt", "b")],
            ..effect(json!({"v": "a.txt"}), json!({"v": "b.txt"}), "v: \"content of a\"\n")
        },
        "skipCrds" => Effect {
            files: &[("app/crds/crd.yaml", CRD)],
            ..effect(json!(true), json!(false), "!CustomResourceDefinition")
        },
        "skipTests" => Effect {
            files: &[("app/templates/tests/test.yaml", TEST_HOOK)],
            ..effect(json!(true), json!(false), "!hello-test")
        },
        "skipSchemaValidation" => {
            rescue(&[("app/values.schema.json", SCHEMA), ("app/values.yaml", "v: against the schema\n")], &[])
        }
        "kubeVersion" => effect(json!("1.29.0"), json!("1.30.0"), "kube: \"v1.29.0\"\n"),
        "apiVersions" => effect(json!(["v1", "example.com/v1"]), json!(["v1"]), "has: \"true\"\n"),
        "ignoreMissingValueFiles" => rescue(&[], &[("ARGOCD_ENV_VALUE_FILES", "absent.yaml")]),
        "allowEmpty" => rescue(&[("app/values.yaml", "v: empty\n")], &[]),
        "allowUnresolved" => rescue(
            &[(
                "app/templates/left.yaml",
                "apiVersion: v1\nkind: A\nspec: ref+awssecrets://{{ .Values.v }}\n",
            )],
            &[],
        ),
        "resolveManifests" => rescue(
            &[("app/templates/built.yaml", "apiVersion: v1\nkind: A\nspec: ref+echo://{{ .Values.v }}\n")],
            &[],
        ),
        name => panic!("{name} has no test of its effect"),
    }
}

/// Where a setting is written: as a parameter, as a variable, in the file.
#[derive(Clone, Copy)]
enum Place {
    Parameter,
    Variable,
    File,
}

fn set(run: Run, repository: &Repository, parameter: &Parameter, place: Place, value: &Json) -> Run {
    match place {
        Place::Parameter => run.env("ARGOCD_APP_PARAMETERS", parameters(&json!({parameter.name: value}))),
        Place::Variable => {
            let text = match (parameter.kind, value) {
                (Kind::Array, Json::Array(items)) => {
                    items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(",")
                }
                (_, Json::String(text)) => text.clone(),
                (_, value) => value.to_string(),
            };
            run.env(format!("ARGOCD_ENV_{}", upper_snake(parameter.name)), text)
        }
        Place::File => {
            repository.write(Path::new("app").join(FILE_NAME), format!("{}: {value}\n", parameter.name));
            run
        }
    }
}

fn upper_snake(name: &str) -> String {
    let upper = |c: char| if c.is_uppercase() { format!("_{c}") } else { c.to_uppercase().to_string() };
    name.chars().map(upper).collect()
}

#[test]
fn every_setting_has_its_effect_from_every_place_and_the_stronger_place_wins() {
    for parameter in PARAMETERS {
        let Effect { value, other, shows, files, variables } = effect(parameter);
        let repository = || {
            let repository = probe();
            for (path, content) in files {
                repository.write(path, content);
            }
            repository
        };
        let render = |places: &[(Place, &Json)]| {
            let repository = repository();
            let run = generate(&repository, "app").envs(variables.iter().copied());
            places
                .iter()
                .fold(run, |run, (place, value)| set(run, &repository, parameter, *place, value))
                .output()
        };
        let without = render(&[]);
        let expected = render(&[(Place::Parameter, &value)]);
        assert!(expected.status.success(), "{}: {}", parameter.name, expected.stderr);
        match shows.map(|shown| (shown.strip_prefix('!'), shown)) {
            None => assert!(!without.status.success(), "{}: {}", parameter.name, without.stdout),
            Some((Some(hidden), _)) => {
                assert!(without.stdout.contains(hidden), "{}: {}", parameter.name, without.stdout);
                assert!(!expected.stdout.contains(hidden), "{}: {}", parameter.name, expected.stdout);
            }
            Some((None, shown)) => {
                assert!(!without.stdout.contains(shown), "{}: {}", parameter.name, without.stdout);
                assert!(expected.stdout.contains(shown), "{}: {}", parameter.name, expected.stdout);
            }
        }
        for places in [
            &[(Place::Variable, &value)][..],
            &[(Place::File, &value)],
            &[(Place::Parameter, &value), (Place::Variable, &other), (Place::File, &other)],
            &[(Place::Variable, &value), (Place::File, &other)],
        ] {
            let output = render(places);
            assert_eq!(output.stdout, expected.stdout, "{}: {}", parameter.name, output.stderr);
        }
    }
}

#[test]
fn value_sources_have_the_order_of_argo_cd_s_own_helm_source() {
    let repository = probe();
    repository.write("app/a.yaml", "v: file\nfrom: {file: 1}\n");
    let mut settings = json!({"valueFiles": ["a.yaml"]});
    let mut expect = |name: &str, value: Json, v: &str| {
        settings[name] = value;
        let output = generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", parameters(&settings)).ok();
        assert!(output.contains(&format!("  v: \"{v}\"\n")), "{name}:\n{output}");
        assert!(output.contains("from: {file: float64(1), }"), "{name}:\n{output}");
    };
    expect("values", json!("v: values\n"), "values");
    expect("valuesObject", json!({"v": "object"}), "object");
    expect("parameters", json!({"v": "set"}), "set");
    expect("stringParameters", json!({"v": "string"}), "string");
    repository.write("app/a.txt", "content");
    expect("fileParameters", json!({"v": "a.txt"}), "content");
}

#[test]
fn value_files_are_spelled_as_helm_secrets_users_spell_them() {
    let (age, home) = (AgeKey::new(), GpgHome::new());
    let fingerprint = home.generate("rsa2048");
    let keys = KeysFolder::new().with("age.txt", &age.identity).with("pgp.asc", home.export(&fingerprint));
    let repository = Repository::with_secret_chart();
    for path in [
        "app/age.yaml",
        "shared/deep/age.yaml",
        "app/dots../age.yaml",
        "app/..dots/age.yaml",
        "app/with:colon.yaml",
    ] {
        encrypt(&repository.write(path, "password: test\n"), &["--age", &age.recipient]);
    }
    encrypt_by(
        sops().env("GNUPGHOME", home.path()),
        &repository.write("app/pgp.yaml", "password: test\n"),
        &["--pgp", &fingerprint],
    );
    repository.write("app/plain.yaml", "password: test\n");
    symlink("../shared/deep", repository.path().join("app/linked")).unwrap();
    symlink("/etc", repository.path().join("outside")).unwrap();

    for spellings in [
        &["age.yaml"][..],
        &["./age.yaml"],
        &["../shared/deep/age.yaml"],
        &["/shared/deep/age.yaml"],
        &["linked/age.yaml"],
        &["secrets://age.yaml"],
        &["secrets:///shared/deep/age.yaml"],
        &["secrets://sops!age.yaml"],
        &["secrets://plain.yaml"],
        &["secrets://?absent.yaml", "age.yaml"],
        &["secrets://?age.yaml"],
        &["secrets+age-import://age.txt?age.yaml"],
        &["secrets+age-import:///helm-secrets-private-keys/age.txt?age.yaml"],
        &["secrets+gpg-import:///helm-secrets-private-keys/pgp.asc?pgp.yaml"],
        &["secrets+gpg-import://pgp.asc?/app/pgp.yaml"],
        // What helm-secrets takes for a way out, or for a drive of Windows.
        &["dots../age.yaml"],
        &["secrets://..dots/age.yaml"],
        &["with:colon.yaml"],
    ] {
        let output = generate(&repository, "app")
            .env("STRONGROOM_KEYS_DIR", keys.path())
            .env("ARGOCD_APP_PARAMETERS", parameters(&json!({"valueFiles": spellings})))
            .output();
        assert!(output.stdout.contains("dGVzdA=="), "{spellings:?}: {}", output.stderr);
    }
    for (spelling, said) in [
        ("absent.yaml", "absent.yaml: no such file or directory in the repository"),
        ("secrets+age-import://other.txt?age.yaml", "the key \"other.txt\" is not in the keys folder"),
        ("../../etc/passwd", "leads outside the repository"),
        ("secrets://../../etc/passwd", "leads outside the repository"),
        ("../outside/passwd", "leads outside the repository"),
        ("https://host.example/values.yaml", "is a URL, which is not fetched"),
    ] {
        let message = generate(&repository, "app")
            .env("STRONGROOM_KEYS_DIR", keys.path())
            .env("ARGOCD_APP_PARAMETERS", parameters(&json!({"valueFiles": [spelling]})))
            .fails();
        assert!(message.contains(said), "{spelling}: {message}");
    }
}

/// Holes of helm-secrets: a plain copy beside the file wins however old it is, an argument that it does not know reaches
/// helm sealed, one file that may be absent makes all later ones so, and a text decides what is sealed.
#[test]
fn a_sealed_file_is_opened_however_it_is_named_and_whatever_lies_beside_it() {
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("age.txt", &key.identity);
    let repository = Repository::with_secret_chart();
    encrypt(&repository.write("app/age.yaml", "password: test\n"), &["--age", &key.recipient]);
    for stale in ["age.yaml.dec", "age.dec.yaml", ".age.yaml.dec", "age.yaml.decrypted"] {
        repository.write(format!("app/{stale}"), "password: stale\n");
    }
    let app = repository.path().join("app");
    let files = || fs::read_dir(&app).unwrap().count();
    let before = files();
    for arguments in [
        &["-f", "age.yaml"][..],
        &["-f=age.yaml"],
        &["-fage.yaml"],
        &["--values", "age.yaml"],
        &["--values=age.yaml"],
        &["-f=secrets://age.yaml"],
    ] {
        let run = strongroom_with_helm("helm").directory(&app).env("STRONGROOM_KEYS_DIR", keys.path());
        let manifests = run.args(["template", "hello", ".", "--reveal"]).args(arguments).ok();
        assert!(manifests.contains("dGVzdA=="), "{arguments:?}: {manifests}");
    }
    let render = |files: &[&str]| {
        generate(&repository, "app")
            .env("STRONGROOM_KEYS_DIR", keys.path())
            .env("ARGOCD_APP_PARAMETERS", parameters(&json!({"valueFiles": files})))
    };
    assert!(render(&["age.yaml"]).ok().contains("dGVzdA=="));
    let message = render(&["secrets://?absent.yaml", "absent-too.yaml"]).fails();
    assert!(message.contains("absent-too.yaml: no such file or directory in the repository"), "{message}");
    assert_eq!(files(), before, "nothing is written beside it");
    let like_sealed = "# mac: ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]\npassword: test\n";
    repository.write("app/like.yaml", like_sealed);
    assert!(render(&["like.yaml"]).ok().contains("dGVzdA=="));
}

#[test]
fn an_application_manifest_renders_as_the_sidecar_renders_it() {
    let repository = Repository::new();
    copy(&top().join("examples"), &repository.path().join("examples"));
    let settings = json!({
        "valueFiles": ["secrets/database.yaml", "secrets/mail.yaml", "secrets/session.yaml"],
        "parameters": {"replicas": "3"},
    });
    let expected = generate(&repository, "examples/hello")
        .env("STRONGROOM_KEYS_DIR", repository.path().join("examples/keys"))
        .env("ARGOCD_APP_PARAMETERS", parameters(&settings))
        .ok();
    assert!(expected.contains("replicas: 3") && expected.contains("kind: Secret"), "{expected}");
    let dry = |arguments: &[&str]| {
        strongroom_with_helm("helm")
            .directory(repository.path())
            .env("STRONGROOM_KEYS_DIR", "examples/keys")
            .args(["template", "--application", "examples/application.yaml"])
            .args(["--kube-version", "1.33.0", "--api-versions", "v1,apps/v1"])
            .args(arguments)
            .ok()
    };
    assert_eq!(dry(&["--reveal"]), expected);

    let masked = dry(&[]);
    assert_eq!(without_secrets(&masked), without_secrets(&expected));
    assert_eq!(masked.matches("<masked:").count(), 6, "{masked}");
    for shown in [MARKER.to_owned(), STANDARD.encode(MARKER)] {
        assert!(!masked.contains(&shown), "{masked}");
    }
}

/// The lines that hold no data of the example's Secret.
fn without_secrets(manifests: &str) -> Vec<&str> {
    let secret = ["API_", "DATABASE_", "MAIL_", "SESSION_"];
    manifests.lines().filter(|line| !secret.iter().any(|start| line.trim().starts_with(start))).collect()
}

/// Everything that a tool which prints YAML anew would change.
const DELICATE: &str = "\
# A comment.
v: chart
bools: {a: no, b: off, c: Yes, d: TRUE, e: y, f: 'no'}
numbers: [0123, 0o17, 0x1F, 0b101, 1_000, 1e3, .5, 190:20:30, 12345678901234567890, 9007199254740993, -0, +1]
versions: [1.10, '1.10', 1.20.3, 0x, 08]
times: [2001-12-14, 2001-12-14t21:59:43.10-05:00, 2001-12-14 21:59:43.10 -5]
nulls: {a: ~, b: null, c:, d: Null}
base: &base
  x: 1   # one
  y: [1, 2]
merged:
  <<: *base
  y: 3
again: *base
tagged: [!!str 123, !!int '7', !!float 1]
strings:
  - 'it''s'
  - \"caf\\u00e9\\t\\x41\\
    folded\"
  - |
    literal
      indented

  - >-
    folded
    line

    paragraph
  - |+
    kept

  - plain over
    two lines
  - '{{ .Release.Name }}'
  - \"ENC[x]\"
  - a:b#c
keys:
  'quoted key': 1
  ? complex
  : value
  1: number
  true: bool
  caf\u{e9}: \u{1f512}
empty: {map: {}, list: [], text: ''}
";

/// The chart in `app` under each helm, against `helm template` of `plain` in place of `file`.
fn same_as_helm(repository: &Repository, file: &str, plain: &str) {
    let app = repository.path().join("app");
    let written = fs::read(app.join(file)).unwrap();
    for helm in HELMS {
        repository.write(Path::new("app").join(file), plain);
        let expected = helm_bare(helm, &app).args(["-f", file]).ok();
        repository.write(Path::new("app").join(file), &written);
        let output = strongroom_with_helm(helm)
            .directory(&app)
            .args(["template", "hello", ".", "--reveal", "-f", file])
            .ok();
        assert_eq!(output, expected, "{helm}");
    }
}

#[test]
fn plain_values_reach_helm_byte_for_byte() {
    let repository = probe();
    for text in [DELICATE.to_owned(), DELICATE.replace('\n', "\r\n"), "\u{feff}v: bom\n".to_owned()] {
        repository.write("app/a.yaml", &text);
        same_as_helm(&repository, "a.yaml", &text);
    }
}

#[test]
fn a_resolved_reference_changes_nothing_around_it() {
    let repository = probe();
    let references = DELICATE
        .replace("    literal\n", "    literal ref+echo://one+ more\n")
        .replace("- a:b#c", "- ref+echo://a:b%23c")
        .replace("x: 1 ", "x: ref+echo://one ")
        .replace("f: 'no'", "f: ref+echo://no")
        .replace("bool\n", "\"ref+echo://bool\"\n");
    let plain = DELICATE.replace("    literal\n", "    literal one more\n").replace("x: 1 ", "x: one ");
    assert_eq!(references.matches("ref+echo").count(), 5);
    repository.write("app/a.yaml", &references);
    same_as_helm(&repository, "a.yaml", &plain);
}

/// The sops tool prints the rest of a file in its own way when it encrypts and when it decrypts. Only the first counts.
#[test]
fn an_opened_file_means_what_sops_decrypt_gives() {
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("age.txt", &key.identity);
    let repository = probe();
    // Without what sops itself refuses.
    let text = ["12345678901234567890, ", "  1: number\n", "  true: bool\n"]
        .iter()
        .fold(DELICATE.to_owned(), |text, refused| text.replace(refused, ""));
    let file = repository.write("app/a.yaml", text);
    encrypt(&file, &["--age", &key.recipient]);
    let plain = sops().env("SOPS_AGE_KEY", &key.identity).arg("decrypt").arg(&file).ok();
    repository.write("plain/plain.yaml", &plain);
    for helm in HELMS {
        let app = repository.path().join("app");
        let expected = helm_bare(helm, &app).args(["-f", "../plain/plain.yaml"]).ok();
        let output = strongroom_with_helm(helm)
            .directory(&app)
            .env("STRONGROOM_KEYS_DIR", keys.path())
            .args(["template", "hello", ".", "--reveal", "-f", "a.yaml"])
            .ok();
        assert_eq!(output, expected, "{helm}");
    }
}

/// Flags of helm, as many on one line as belong together.
const FLAGS: &[&[&str]] = &[
    &["--set", "v=x"],
    &["--set", "v=x,w=y", "--set", "v=z"],
    &["--set", "n=1,o=0123,f=1.5,e=1e3,big=12345678901234567890,neg=-7,zero=0,plus=+1"],
    &["--set", "t=true,f=FALSE,n=null,y=yes,o=off,empty="],
    &["--set-string", "n=1,t=true,nul=null,o=0123"],
    &["--set", "map.a=x"],
    &["--set", "map.new.deep.er=x"],
    &["--set", "map=null"],
    &["--set", "map.a=null"],
    &["--set", "map=scalar"],
    &["--set", "map={a,b}"],
    &["--set", "list={x,1,true,null}"],
    &["--set", "list={}"],
    &["--set-string", "list={1,true}"],
    &["--set", "list[0]=x"],
    &["--set", "list[3]=x"],
    &["--set", "list[1].name=x"],
    &["--set", "maps[0].name=x"],
    &["--set", "maps[1].port=8080"],
    &["--set", "maps[0]=null"],
    &["--set", "maps[2].a.b[1]=x"],
    &["--set", "fresh[0].a=1,fresh[0].b=2,fresh[1].a=3"],
    &["--set", "matrix[0][1]=x"],
    &["--set", "v=a\\,b\\=c\\\\d"],
    &["--set", "v=a=b=c"],
    &["--set", "nodeSelector.kubernetes\\.io/role=master"],
    &["--set", "v= spaces around "],
    &["--set", "v=\"quoted\""],
    &["--set", "v='single'"],
    &["--set", "v={{ .Release.Name }}"],
    &["--set", "v=multi\nline"],
    &["--set", "v=a: b # c"],
    &["--set", "v=caf\u{e9} \u{1f512}"],
    &["--set", ""],
    &["--set-json", r#"map={"x": 1, "y": [1.5, null, true]}"#],
    &["--set-json", r#"map.a={"deep": "x"}"#],
    &["--set-json", "n=9007199254740993,m=1"],
    &["--set-json", r#"list=["a", {"b": 1}]"#],
    &["--set-json", "v=null"],
    &["--set-literal", "v=a,b=c{d}\\e[0]"],
    &["--set-file", "v=text.txt"],
    &["--set-file", "map.a=text.txt", "--set", "map.b=x"],
    &["--set", "v=set", "--set-string", "v=string", "--set-json", "v=\"json\""],
    &["-f", "over.yaml", "--set", "map.a=set"],
    &["-f", "over.yaml", "--set", "list[0]=set"],
    &["-f", "over.yaml,again.yaml"],
    &["-f=over.yaml"],
    &["-fover.yaml"],
    &["--values=over.yaml,again.yaml", "-f=chart.yaml"],
    &["-f", "over.yaml", "--values", "again.yaml", "--set", "maps[0].name=set"],
    &["--set", "v", "--namespace", "x"],
    &["--set", "list[x]=1"],
    &["--set", "list[-1]=1"],
    &["--set", "v={a,b"],
    &["--set-json", "v={"],
    &["--namespace", "elsewhere"],
    &["--kube-version", "1.29.3", "-a", "example.com/v1"],
    &["--include-crds"],
    &["--skip-tests"],
];

#[test]
fn helm_s_value_flags_mean_the_same() {
    let repository = probe();
    repository.write(
        "app/values.yaml",
        "v: chart\nmap: {a: 1, b: {c: no}}\nlist: [one, two]\nmaps: [{name: a, port: 1}, {name: b}]\nmatrix: [[a, b]]\n",
    );
    repository
        .write("app/over.yaml", "map: {a: over}\nlist: [over, more, 0123]\nmaps: [{name: over, keep: no}]\n");
    repository.write("app/again.yaml", "map: {b: again}\nmatrix: null\n");
    repository.write("app/chart.yaml", "v: chart\n");
    repository.write("app/text.txt", "line one, with \"quotes\"\nline two: 0123\n");
    repository.write("app/crds/crd.yaml", CRD);
    repository.write("app/templates/tests/test.yaml", TEST_HOOK);
    let app = repository.path().join("app");
    std::thread::scope(|scope| {
        for half in FLAGS.chunks(FLAGS.len() / 2 + 1) {
            let app = &app;
            scope.spawn(move || half.iter().for_each(|flags| compare(app, flags)));
        }
    });
}

fn compare(app: &Path, flags: &[&str]) {
    let helm = helm_bare("helm", app).args(flags).output();
    let own = strongroom_with_helm("helm")
        .directory(app)
        .args(["template", "hello", ".", "--reveal"])
        .args(flags)
        .output();
    assert_eq!(own.status.success(), helm.status.success(), "{flags:?}: {} {}", own.stderr, helm.stderr);
    assert_eq!(own.stdout, helm.stdout, "{flags:?}: {}", own.stderr);
}

#[test]
fn values_can_be_typed_into_stdin_as_for_helm() {
    let repository = Repository::with_secret_chart();
    let app = repository.path().join("app");
    let run = |program: Run| program.args(["-f", "-"]).stdin(format!("password: {MARKER}\n")).ok();
    let ours = strongroom_with_helm("helm").directory(&app).args(["template", "hello", ".", "--reveal"]);
    assert_eq!(run(ours), run(helm_bare("helm", &app)));
}

#[test]
fn a_chart_with_vendored_dependencies_renders_as_helm_renders_it() {
    let repository = probe();
    let subchart = |name: &str| format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n");
    repository.write(
        "app/Chart.yaml",
        "apiVersion: v2\nname: app\nversion: 0.1.0\ndependencies:\n  - {name: sub, version: 0.1.0, condition: sub.on}\n  \
         - {name: lib, version: 0.1.0}\n",
    );
    repository.write("app/charts/sub/Chart.yaml", subchart("sub"));
    repository.write("app/charts/sub/values.yaml", "password: ref+echo://from-sub\non: no\n");
    repository.write(
        "app/charts/sub/templates/a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sub}\ndata: {p: {{ .Values.password | quote }}}\n",
    );
    repository.write("app/charts/lib/Chart.yaml", subchart("lib") + "type: library\n");
    repository.write("app/charts/lib/templates/_lib.tpl", "{{ define \"lib\" }}lib{{ end }}\n");
    repository.write("app/templates/NOTES.txt", "Notes for {{ .Release.Name }}.\n");
    repository.write("app/a.yaml", "sub: {on: true, password: ref+echo://secret}\n");
    same_as_helm(&repository, "a.yaml", "sub: {on: true, password: secret}\n");
}

#[test]
fn an_app_of_manifests_is_printed_opened_and_resolved() {
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("age.txt", &key.identity);
    let repository = Repository::new();
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config\ndata:\n  a: no # kept\n  b: 0123\n";
    repository.write("app/a.yaml", format!("{config}  c: ref+echo://resolved\n"));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n    name: secret\nstringData:\n    password: {MARKER}\n"
    );
    encrypt(
        &repository.write("app/b.yaml", &secret),
        &["--age", &key.recipient, "--encrypted-regex", "^(data|stringData)$"],
    );
    repository.write("app/c.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}"#);
    let output = generate(&repository, "app").env("STRONGROOM_KEYS_DIR", keys.path()).ok();
    assert!(output.contains(&format!("{config}  c: \"resolved\"\n")), "{output}");
    let opened = secret.replace(MARKER, &format!("\"{MARKER}\""));
    assert!(output.contains(&opened), "{output}");
    assert!(output.contains(r#""kind": "Namespace""#), "{output}");
    for left in ["sops:", "ENC[", "ref+"] {
        assert!(!output.contains(left), "{output}");
    }
    // A manifest is not a value, so values have nowhere to go.
    generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", parameters(&json!({"values": "a: 1"}))).fails();
}

#[test]
fn what_is_unfinished_is_not_let_out_unless_it_is_meant_to_be() {
    let manifest =
        |kind: &str, body: &str| format!("apiVersion: v1\nkind: {kind}\nmetadata:\n  name: left\n{body}");
    let encoded = STANDARD.encode("ref+awssecrets://team/db");
    for (kind, body, said) in [
        (
            "ConfigMap",
            "data:\n  url: user:ref+awssecrets://team/db+@host\n",
            "data.url holds an unresolved reference",
        ),
        (
            "ConfigMap",
            "data:\n  p: ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\n",
            "data.p is still encrypted",
        ),
        ("ConfigMap", "sops:\n  mac: x\n  version: 3.9.0\n", "sops is metadata of SOPS"),
        ("Secret", &format!("data:\n  p: {encoded}\n"), "data.p holds an unresolved reference"),
    ] {
        let repository = probe();
        repository.write("app/templates/left.yaml", manifest(kind, body));
        let message = generate(&repository, "app").fails();
        assert!(message.contains(&format!("{kind} left: {said}")), "{message}");
        let expected = helm_template("helm", repository.path().join("app")).ok();
        let allowed = generate(&repository, "app").env("ARGOCD_ENV_ALLOW_UNRESOLVED", "true").ok();
        assert_eq!(allowed, expected);
    }
    let repository = probe();
    repository.write("app/values.yaml", "v: empty\n");
    let message = generate(&repository, "app").fails();
    assert!(message.contains("nothing was rendered") && message.contains("allowEmpty"), "{message}");
    assert_eq!(generate(&repository, "app").env("ARGOCD_ENV_ALLOW_EMPTY", "true").ok().trim(), "");
}

#[test]
fn what_a_controller_of_the_cluster_decrypts_passes() {
    let repository = probe();
    for kind in ["SopsSecret", "SealedSecret"] {
        let text =
            "spec:\n  p: ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\nsops:\n  mac: ENC[AES256_GCM,data:x]\n";
        let manifest =
            format!("apiVersion: isindir.github.com/v1alpha3\nkind: {kind}\nmetadata:\n  name: left\n{text}");
        repository.write(format!("app/templates/{kind}.yaml"), manifest);
    }
    let expected = helm_template("helm", repository.path().join("app")).ok();
    assert_eq!(generate(&repository, "app").ok(), expected);
}

#[test]
fn values_of_which_a_chart_makes_a_sops_secret_pass_and_a_cut_file_does_not() {
    let repository = probe();
    repository.write("app/templates/probe.yaml", "");
    let sealed = "ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]";
    let template = "apiVersion: isindir.github.com/v1alpha3\nkind: SopsSecret\nmetadata:\n  name: left\n";
    repository.write(
        "app/templates/sops-secret.yaml",
        format!("{template}{{{{ toYaml .Values.vault | trim }}}}\n"),
    );
    let values = format!("v: plain\nvault:\n  spec:\n    p: {sealed}\n");
    repository.write("app/values.yaml", format!("{values}  sops:\n    mac: {sealed}\n    version: 3.9.0\n"));
    let expected = helm_template("helm", repository.path().join("app")).ok();
    assert_eq!(generate(&repository, "app").ok(), expected);
    repository.write("app/secrets.yaml", &values);
    let message = generate(&repository, "app").env("ARGOCD_ENV_VALUE_FILES", "secrets.yaml").fails();
    assert!(message.contains("secrets.yaml") && message.contains("no SOPS metadata"), "{message}");
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_is() {
    let repository = probe();
    let slow = repository.write("slow-helm", "#!/bin/sh\nsleep 60\n");
    executable(&slow);
    let cases = [
        (vec![("ARGOCD_APP_PARAMETERS", "{")], 1, "ARGOCD_APP_PARAMETERS is not JSON"),
        (vec![("ARGOCD_ENV_VALUE_FILES", "absent.yaml")], 1, "absent.yaml: no such file"),
        (vec![("ARGOCD_ENV_VALUES", "v: ref+awssecrets://x")], 1, "may not open ref+awssecrets://x"),
        (
            vec![("STRONGROOM_HELM", "/nonexistent/helm")],
            70,
            "/nonexistent/helm not found\nhelp: install helm",
        ),
        (
            vec![("STRONGROOM_HELM", slow.to_str().unwrap()), ("STRONGROOM_TIMEOUT", "1")],
            75,
            "was still running",
        ),
        (vec![("STRONGROOM_TIMEOUT", "soon")], 2, "must be a whole number of seconds"),
    ];
    for (variables, code, said) in cases {
        let output = generate(&repository, "app").envs(variables).output();
        assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
        assert_eq!(output.stdout, "", "{said}");
        assert!(output.stderr.contains(said), "{}", output.stderr);
        if code != 2 {
            let own = output.stderr.lines().filter(|line| line.starts_with("strongroom: ")).count();
            assert_eq!(own, 1, "one message: {}", output.stderr);
            assert!(
                output.stderr.starts_with("strongroom: failed to render app \"hello\": "),
                "{}",
                output.stderr
            );
        }
    }
    let output = strongroom_with_helm("helm").arg("tempalte").output();
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(2), ""));
}

fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The same files through the three commands that show what opens to what.
#[test]
fn decrypt_resolve_and_get_show_what_a_render_would_use() {
    let key = AgeKey::new();
    let keys = KeysFolder::new().with("age.txt", &key.identity);
    let repository = Repository::new();
    let plain = format!("# kept\npassword: {MARKER}\nport: 5432\n");
    let file = encrypt(&repository.write("app/a.yaml", &plain), &["--age", &key.recipient]);
    repository.write(
        "app/values.yaml",
        "a: no\nb: ref+sops://a.yaml#/password # kept\nc: ref+sops://a.yaml#/port\n",
    );
    let run = |arguments: &[&str]| {
        strongroom_with_helm("helm")
            .directory(repository.path().join("app"))
            .env("STRONGROOM_KEYS_DIR", keys.path())
            .args(arguments)
            .ok()
    };
    let by_sops = sops().env("SOPS_AGE_KEY", &key.identity).arg("decrypt").arg(&file).ok();
    assert_eq!(by_sops, plain);
    assert_eq!(run(&["decrypt", "a.yaml"]).replace('"', ""), plain);
    assert_eq!(run(&["resolve", "-f", "values.yaml"]), format!("a: no\nb: \"{MARKER}\" # kept\nc: 5432\n"));
    assert_eq!(run(&["get", "ref+sops://a.yaml#/password"]), MARKER);
}
