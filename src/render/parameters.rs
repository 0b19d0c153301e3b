//! The settings of one application: their names, their types, and the three places they come from.
//!
//! Names are those of Argo CD's own Helm source. Each may stand in the Application's `plugin.parameters`
//! (`ARGOCD_APP_PARAMETERS`), in its `plugin.env` as `ARGOCD_ENV_<UPPER_SNAKE>`, and in the file
//! [`FILE_NAME`] of the app directory; parameters win over environment, environment over file. All three are
//! written by people who need not be trusted, so nothing here is an operator's choice.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::document::{self, Format, Node, ParseError, Position};
use crate::environment::Environment;
use crate::fault::{Class, Fault};

/// The file of settings in an app directory.
pub const FILE_NAME: &str = ".strongroom.yaml";

/// From this similarity on a name is taken for a typo of another.
const LIKE: f64 = 0.8;

/// What a setting holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One string.
    String,
    /// `true` or `false`.
    Bool,
    /// Strings, in order.
    Array,
    /// Strings by name.
    Map,
    /// A YAML document: text, or a mapping where the place allows one.
    Document,
}

impl Kind {
    const fn expectation(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Bool => "true or false",
            Self::Array => "an array of strings",
            Self::Map => "a map of strings",
            Self::Document => "a YAML mapping, or a string that holds one",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, as in Argo CD's Helm source.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// One sentence for the docs and for Argo CD's UI.
    pub doc: &'static str,
}

/// Every setting there is. Docs, announcements and error messages derive from it.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "releaseName",
        kind: Kind::String,
        doc: "Name of the Helm release; the application's name by default.",
    },
    Parameter {
        name: "namespace",
        kind: Kind::String,
        doc: "Namespace given to helm; the destination's namespace by default.",
    },
    Parameter {
        name: "valueFiles",
        kind: Kind::Array,
        doc: "Value files, in order; relative to the app directory, or to the repository's root with a leading `/`. Encrypted ones are opened.",
    },
    Parameter { name: "values", kind: Kind::Document, doc: "Values as YAML text, after the value files." },
    Parameter {
        name: "valuesObject",
        kind: Kind::Document,
        doc: "Values as a mapping, after the value files; wins over `values`.",
    },
    Parameter { name: "parameters", kind: Kind::Map, doc: "Single values by path, as helm's `--set`." },
    Parameter {
        name: "stringParameters",
        kind: Kind::Map,
        doc: "Single values by path that stay strings, as helm's `--set-string`.",
    },
    Parameter {
        name: "fileParameters",
        kind: Kind::Map,
        doc: "Files whose content becomes a value, by path, as helm's `--set-file`.",
    },
    Parameter { name: "skipCrds", kind: Kind::Bool, doc: "Leave out the chart's `crds` directory." },
    Parameter { name: "skipTests", kind: Kind::Bool, doc: "Leave out test hooks." },
    Parameter {
        name: "skipSchemaValidation",
        kind: Kind::Bool,
        doc: "Do not check values against the chart's schema.",
    },
    Parameter {
        name: "kubeVersion",
        kind: Kind::String,
        doc: "Kubernetes version that the chart sees; the cluster's by default.",
    },
    Parameter {
        name: "apiVersions",
        kind: Kind::Array,
        doc: "API versions that the chart sees; the cluster's by default.",
    },
    Parameter {
        name: "ignoreMissingValueFiles",
        kind: Kind::Bool,
        doc: "Value files that do not exist are left out.",
    },
    Parameter { name: "allowEmpty", kind: Kind::Bool, doc: "An empty result is no error." },
    Parameter {
        name: "allowUnresolved",
        kind: Kind::Bool,
        doc: "References and encrypted values left in the result are no error.",
    },
    Parameter {
        name: "resolveManifests",
        kind: Kind::Bool,
        doc: "References that templates built are resolved in the result.",
    },
];

/// The table of settings as Markdown, for `docs/parameters.md`.
pub fn markdown() -> String {
    let mut page = String::from(PREAMBLE);
    page.push_str("| name | holds | variable | meaning |\n|---|---|---|---|\n");
    for Parameter { name, kind, doc } in PARAMETERS {
        let expectation = kind.expectation();
        let _ = writeln!(page, "| `{name}` | {expectation} | `ARGOCD_ENV_{}` | {doc} |", upper_snake(name));
    }
    page
}

const PREAMBLE: &str = "\
# Settings of an application

What Argo CD's own Helm source calls by a name has the same name here. A setting may stand in three places:

1. in the Application, as a parameter of the plugin:

   ```yaml
   plugin:
     name: strongroom
     parameters:
       - name: valueFiles
         array: [values-prod.yaml, secrets-prod.yaml]
       - name: parameters
         map:
           replicas: \"3\"
   ```

2. in the Application, as a variable in `plugin.env`. Argo CD puts `ARGOCD_ENV_` before its name: `VALUE_FILES` there is
   `ARGOCD_ENV_VALUE_FILES` in the table below. Arrays and maps are YAML or JSON; an array may also be a comma list.
3. in a file `.strongroom.yaml` in the application's directory, by its name: `valueFiles: [values-prod.yaml]`.

A parameter wins over a variable, a variable over the file. An unknown name is an error that offers the nearest one.

Value files are read in their order, later ones win, as with helm's `-f`. One that has SOPS metadata is opened; no prefix
is needed. The spellings of helm-secrets mean the same here: `secrets://FILE`, `secrets://?FILE` for one that may be
missing, `secrets+age-import://KEY?FILE` and `secrets+gpg-import://KEY?FILE`, where a file called as KEY must be in the
[keys folder](keys.md). A path is relative to the application's directory, or with a leading `/` to the repository's
root, and never leads outside the repository.

";

/// Settings by name, each the JSON form of its kind.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<&'static str, Setting>);

struct Setting {
    place: Place,
    value: Json,
}

impl std::fmt::Debug for Setting {
    /// A setting may hold inline values, so only its place is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.place)
    }
}

/// Where a setting was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Place {
    /// `plugin.parameters` of the Application.
    #[error("parameter {0:?}")]
    Parameter(String),
    /// `plugin.env` of the Application.
    #[error("environment variable ARGOCD_ENV_{0}")]
    Environment(String),
    /// The file of the app directory.
    #[error("{FILE_NAME}: {0:?}")]
    File(String),
}

/// A setting that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ParameterError {
    /// `ARGOCD_APP_PARAMETERS` is not what Argo CD writes.
    #[error("ARGOCD_APP_PARAMETERS is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first mistake.
        line: usize,
        /// Column of the first mistake.
        column: usize,
    },
    /// Nor is this.
    #[error(
        "ARGOCD_APP_PARAMETERS is not a list of parameters\n\
         help: each has a `name`, and a `string`, an `array` of strings or a `map` of strings"
    )]
    NotParameters,
    /// The settings file is not YAML.
    #[error("read {FILE_NAME}")]
    NotYaml(#[from] ParseError),
    /// The settings file is not a YAML mapping.
    #[error("{FILE_NAME} is not a YAML mapping")]
    NotMapping,
    /// There is no such setting.
    #[error("{place} is not known\nhelp: {help}")]
    Unknown {
        /// Where it stands.
        place: Place,
        /// The known name that looks most like it, or all of them.
        help: String,
    },
    /// It stands twice in the same place.
    #[error("{0} is given twice")]
    Twice(Place),
    /// No program can be given it.
    #[error("{0} holds a NUL character")]
    Nul(Place),
    /// It holds something else than its kind says.
    #[error("{place} must be {expected}")]
    WrongType {
        /// Where it stands.
        place: Place,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Fault for ParameterError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl Settings {
    /// Reads the three places. `file` is the text of [`FILE_NAME`], where there is one.
    pub fn read(environment: &Environment, file: Option<&str>) -> Result<Self, ParameterError> {
        let mut settings = BTreeMap::new();
        if let Some(text) = file {
            for (name, value) in from_file(text)? {
                let place = Place::File(name.clone());
                insert(&mut settings, &name, place, value)?;
            }
        }
        for parameter in PARAMETERS {
            let variable = upper_snake(parameter.name);
            if let Some(text) = environment.get(&format!("ARGOCD_ENV_{variable}")) {
                let place = Place::Environment(variable);
                let value =
                    from_text(parameter.kind, text).ok_or_else(|| wrong_type(&place, parameter.kind))?;
                insert(&mut settings, parameter.name, place, value)?;
            }
        }
        refuse_misspelled(environment)?;
        let mut seen = Vec::new();
        for (name, value) in from_argocd(environment)? {
            let place = Place::Parameter(name.clone());
            if seen.contains(&name) {
                return Err(ParameterError::Twice(place));
            }
            insert(&mut settings, &name, place, value)?;
            seen.push(name);
        }
        Ok(Self(settings))
    }

    /// A string, where set and not empty.
    pub fn string(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A flag; `false` where not set.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).and_then(Json::as_bool).unwrap_or(false)
    }

    /// Strings, in order; empty where not set.
    pub fn array(&self, name: &str) -> Vec<String> {
        let items = self.value(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// Strings by name, in the order written; empty where not set.
    pub fn map(&self, name: &str) -> Vec<(String, String)> {
        let Some(map) = self.value(name).and_then(Json::as_object) else { return Vec::new() };
        map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// A YAML document as text, where set and not empty; a mapping is written as JSON, which is YAML too.
    pub fn document(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Json::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
            Json::Object(map) if map.is_empty() => None,
            value => Some(value.to_string()),
        }
    }

    fn value(&self, name: &str) -> Option<&Json> {
        debug_assert!(PARAMETERS.iter().any(|known| known.name == name), "unknown setting {name}");
        Some(&self.0.get(name)?.value)
    }
}

fn insert(
    settings: &mut BTreeMap<&'static str, Setting>,
    name: &str,
    place: Place,
    value: Json,
) -> Result<(), ParameterError> {
    let Some(parameter) = PARAMETERS.iter().find(|known| known.name == name) else {
        return Err(ParameterError::Unknown { place, help: help_for(name) });
    };
    if parameter.kind != Kind::Document && holds_nul(&value) {
        return Err(ParameterError::Nul(place));
    }
    let value = coerce(parameter.kind, value).ok_or_else(|| wrong_type(&place, parameter.kind))?;
    settings.insert(parameter.name, Setting { place, value });
    Ok(())
}

fn wrong_type(place: &Place, kind: Kind) -> ParameterError {
    ParameterError::WrongType { place: place.clone(), expected: kind.expectation() }
}

/// The value as its kind, or `None` where it is of another one.
fn coerce(kind: Kind, value: Json) -> Option<Json> {
    match (kind, &value) {
        (Kind::String | Kind::Document, Json::String(_))
        | (Kind::Bool, Json::Bool(_))
        | (Kind::Document, Json::Object(_)) => Some(value),
        (Kind::Bool, Json::String(text)) => text.parse().ok().map(Json::Bool),
        (Kind::Array, Json::Array(items)) if items.iter().all(Json::is_string) => Some(value),
        (Kind::Map, Json::Object(map)) if map.values().all(Json::is_string) => Some(value),
        _ => None,
    }
}

/// A setting from one string: arrays and maps as YAML or JSON, or an array as a comma list.
fn from_text(kind: Kind, text: &str) -> Option<Json> {
    match kind {
        Kind::String | Kind::Bool | Kind::Document => Some(Json::String(text.to_owned())),
        Kind::Array if text.trim_start().starts_with(['[', '-']) => strings(serde_yaml::from_str(text).ok()?),
        Kind::Array => {
            let items = text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
            Some(items.map(|item| Json::String(item.to_owned())).collect())
        }
        Kind::Map => strings(serde_yaml::from_str(text).ok()?),
    }
}

/// Scalars inside an array or a map become strings, as Argo CD's own parameters are.
fn strings(value: Json) -> Option<Json> {
    let string = |value: Json| match value {
        Json::Bool(_) | Json::Number(_) => Json::String(value.to_string()),
        other => other,
    };
    match value {
        Json::Array(items) => Some(items.into_iter().map(string).collect()),
        Json::Object(map) => Some(map.into_iter().map(|(key, value)| (key, string(value))).collect()),
        _ => None,
    }
}

/// The entries of the settings file. Scalars keep their spelling: `kubeVersion: 1.30` is not the number 1.3.
fn from_file(text: &str) -> Result<Vec<(String, Json)>, ParameterError> {
    let stream = document::parse(text, Format::Yaml)?;
    let Some(root) = stream.documents.first() else { return Ok(Vec::new()) };
    if !matches!(root.kind, document::Kind::Mapping(_)) && root.text() != Some("") {
        return Err(ParameterError::NotMapping);
    }
    let set = root.entries().iter().filter(|(_, value)| value.text() != Some(""));
    set.map(|(name, value)| {
        let name = name.text().ok_or(ParameterError::NotMapping)?;
        let kind = PARAMETERS.iter().find(|known| known.name == name).map(|known| known.kind);
        Ok((name.to_owned(), from_node(kind, value, text)))
    })
    .collect()
}

/// The JSON form of a node, or null where it has none.
fn from_node(kind: Option<Kind>, node: &Node, text: &str) -> Json {
    let scalar = |node: &Node| node.text().map(Json::from);
    match &node.kind {
        document::Kind::Scalar { .. } => scalar(node).into(),
        document::Kind::Sequence(items) => items.iter().map(scalar).collect::<Option<Json>>().into(),
        document::Kind::Mapping(_) if kind == Some(Kind::Document) => {
            // Indented as in the file, the block is a document of its own that helm reads as it was written.
            let indent = Position::of(text, node.span.start).column - 1;
            Json::String(" ".repeat(indent) + &text[node.span.clone()])
        }
        document::Kind::Mapping(entries) => {
            let entry = |(key, value): &(Node, Node)| Some((key.text()?.to_owned(), scalar(value)?));
            entries.iter().map(entry).collect::<Option<serde_json::Map<_, _>>>().into()
        }
        document::Kind::Alias(_) => Json::Null,
    }
}

fn from_argocd(environment: &Environment) -> Result<Vec<(String, Json)>, ParameterError> {
    let Some(text) = environment.get("ARGOCD_APP_PARAMETERS") else { return Ok(Vec::new()) };
    let parameters: Json = serde_json::from_str(text)
        .map_err(|error| ParameterError::NotJson { line: error.line(), column: error.column() })?;
    match parameters {
        Json::Null => Ok(Vec::new()),
        Json::Array(parameters) => parameters.into_iter().map(announced).collect(),
        _ => Err(ParameterError::NotParameters),
    }
}

/// Name and value of a parameter as Argo CD announces it; null where it has none, or several of its kind.
///
/// Argo CD reads the list of an `.argocd-source.yaml` over the one before, and leaves the value of another kind that stood
/// at the same place of it.
fn announced(parameter: Json) -> Result<(String, Json), ParameterError> {
    let Json::Object(mut fields) = parameter else { return Err(ParameterError::NotParameters) };
    let Some(Json::String(name)) = fields.remove("name") else { return Err(ParameterError::NotParameters) };
    let values = ["string", "array", "map"].into_iter().filter_map(|kind| fields.remove(kind));
    let mut values: Vec<_> = values.filter(|value| !value.is_null()).collect();
    if let Some(known) = PARAMETERS.iter().find(|known| known.name == name && values.len() > 1) {
        values.retain(|value| coerce(known.kind, value.clone()).is_some());
    }
    match (values.pop(), values.is_empty()) {
        (Some(value), true) => Ok((name, value)),
        _ => Ok((name, Json::Null)),
    }
}

/// Variables that are nobody's setting may be there for other uses, but not those that look like one.
fn refuse_misspelled(environment: &Environment) -> Result<(), ParameterError> {
    let plain = |name: &str| name.replace('_', "").to_lowercase().trim_end_matches('s').to_owned();
    for (variable, _) in environment.iter() {
        let Some(name) = variable.strip_prefix("ARGOCD_ENV_") else { continue };
        let known = PARAMETERS.iter().find(|known| plain(known.name) == plain(name));
        if let Some(known) = known.map(|known| upper_snake(known.name)).filter(|known| known != name) {
            let place = Place::Environment(name.to_owned());
            return Err(ParameterError::Unknown { place, help: format!("did you mean ARGOCD_ENV_{known}?") });
        }
    }
    Ok(())
}

fn holds_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(holds_nul),
        Json::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// A name that is much like a known one is offered that, every other one all of them.
fn help_for(name: &str) -> String {
    let wanted = name.to_lowercase();
    let score = |known: &Parameter| strsim::jaro_winkler(&wanted, &known.name.to_lowercase());
    let nearest = PARAMETERS.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    if let Some(known) = nearest.filter(|known| score(known) >= LIKE) {
        format!("did you mean {:?}?", known.name)
    } else {
        let names: Vec<_> = PARAMETERS.iter().map(|known| known.name).collect();
        format!("the names are {}", names.join(", "))
    }
}

fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings, ParameterError> {
        Settings::read(&variables.iter().copied().collect(), file)
    }

    #[test]
    fn names_are_unique_and_documented() {
        for (index, parameter) in PARAMETERS.iter().enumerate() {
            assert!(parameter.doc.ends_with('.'), "{}", parameter.name);
            assert!(PARAMETERS[index + 1..].iter().all(|other| other.name != parameter.name));
        }
    }

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        assert_eq!(include_str!("../../docs/parameters.md"), markdown(), "run `make docs`");
    }

    #[test]
    fn parameters_win_over_environment_and_environment_over_file() {
        let file = "releaseName: file\nnamespace: file\nkubeVersion: 1.30\nvalueFiles: [a.yaml, b.yaml]\n";
        let parameters = r#"[{"name":"releaseName","string":"parameter"}]"#;
        let settings = read(
            &[
                ("ARGOCD_ENV_RELEASE_NAME", "environment"),
                ("ARGOCD_ENV_NAMESPACE", "environment"),
                ("ARGOCD_APP_PARAMETERS", parameters),
            ],
            Some(file),
        )
        .unwrap();
        assert_eq!(settings.string("releaseName"), Some("parameter"));
        assert_eq!(settings.string("namespace"), Some("environment"));
        assert_eq!(settings.string("kubeVersion"), Some("1.30"));
        assert_eq!(settings.array("valueFiles"), ["a.yaml", "b.yaml"]);
    }

    #[test]
    fn what_argo_cd_leaves_of_an_overridden_parameter_does_not_count() {
        let parameters = r#"[
            {"name":"parameters","array":["a.yaml"],"map":{"replicas":"7"}},
            {"name":"releaseName","string":"shop","map":{"replicas":"5"}}
        ]"#;
        let settings = read(&[("ARGOCD_APP_PARAMETERS", parameters)], None).unwrap();
        assert_eq!(settings.map("parameters"), [("replicas".into(), "7".into())]);
        assert_eq!(settings.string("releaseName"), Some("shop"));
        let both = r#"[{"name":"values","string":"a: 1","map":{"a":"STRONGROOM-MARKER"}}]"#;
        let error = read(&[("ARGOCD_APP_PARAMETERS", both)], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter \"values\" must be a YAML mapping, or a string that holds one"
        );
    }

    #[test]
    fn every_kind_is_read_from_every_place() {
        let parameters = r#"[
            {"name":"valueFiles","array":["a.yaml","b,c.yaml"]},
            {"name":"parameters","map":{"b.c":"1","a":"x"}},
            {"name":"skipCrds","string":"true"},
            {"name":"valuesObject","map":{"a":"1"}}
        ]"#;
        let settings = read(&[("ARGOCD_APP_PARAMETERS", parameters)], None).unwrap();
        assert_eq!(settings.array("valueFiles"), ["a.yaml", "b,c.yaml"]);
        assert_eq!(settings.map("parameters"), [("b.c".into(), "1".into()), ("a".into(), "x".into())]);
        assert!(settings.flag("skipCrds"));
        assert_eq!(settings.document("valuesObject").as_deref(), Some(r#"{"a":"1"}"#));

        let settings = read(
            &[
                ("ARGOCD_ENV_VALUE_FILES", "a.yaml, b.yaml"),
                ("ARGOCD_ENV_API_VERSIONS", r#"["v1","apps/v1"]"#),
                ("ARGOCD_ENV_PARAMETERS", "a: 1\nb: x"),
                ("ARGOCD_ENV_SKIP_TESTS", "true"),
                ("ARGOCD_ENV_VALUES", "a: no\n"),
                ("ARGOCD_ENV_SOMETHING_ELSE", "kept for the chart's own use"),
            ],
            None,
        )
        .unwrap();
        assert_eq!(settings.array("valueFiles"), ["a.yaml", "b.yaml"]);
        assert_eq!(settings.array("apiVersions"), ["v1", "apps/v1"]);
        assert_eq!(settings.map("parameters"), [("a".into(), "1".into()), ("b".into(), "x".into())]);
        assert!(settings.flag("skipTests"));
        assert_eq!(settings.document("values").as_deref(), Some("a: no\n"));

        let file =
            "valuesObject:\n  a: {b: [1, no]}\n  c: 0123\nskipCrds: true\nfileParameters: {a: b.txt}\n";
        let settings = read(&[], Some(file)).unwrap();
        assert_eq!(settings.document("valuesObject").as_deref(), Some("  a: {b: [1, no]}\n  c: 0123"));
        assert!(settings.flag("skipCrds"));
        assert_eq!(settings.map("fileParameters"), [("a".into(), "b.txt".into())]);
    }

    #[test]
    fn absent_and_null_parameters_are_none() {
        for value in ["null", "[]", ""] {
            let settings = read(&[("ARGOCD_APP_PARAMETERS", value)], Some("")).unwrap();
            assert_eq!(settings.array("valueFiles"), Vec::<String>::new());
            assert_eq!(settings.string("releaseName"), None);
        }
    }

    #[test]
    fn bad_settings_say_where_and_what() {
        type Case<'a> = (Vec<(&'a str, &'a str)>, Option<&'a str>, &'a str);
        let parameter = |json: &'static str| vec![("ARGOCD_APP_PARAMETERS", json)];
        let cases: &[Case<'_>] = &[
            (parameter("{"), None, "ARGOCD_APP_PARAMETERS is not JSON (line 1, column 1)"),
            (
                parameter(r#"{"name":"values"}"#),
                None,
                "ARGOCD_APP_PARAMETERS is not a list of parameters\n\
                 help: each has a `name`, and a `string`, an `array` of strings or a `map` of strings",
            ),
            (
                parameter(r#"[{"name":"releaseName","string":"a\u0000b"}]"#),
                None,
                "parameter \"releaseName\" holds a NUL character",
            ),
            (
                vec![("ARGOCD_ENV_VALUEFILE", "a.yaml")],
                None,
                "environment variable ARGOCD_ENV_VALUEFILE is not known\nhelp: did you mean ARGOCD_ENV_VALUE_FILES?",
            ),
            (
                parameter(r#"[{"name":"valuefiles","array":[]}]"#),
                None,
                "parameter \"valuefiles\" is not known\nhelp: did you mean \"valueFiles\"?",
            ),
            (
                parameter(r#"[{"name":"valueFiles","string":"STRONGROOM-MARKER"}]"#),
                None,
                "parameter \"valueFiles\" must be an array of strings",
            ),
            (
                parameter(r#"[{"name":"skipCrds","string":"yes"}]"#),
                None,
                "parameter \"skipCrds\" must be true or false",
            ),
            (
                parameter(r#"[{"name":"skipCrds","string":"true"},{"name":"skipCrds","string":"false"}]"#),
                None,
                "parameter \"skipCrds\" is given twice",
            ),
            (vec![], Some("- a"), ".strongroom.yaml is not a YAML mapping"),
            (
                vec![],
                Some("relaseName: a"),
                ".strongroom.yaml: \"relaseName\" is not known\nhelp: did you mean \"releaseName\"?",
            ),
            (
                vec![("ARGOCD_ENV_PARAMETERS", "- a")],
                None,
                "environment variable ARGOCD_ENV_PARAMETERS must be a map of strings",
            ),
        ];
        for (variables, file, message) in cases {
            let error = read(variables, *file).unwrap_err();
            assert_eq!(error.to_string(), *message);
            assert_eq!(error.class(), Class::Invalid);
        }
    }
}
