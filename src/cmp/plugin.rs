//! What `plugin.yaml` says that a server of its own needs: name, discovery, announced parameters, wishes.
//!
//! It is the file that the stock server reads, with the same meaning; its commands are not run, because rendering is
//! built in. Discovery by a command and parameters by a command are refused: the product runs no program that a
//! mounted file names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use crate::cmp::proto::repository::ParameterAnnouncement;
use crate::fault::{Class, Fault};

/// A `plugin.yaml` that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is not YAML, or its fields have other types.
    #[error("plugin.yaml does not parse")]
    Parse(#[source] serde_yaml::Error),
    /// It is the file of something else.
    #[error("plugin.yaml has kind {0:?} instead of \"ConfigManagementPlugin\"")]
    Kind(String),
    /// Its name cannot name a socket.
    #[error("plugin.yaml's name and version make {0:?}, which cannot name a socket")]
    Name(String),
    /// A pattern is wrong.
    #[error("plugin.yaml's discovery pattern does not parse")]
    Pattern(#[from] globset::Error),
    /// It names a command.
    #[error(
        "plugin.yaml has a command in {0}, and this server runs none\nhelp: use spec.discover.fileName, spec.discover.find.glob or spec.parameters.static, or run the plugin under argocd-cmp-server"
    )]
    Command(&'static str),
}

impl Fault for PluginError {
    fn class(&self) -> Class {
        match self {
            Self::Read { .. } => Class::Internal,
            _ => Class::Invalid,
        }
    }
}

/// The plugin as Argo CD sees it.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The name in an Application, and of the socket: `name` or `name-version`.
    pub name: String,
    /// Which apps it is for that do not name it.
    pub discovery: Option<Discovery>,
    /// Parameters for the user interface.
    pub parameters: Vec<ParameterAnnouncement>,
    /// Files keep their permission bits.
    pub preserve_file_mode: bool,
    /// The repository's git credentials are wanted.
    pub provide_git_creds: bool,
}

/// Paths, relative to the app's directory, of which one has to exist.
#[derive(Clone, Debug)]
pub struct Discovery(GlobMatcher);

impl Discovery {
    fn new(pattern: &str) -> Result<Self, PluginError> {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        Ok(Self(GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher()))
    }

    /// Whether this path is one of them.
    pub fn matches(&self, path: &Path) -> bool {
        self.0.is_match(path)
    }
}

impl Default for Plugin {
    /// What is served when no `plugin.yaml` is mounted: `strongroom`, no version, no discovery.
    fn default() -> Self {
        Self {
            name: "strongroom".to_owned(),
            discovery: None,
            parameters: Vec::new(),
            preserve_file_mode: false,
            provide_git_creds: false,
        }
    }
}

impl Plugin {
    /// Reads the file at `path`; the default where there is none.
    pub fn read(path: &Path) -> Result<Self, PluginError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(PluginError::Read { path: path.to_owned(), source }),
        }
    }

    /// The file name of its socket.
    pub fn socket(&self) -> String {
        format!("{}.sock", self.name)
    }

    /// Parses the text of a `plugin.yaml`.
    pub fn parse(text: &str) -> Result<Self, PluginError> {
        let manifest: Manifest = serde_yaml::from_str(text).map_err(PluginError::Parse)?;
        if manifest.kind != "ConfigManagementPlugin" {
            return Err(PluginError::Kind(manifest.kind));
        }
        let spec = manifest.spec;
        if spec.parameters.dynamic.is_some_and(|dynamic| !dynamic.command.is_empty()) {
            return Err(PluginError::Command("spec.parameters.dynamic"));
        }
        Ok(Self {
            name: socket_name(&manifest.metadata.name, &spec.version)?,
            discovery: spec.discover.read()?,
            parameters: spec.parameters.r#static.into_iter().map(Announcement::into_message).collect(),
            preserve_file_mode: spec.preserve_file_mode,
            provide_git_creds: spec.provide_git_creds,
        })
    }
}

fn socket_name(name: &str, version: &str) -> Result<String, PluginError> {
    let full = if version.is_empty() { name.to_owned() } else { format!("{name}-{version}") };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || full.starts_with('.') || !full.chars().all(plain) {
        return Err(PluginError::Name(full));
    }
    Ok(full)
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    version: String,
    discover: Discover,
    parameters: Parameters,
    preserve_file_mode: bool,
    provide_git_creds: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Discover {
    file_name: String,
    find: Find,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Find {
    glob: String,
    command: Vec<String>,
}

impl Discover {
    /// The first of file name, glob and command that is there, as the stock server does it.
    fn read(&self) -> Result<Option<Discovery>, PluginError> {
        match [&self.file_name, &self.find.glob].into_iter().find(|pattern| !pattern.is_empty()) {
            Some(pattern) => Discovery::new(pattern).map(Some),
            None if self.find.command.is_empty() => Ok(None),
            None => Err(PluginError::Command("spec.discover.find")),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    r#static: Vec<Announcement>,
    dynamic: Option<Dynamic>,
}

#[derive(Deserialize)]
struct Dynamic {
    #[serde(default)]
    command: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Announcement {
    name: String,
    title: String,
    tooltip: String,
    required: bool,
    item_type: String,
    collection_type: String,
    string: String,
    array: Vec<String>,
    map: std::collections::HashMap<String, String>,
}

impl Announcement {
    fn into_message(self) -> ParameterAnnouncement {
        ParameterAnnouncement {
            name: self.name,
            title: self.title,
            tooltip: self.tooltip,
            required: self.required,
            item_type: self.item_type,
            collection_type: self.collection_type,
            string: self.string,
            array: self.array,
            map: self.map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::report;

    const HEAD: &str = "apiVersion: argoproj.io/v1alpha1\nkind: ConfigManagementPlugin\n";

    fn parse(rest: &str) -> Result<Plugin, PluginError> {
        Plugin::parse(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn the_stock_file_is_read() {
        let plugin = parse(
            "metadata: {name: vault}\nspec:\n  version: v1.0\n  init: {command: [sh]}\n  generate: {command: [sh]}\n  \
             discover: {fileName: './*.yaml', find: {command: [sh]}}\n  preserveFileMode: true\n  provideGitCreds: true\n  \
             parameters: {static: [{name: a, title: A, required: true, collectionType: map, map: {k: v}}]}",
        )
        .unwrap();
        assert_eq!(plugin.name, "vault-v1.0");
        assert!(plugin.preserve_file_mode && plugin.provide_git_creds);
        assert_eq!(plugin.parameters[0].title, "A");
        assert_eq!(plugin.parameters[0].map["k"], "v");
        let discovery = plugin.discovery.unwrap();
        assert!(discovery.matches(Path::new("a.yaml")) && !discovery.matches(Path::new("sub/a.yaml")));
    }

    #[test]
    fn globs_mean_what_they_mean_to_the_stock_server() {
        let rows = [
            ("**/Chart.yaml", "Chart.yaml"),
            ("**/Chart.yaml", "a/b/Chart.yaml"),
            ("charts/*/x?", "charts/a/x1"),
        ];
        for (pattern, path) in rows {
            let plugin =
                parse(&format!("metadata: {{name: a}}\nspec: {{discover: {{find: {{glob: '{pattern}'}}}}}}"))
                    .unwrap();
            assert!(plugin.discovery.unwrap().matches(Path::new(path)), "{pattern} {path}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_reason() {
        let rows = [
            ("metadata: {}", "plugin.yaml's name and version make \"\", which cannot name a socket"),
            ("metadata: {name: a/b}", "plugin.yaml's name and version make \"a/b\""),
            (
                "metadata: {name: a}\nspec: {discover: {find: {command: [sh]}}}",
                "plugin.yaml has a command in spec.discover.find, ",
            ),
            (
                "metadata: {name: a}\nspec: {parameters: {dynamic: {command: [sh]}}}",
                "plugin.yaml has a command in spec.parameters.dynamic, ",
            ),
            (
                "metadata: {name: a}\nspec: {discover: {fileName: '[a'}}",
                "plugin.yaml's discovery pattern does not parse: ",
            ),
            ("metadata: [", "plugin.yaml does not parse: "),
        ];
        for (rest, expected) in rows {
            let error = parse(rest).unwrap_err();
            assert!(report(&error).starts_with(expected), "{}", report(&error));
            assert_eq!(error.class(), Class::Invalid);
        }
        assert!(report(&Plugin::parse("kind: Pod").unwrap_err()).starts_with("plugin.yaml has kind \"Pod\""));
    }

    #[test]
    fn without_a_file_the_built_in_plugin_is_served() {
        let plugin = Plugin::read(Path::new("/nonexistent/plugin.yaml")).unwrap();
        assert_eq!((plugin.name.as_str(), plugin.discovery.is_none()), ("strongroom", true));
    }
}
