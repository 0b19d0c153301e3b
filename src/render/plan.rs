//! The plan of one render: what helm is to be told, in helm's order. Pure; it reads no file.
//!
//! Every way in builds the same [`Plan`]: `generate` and `serve` from what Argo CD sets, `template` from helm's own
//! flags. Paths are kept as they were spelled; the render resolves them inside the repository.

use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::policy::Who;
use crate::render::parameters::{ParameterError, Settings};
use crate::render::set::Flags;
use crate::secret::Secret;

/// What one render does.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Plan {
    /// Name of the release.
    pub release_name: String,
    /// Namespace given to helm.
    pub namespace: Option<String>,
    /// Kubernetes version the chart sees.
    pub kube_version: Option<String>,
    /// API versions the chart sees.
    pub api_versions: Vec<String>,
    /// Whether the chart's `crds` directory is part of the result.
    pub include_crds: bool,
    /// Whether test hooks are left out.
    pub skip_tests: bool,
    /// Whether the chart's schema is ignored.
    pub skip_schema_validation: bool,
    /// Values documents, in helm's order: a later one wins.
    pub values: Vec<ValueSource>,
    /// Single values; their files are in `set_files` until they are read.
    pub sets: Flags,
    /// Files whose content becomes a value, by path.
    pub set_files: Vec<(String, ValueFile)>,
    /// An empty result is no error.
    pub allow_empty: bool,
    /// What was not resolved is no error.
    pub allow_unresolved: bool,
    /// Whether references in helm's output are resolved.
    pub resolve_manifests: bool,
}

/// One document of values.
#[derive(Debug)]
pub enum ValueSource {
    /// A file.
    File(ValueFile),
    /// Text that came with the request.
    Inline {
        /// How errors call it, such as `parameter "values"`.
        name: String,
        /// YAML.
        text: Secret<String>,
    },
}

/// A file of values, as it was spelled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValueFile {
    /// The whole spelling, for messages.
    pub spelled: String,
    /// The path in it.
    pub path: String,
    /// Whether it may be missing.
    pub optional: bool,
    /// A key that the spelling names; it must lie in the keys folder.
    pub key: Option<String>,
    /// Where the path starts.
    pub base: Base,
}

/// Where the path of a value file starts, and how far it may lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Base {
    /// The app directory; never outside the repository.
    App,
    /// The current directory of the person who typed it; anywhere.
    Terminal,
}

/// A plan that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The application has no name.
    #[error(
        "ARGOCD_APP_NAME is not set\nhelp: `generate` is run by Argo CD; `strongroom template` renders from a terminal"
    )]
    NoName,
    /// A setting is wrong.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A value file is spelled in a way that means nothing.
    #[error("value file {spelled:?} {reason}")]
    Spelling {
        /// As it was written.
        spelled: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Fault for PlanError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

impl Plan {
    /// The plan that Argo CD's environment asks for. `file` is the text of the app directory's settings file.
    pub fn from_argocd(environment: &Environment, file: Option<&str>) -> Result<Self, PlanError> {
        let name = environment.get("ARGOCD_APP_NAME").ok_or(PlanError::NoName)?;
        let settings = Settings::read(environment, file)?;
        let or_cluster = |name: &str, variable: &str| {
            settings.string(name).or_else(|| environment.get(variable)).map(str::to_owned)
        };
        let api_versions = match settings.array("apiVersions") {
            own if own.is_empty() => list(environment.get("KUBE_API_VERSIONS")),
            own => own,
        };
        Ok(Self {
            release_name: settings
                .string("releaseName")
                .unwrap_or_else(|| without_namespace(name))
                .to_owned(),
            namespace: or_cluster("namespace", "ARGOCD_APP_NAMESPACE"),
            kube_version: or_cluster("kubeVersion", "KUBE_VERSION"),
            api_versions,
            include_crds: !settings.flag("skipCrds"),
            skip_tests: settings.flag("skipTests"),
            skip_schema_validation: settings.flag("skipSchemaValidation"),
            values: values(&settings)?,
            sets: sets(&settings),
            set_files: set_files(&settings)?,
            allow_empty: settings.flag("allowEmpty"),
            allow_unresolved: settings.flag("allowUnresolved"),
            resolve_manifests: settings.flag("resolveManifests"),
        })
    }

    /// Whether there is anything for `.Values` beside the chart's own.
    pub fn has_values(&self) -> bool {
        let Flags { json, set, string, file, literal } = &self.sets;
        let flags = [json, set, string, literal].iter().any(|flags| !flags.is_empty());
        flags || !(self.values.is_empty() && self.set_files.is_empty() && file.is_empty())
    }
}

/// On whose behalf Argo CD asks.
pub fn who(environment: &Environment) -> Who {
    let text = |name: &str| environment.get(name).map(str::to_owned);
    Who {
        app: text("ARGOCD_APP_NAME").unwrap_or_default(),
        project: text("ARGOCD_APP_PROJECT_NAME"),
        repository: text("ARGOCD_APP_SOURCE_REPO_URL"),
        revision: text("ARGOCD_APP_REVISION"),
    }
}

/// An app outside Argo CD's own namespace is called `ns_app`. Neither part can hold an underscore.
fn without_namespace(name: &str) -> &str {
    name.split_once('_').map_or(name, |(_, app)| app)
}

fn list(text: Option<&str>) -> Vec<String> {
    let items = text.unwrap_or_default().split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn values(settings: &Settings) -> Result<Vec<ValueSource>, PlanError> {
    let optional = settings.flag("ignoreMissingValueFiles");
    let mut values = Vec::new();
    for spelled in settings.array("valueFiles") {
        values.push(ValueSource::File(ValueFile::parse(&spelled, optional, Base::App)?));
    }
    for name in ["valuesObject", "values"] {
        if let Some(text) = settings.document(name) {
            values.push(ValueSource::Inline { name: format!("parameter {name:?}"), text: text.into() });
            break;
        }
    }
    Ok(values)
}

fn sets(settings: &Settings) -> Flags {
    let mut flags = Flags::default();
    for (name, force_string) in [("parameters", false), ("stringParameters", true)] {
        for (path, value) in settings.map(name) {
            flags.parameter(&path, &value, force_string);
        }
    }
    flags
}

fn set_files(settings: &Settings) -> Result<Vec<(String, ValueFile)>, PlanError> {
    let files = settings.map("fileParameters").into_iter();
    files.map(|(path, spelled)| Ok((path, ValueFile::parse(&spelled, false, Base::App)?))).collect()
}

impl ValueFile {
    /// Reads a spelling: a path, or one of helm-secrets' forms around it.
    ///
    /// `secrets://FILE`, `secrets://?FILE` (may be missing), `secrets+age-import://KEY?FILE`,
    /// `secrets+gpg-import://KEY?FILE`, each with an optional `sops!` or `vals!` that says nothing here.
    pub fn parse(spelled: &str, optional: bool, base: Base) -> Result<Self, PlanError> {
        let wrong = |reason| PlanError::Spelling { spelled: spelled.to_owned(), reason };
        let file = |key: Option<&str>, path: &str, optional| match path {
            "" => Err(wrong("names no file")),
            path => Ok(Self {
                spelled: spelled.to_owned(),
                path: path.to_owned(),
                optional,
                key: key.map(str::to_owned),
                base,
            }),
        };
        if spelled.contains(char::is_control) {
            return Err(wrong("holds a control character"));
        }
        let Some((scheme, rest)) = spelled.split_once("://") else {
            return file(None, spelled, optional);
        };
        let (rest, marked) = match rest.strip_prefix('?') {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let rest =
            without_backend(rest).ok_or_else(|| wrong("names a backend other than `sops` and `vals`"))?;
        let optional = optional || marked;
        match scheme {
            "secrets" => file(None, rest, optional),
            "secrets+age-import" | "secrets+gpg-import" => match rest.split_once('?') {
                Some(("", _)) | None => Err(wrong("is not of the form `KEY?FILE` behind the scheme")),
                Some((key, path)) => file(Some(key), path, optional),
            },
            "secrets+age-import-kubernetes" | "secrets+gpg-import-kubernetes" => Err(wrong(
                "takes a key from the cluster, which is not done\nhelp: mount the key into the keys folder and write secrets://FILE",
            )),
            "secrets+literal" => {
                Err(wrong("is no file\nhelp: write the reference into `values` or `parameters`"))
            }
            "http" | "https" => {
                Err(wrong("is a URL, which is not fetched\nhelp: keep the file in the repository"))
            }
            _ => Err(wrong(
                "has an unknown scheme\nhelp: write a path, or `secrets://FILE` as for helm-secrets; a file with SOPS metadata needs no prefix",
            )),
        }
    }
}

/// Helm-secrets lets a path choose a backend, even a script of the repository's; here only names without effect pass.
fn without_backend(rest: &str) -> Option<&str> {
    match rest.split_once('!') {
        None => Some(rest),
        Some(("" | "sops" | "vals", rest)) => Some(rest),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Result<Plan, PlanError> {
        let mut all = vec![("ARGOCD_APP_NAME", "demo")];
        all.extend_from_slice(variables);
        Plan::from_argocd(&all.into_iter().collect(), None)
    }

    #[test]
    fn argocd_environment_fills_what_the_app_leaves_open() {
        let plan = plan(&[
            ("ARGOCD_APP_NAME", "team-a_demo"),
            ("ARGOCD_APP_NAMESPACE", "shop"),
            ("KUBE_VERSION", "1.36.1"),
            ("KUBE_API_VERSIONS", "v1,apps/v1,apps/v1/Deployment"),
        ])
        .unwrap();
        assert_eq!(plan.release_name, "demo");
        assert_eq!(plan.namespace.as_deref(), Some("shop"));
        assert_eq!(plan.kube_version.as_deref(), Some("1.36.1"));
        assert_eq!(plan.api_versions, ["v1", "apps/v1", "apps/v1/Deployment"]);
        assert!(plan.include_crds && !plan.skip_tests && !plan.allow_empty);
    }

    #[test]
    fn the_app_s_own_settings_win() {
        let parameters = r#"[
            {"name":"releaseName","string":"own"},
            {"name":"kubeVersion","string":"1.30.0"},
            {"name":"apiVersions","array":["batch/v1"]},
            {"name":"skipCrds","string":"true"},
            {"name":"valueFiles","array":["a.yaml","secrets://b.yaml"]},
            {"name":"values","string":"a: no"},
            {"name":"parameters","map":{"a":"1,2","b":"{1,2}","c":"1\\,2"}}
        ]"#;
        let plan = plan(&[
            ("ARGOCD_APP_PARAMETERS", parameters),
            ("KUBE_VERSION", "1.36.1"),
            ("KUBE_API_VERSIONS", "v1"),
        ])
        .unwrap();
        assert_eq!(plan.release_name, "own");
        assert_eq!(plan.kube_version.as_deref(), Some("1.30.0"));
        assert_eq!(plan.api_versions, ["batch/v1"]);
        assert!(!plan.include_crds);
        let names: Vec<_> = plan
            .values
            .iter()
            .map(|source| match source {
                ValueSource::File(file) => file.path.as_str(),
                ValueSource::Inline { name, .. } => name.as_str(),
            })
            .collect();
        assert_eq!(names, ["a.yaml", "b.yaml", "parameter \"values\""]);
        let sets: Vec<_> = plan.sets.set.iter().map(|set| set.expose().as_str()).collect();
        assert_eq!(sets, [r"a=1\,2", "b={1,2}", r"c=1\,2"]);
    }

    #[test]
    fn values_object_wins_over_values() {
        let plan = plan(&[("ARGOCD_ENV_VALUES", "a: 1"), ("ARGOCD_ENV_VALUES_OBJECT", "a: 2")]).unwrap();
        assert_eq!(plan.values.len(), 1);
        assert!(matches!(&plan.values[0], ValueSource::Inline { text, .. } if text.expose() == "a: 2"));
    }

    #[test]
    fn an_unnamed_app_is_refused() {
        let error = Plan::from_argocd(&Environment::default(), None).unwrap_err();
        assert!(error.to_string().starts_with("ARGOCD_APP_NAME is not set"));
    }

    #[test]
    fn spellings_of_helm_secrets_mean_the_same() {
        let cases: &[(&str, &str, bool, Option<&str>)] = &[
            ("a.yaml", "a.yaml", false, None),
            ("/env/a.yaml", "/env/a.yaml", false, None),
            ("secrets://a.yaml", "a.yaml", false, None),
            ("secrets://?a.yaml", "a.yaml", true, None),
            ("secrets://sops!a.yaml", "a.yaml", false, None),
            ("secrets://?vals!a.yaml", "a.yaml", true, None),
            ("secrets://!a!b.yaml", "a!b.yaml", false, None),
            ("secrets+age-import:///keys/key.txt?a.yaml", "a.yaml", false, Some("/keys/key.txt")),
            ("secrets+gpg-import://?key.asc?a.yaml", "a.yaml", true, Some("key.asc")),
        ];
        for (spelled, path, optional, key) in cases {
            let file = ValueFile::parse(spelled, false, Base::App).unwrap();
            assert_eq!((file.path.as_str(), file.optional, file.key.as_deref()), (*path, *optional, *key));
            assert_eq!(file.spelled, *spelled);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let cases = [
            ("", "value file \"\" names no file"),
            ("secrets://", "value file \"secrets://\" names no file"),
            (
                "secrets://./evil.sh!a.yaml",
                "value file \"secrets://./evil.sh!a.yaml\" names a backend other than `sops` and `vals`",
            ),
            (
                "secrets+age-import://key.txt",
                "value file \"secrets+age-import://key.txt\" is not of the form `KEY?FILE` behind the scheme",
            ),
            (
                "s3://bucket/a.yaml",
                "value file \"s3://bucket/a.yaml\" has an unknown scheme\n\
                 help: write a path, or `secrets://FILE` as for helm-secrets; a file with SOPS metadata needs no prefix",
            ),
            ("a\nhelp: b", "value file \"a\\nhelp: b\" holds a control character"),
        ];
        for (spelled, message) in cases {
            let error = ValueFile::parse(spelled, false, Base::App).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        for spelled in
            ["secrets+age-import-kubernetes://ns/s#k?a.yaml", "https://host/a.yaml", "secrets+literal://x"]
        {
            assert!(ValueFile::parse(spelled, false, Base::App).unwrap_err().to_string().contains("help: "));
        }
    }
}
