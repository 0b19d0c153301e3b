//! An Argo CD `Application` manifest, turned into the environment that Argo CD would give the plugin.
//!
//! Only what a plugin gets to see is read. Which field becomes which variable follows Argo CD 3.x
//! (`reposerver/repository`): `plugin.env` values are expanded with the application's own variables, parameters are
//! passed as they are.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::environment::Environment;
use crate::fault::{Class, Fault};

/// One source of an Application that the plugin renders.
#[derive(Debug)]
pub struct Source {
    /// The app's directory, relative to the repository's root.
    pub path: PathBuf,
    /// The variables Argo CD would set.
    pub environment: Environment,
}

/// An Application that cannot be rendered here.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// Not YAML, or not of the shape of an Application.
    #[error("not an Argo CD Application{}", at.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default())]
    Malformed {
        /// Line and column of the first mistake, where the parser tells.
        at: Option<(usize, usize)>,
    },
    /// No object of kind Application in it.
    #[error("holds no object of kind Application")]
    Absent,
    /// None of its sources uses a plugin.
    #[error("application {0:?} has no source with a `plugin` field and a `path`")]
    NoPlugin(String),
    /// The plugin is another one.
    #[error("application {app:?} uses the plugin {plugin:?}, not strongroom")]
    OtherPlugin {
        /// Name of the application.
        app: String,
        /// Name of the plugin.
        plugin: String,
    },
}

impl Fault for ApplicationError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

#[derive(Deserialize)]
struct Application {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    project: String,
    #[serde(default)]
    destination: Destination,
    source: Option<SourceSpec>,
    #[serde(default)]
    sources: Vec<SourceSpec>,
}

#[derive(Default, Deserialize)]
struct Destination {
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct SourceSpec {
    #[serde(rename = "repoURL", default)]
    repo_url: String,
    path: Option<String>,
    #[serde(rename = "targetRevision", default)]
    target_revision: String,
    plugin: Option<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(default)]
    name: String,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    parameters: Json,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

/// Reads the sources of the first Application in `text` that this plugin renders.
pub fn sources(text: &str) -> Result<Vec<Source>, ApplicationError> {
    let application = first_application(text)?;
    let app = application.metadata.name.clone();
    let mut sources = Vec::new();
    for source in application.spec.source.iter().chain(&application.spec.sources) {
        let (Some(path), Some(plugin)) = (&source.path, &source.plugin) else { continue };
        if !(plugin.name.is_empty() || plugin.name == "strongroom" || plugin.name.starts_with("strongroom-"))
        {
            return Err(ApplicationError::OtherPlugin { app, plugin: plugin.name.clone() });
        }
        let environment = environment(&application, source, path, plugin);
        sources.push(Source { path: PathBuf::from(path), environment });
    }
    if sources.is_empty() { Err(ApplicationError::NoPlugin(app)) } else { Ok(sources) }
}

fn first_application(text: &str) -> Result<Application, ApplicationError> {
    let malformed = |error: &serde_yaml::Error| ApplicationError::Malformed {
        at: error.location().map(|location| (location.line(), location.column())),
    };
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Json::deserialize(document).map_err(|error| malformed(&error))?;
        if object.get("kind").and_then(Json::as_str) == Some("Application") {
            return serde_json::from_value(object).map_err(|_| ApplicationError::Malformed { at: None });
        }
    }
    Err(ApplicationError::Absent)
}

fn environment(application: &Application, source: &SourceSpec, path: &str, plugin: &Plugin) -> Environment {
    let own = [
        ("ARGOCD_APP_NAME", application.metadata.name.as_str()),
        ("ARGOCD_APP_NAMESPACE", &application.spec.destination.namespace),
        ("ARGOCD_APP_PROJECT_NAME", &application.spec.project),
        ("ARGOCD_APP_REVISION", &source.target_revision),
        ("ARGOCD_APP_SOURCE_REPO_URL", &source.repo_url),
        ("ARGOCD_APP_SOURCE_PATH", path),
        ("ARGOCD_APP_SOURCE_TARGET_REVISION", &source.target_revision),
    ];
    let mut variables: Vec<(String, String)> =
        own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for variable in &plugin.env {
        variables.push((format!("ARGOCD_ENV_{}", variable.name), expand(&variable.value, &own)));
    }
    variables.push(("ARGOCD_APP_PARAMETERS".to_owned(), plugin.parameters.to_string()));
    variables.into_iter().collect()
}

/// `$NAME` and `${NAME}` by the application's own variables, unknown ones as nothing, `$$` as `$`.
fn expand(text: &str, variables: &[(&str, &str)]) -> String {
    let value =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('{').and_then(|braced| braced.split_once('}'))
        {
            expanded.push_str(value(name));
            after
        } else {
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            expanded.push_str(value(&after[..end]));
            &after[end..]
        };
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLICATION: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: shop, namespace: argocd}
spec:
  project: team-a
  destination: {server: https://kubernetes.default.svc, namespace: prod}
  source:
    repoURL: https://git.example/apps.git
    path: charts/shop
    targetRevision: main
    plugin:
      name: strongroom
      env:
        - {name: RELEASE_NAME, value: '${ARGOCD_APP_NAME}-$ARGOCD_APP_NAMESPACE$$x$UNKNOWN.'}
      parameters:
        - {name: valueFiles, array: [values.yaml]}
";

    #[test]
    fn an_application_becomes_argocd_s_environment() {
        let sources = sources(APPLICATION).unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].path, PathBuf::from("charts/shop"));
        let environment = &sources[0].environment;
        let expected = [
            ("ARGOCD_APP_NAME", "shop"),
            ("ARGOCD_APP_NAMESPACE", "prod"),
            ("ARGOCD_APP_PARAMETERS", r#"[{"name":"valueFiles","array":["values.yaml"]}]"#),
            ("ARGOCD_APP_PROJECT_NAME", "team-a"),
            ("ARGOCD_APP_REVISION", "main"),
            ("ARGOCD_APP_SOURCE_PATH", "charts/shop"),
            ("ARGOCD_APP_SOURCE_REPO_URL", "https://git.example/apps.git"),
            ("ARGOCD_APP_SOURCE_TARGET_REVISION", "main"),
            ("ARGOCD_ENV_RELEASE_NAME", "shop-prod$x."),
        ];
        assert_eq!(environment.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn other_manifests_are_refused_with_the_reason() {
        let cases = [
            ("a: [", "not an Argo CD Application (line 2, column 1)"),
            ("kind: ConfigMap", "holds no object of kind Application"),
            ("kind: Application\nmetadata: {}\nspec: {}", "not an Argo CD Application"),
            (
                "kind: Application\nmetadata: {name: a}\nspec: {source: {path: b}}",
                "application \"a\" has no source with a `plugin` field and a `path`",
            ),
            (
                "kind: Application\nmetadata: {name: a}\nspec: {source: {path: b, plugin: {name: avp}}}",
                "application \"a\" uses the plugin \"avp\", not strongroom",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(sources(text).unwrap_err().to_string(), message);
        }
    }
}
