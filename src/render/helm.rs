//! The call of the real `helm template`, behind a seam.
//!
//! Helm gets values as memory files, an environment without anything of ours, homes that cannot exist, and no
//! plugins. Its messages are cut, cleaned of paths that mean nothing to a reader, and redacted. It never gets a secret
//! in its arguments, and nothing it prints on failure is used but the message. Helm 3.14 and newer and helm 4 are known
//! to work; an older one is refused by a flag it does not know, which costs nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures::future::BoxFuture;

use crate::fault::{Class, Fault};
use crate::process::{MemoryFile, MemoryFileError, Output, ProcessError, Program};
use crate::redact::Redactor;
use crate::render::set::{SetError, Sets};
use crate::sandbox::Reach;
use crate::secret::Secret;

/// Manifests beyond this are an error.
const STDOUT_LIMIT: usize = 256 << 20;
/// Longer messages are not shown at all, because a secret that is cut in two could not be found.
const STDERR_LIMIT: usize = 256 << 10;
/// What is shown of a message.
const MESSAGE_LIMIT: usize = 4 << 10;

/// Where helm looks for its and the user's files: a place that does not exist and that nobody can make.
#[cfg(target_os = "linux")]
const NOWHERE: &str = "/proc/self/strongroom";
#[cfg(not(target_os = "linux"))]
const NOWHERE: &str = "/var/empty/strongroom";

/// Every variable by which helm or the libraries in it look for files.
const HOMES: &[&str] = &[
    "HELM_CACHE_HOME",
    "HELM_CONFIG_HOME",
    "HELM_DATA_HOME",
    "HELM_PLUGINS",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// New in helm 3.14, and without meaning for `template`.
const NEWEST_FLAG: &str = "--qps";

/// A document of values, and what messages call it.
#[derive(Clone, Debug)]
pub struct Values {
    /// The path of the value file, or the name of the parameter.
    pub name: String,
    /// YAML, with everything opened.
    pub text: Secret<String>,
}

/// One call of `helm template`.
#[derive(Clone, Debug)]
pub struct HelmCall {
    /// The chart; checked by [`crate::chart::Chart::confine`] before.
    pub chart: PathBuf,
    /// What helm may read, where it is confined: the repository of the chart.
    pub repository: PathBuf,
    /// Name of the release.
    pub release_name: String,
    /// Namespace of the release; `default` when there is none.
    pub namespace: Option<String>,
    /// `.Capabilities.KubeVersion`.
    pub kube_version: Option<String>,
    /// `.Capabilities.APIVersions`.
    pub api_versions: Vec<String>,
    /// In helm's order: later ones win.
    pub values: Vec<Values>,
    /// Values given one by one; they win over `values`.
    pub sets: Sets,
    /// Render the chart's `crds/` too.
    pub include_crds: bool,
    /// Leave test hooks out.
    pub skip_tests: bool,
    /// Do not check the values against the chart's schema.
    pub skip_schema_validation: bool,
    /// When helm is ended.
    pub deadline: Instant,
    /// Knows what was opened for this call, so that helm's messages do not show it.
    pub redactor: Redactor,
}

/// Helm, or something in its place in a test.
pub trait Helm: std::fmt::Debug + Send + Sync {
    /// The manifests that helm prints.
    fn template<'a>(&'a self, call: &'a HelmCall) -> BoxFuture<'a, Result<Secret<String>, HelmError>>;

    /// What it says its version is, such as `v3.18.0+gcc58e3f`.
    fn version(&self, deadline: Instant) -> BoxFuture<'_, Result<String, HelmError>>;
}

/// Why there are no manifests.
#[derive(Debug, thiserror::Error)]
pub enum HelmError {
    /// No helm.
    #[error("{} not found\nhelp: install helm 3.14 or newer, or set STRONGROOM_HELM to its path", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Older than 3.14.
    #[error("{} is {version}, which is too old\nhelp: strongroom works with helm 3.14 or newer and helm 4", .path.display())]
    TooOld {
        /// Path of helm.
        path: PathBuf,
        /// As it says itself.
        version: String,
    },
    /// It did not run to its end.
    #[error("run helm{}", advice(.0))]
    Run(#[from] ProcessError),
    /// The values could not be handed over.
    #[error("hand values to helm")]
    Memory(#[from] MemoryFileError),
    /// Values given one by one are wrong.
    #[error("set values")]
    Set(#[from] SetError),
    /// Dependencies are not in `charts/`.
    #[error(
        "the chart's dependencies are not in its charts/ directory: {names}\n\
         help: run `helm dependency build` and commit charts/"
    )]
    Dependencies {
        /// As helm lists them.
        names: String,
    },
    /// Helm says no.
    #[error("render the chart with helm: {message}")]
    Failed {
        /// Its message, cut, cleaned and redacted.
        message: String,
    },
    /// Helm is to load a schema, and has no network.
    #[error(
        "render the chart with helm: {message}\n\
         help: helm has no network under `serve`: copy what the schema refers to into its $defs and write #/$defs/…, set \
         skipSchemaValidation, or let the operator set STRONGROOM_UNCONFINED_HELM=true"
    )]
    RemoteSchema {
        /// Its message, cut, cleaned and redacted.
        message: String,
    },
    /// Helm does not know a flag.
    #[error("{} ({version}): {message}\nhelp: use a newer helm", .path.display())]
    Flag {
        /// Path of helm.
        path: PathBuf,
        /// As it says itself.
        version: String,
        /// Names the flag.
        message: String,
    },
    /// Not text.
    #[error("helm's output is not UTF-8")]
    NotText,
}

impl Fault for HelmError {
    fn class(&self) -> Class {
        match self {
            Self::Missing { .. } | Self::TooOld { .. } | Self::Flag { .. } => Class::Internal,
            Self::Run(error) => error.class(),
            Self::Memory(error) => error.class(),
            Self::Set(error) => error.class(),
            Self::Dependencies { .. } | Self::Failed { .. } | Self::RemoteSchema { .. } | Self::NotText => {
                Class::Invalid
            }
        }
    }
}

fn advice(error: &ProcessError) -> &'static str {
    match error {
        ProcessError::TimedOut { .. } => {
            "\nhelp: the operator gives renders more time with STRONGROOM_TIMEOUT"
        }
        _ => "",
    }
}

/// The real helm.
#[derive(Clone, Debug)]
pub struct HelmCli {
    /// Path of the executable.
    pub path: PathBuf,
    /// Soft bound on helm's heap, as `GOMEMLIMIT` takes it: `1GiB`.
    pub memory_limit: String,
    /// Whether helm may read nothing but the chart's repository and the system's programs and libraries, and write
    /// nothing, where the kernel enforces it.
    pub confined: bool,
}

impl Helm for HelmCli {
    fn template<'a>(&'a self, call: &'a HelmCall) -> BoxFuture<'a, Result<Secret<String>, HelmError>> {
        Box::pin(self.render(call))
    }

    fn version(&self, deadline: Instant) -> BoxFuture<'_, Result<String, HelmError>> {
        Box::pin(self.ask_version(deadline))
    }
}

impl HelmCli {
    async fn ask_version(&self, deadline: Instant) -> Result<String, HelmError> {
        let args = vec!["version".into(), "--short".into()];
        let output = self.run(args, Vec::new(), PathBuf::from("/"), None, deadline).await?;
        let text =
            String::from_utf8_lossy(output.stdout.expose()).trim().chars().take(64).collect::<String>();
        Ok(if text.is_empty() { "an unknown version".to_owned() } else { text })
    }

    async fn render(&self, call: &HelmCall) -> Result<Secret<String>, HelmError> {
        let Arguments { args, files, names } = arguments(call)?;
        let repository = Some(&*call.repository);
        let output = self.run(args, files, call.chart.clone(), repository, call.deadline).await?;
        if output.code != 0 {
            let message = message(&output, call, &names);
            return Err(self.explain(message, call.deadline).await);
        }
        if !output.stderr.expose().is_empty() && tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(helm = message(&output, call, &names), "helm wrote messages");
        }
        into_text(output.stdout).ok_or(HelmError::NotText)
    }

    async fn run(
        &self,
        args: Vec<OsString>,
        files: Vec<MemoryFile>,
        directory: PathBuf,
        repository: Option<&Path>,
        deadline: Instant,
    ) -> Result<Output, HelmError> {
        let program = Program {
            path: self.path.clone(),
            args,
            env: self.environment(),
            directory,
            stdin: None,
            files,
            reach: self.reach(repository),
            deadline,
            stdout_limit: STDOUT_LIMIT,
            stderr_limit: STDERR_LIMIT,
        };
        program.run().await.map_err(|error| match error {
            ProcessError::NotFound { program: path } => HelmError::Missing { path },
            other => HelmError::Run(other),
        })
    }

    fn reach(&self, repository: Option<&Path>) -> Option<Reach> {
        let reach = || repository.map(Path::to_owned).into_iter().chain([self.path.clone()]).collect();
        self.confined.then(|| Reach(reach()))
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let homes = HOMES.iter().map(|name| (OsString::from(name), OsString::from(NOWHERE)));
        // Helm lives too shortly for its garbage collector to be worth its time.
        let go = [("GOGC", "400"), ("GOMEMLIMIT", &*self.memory_limit), ("HELM_NO_PLUGINS", "1")];
        homes.chain(go.map(|(name, value)| (name.into(), value.into()))).collect()
    }

    /// The reason behind helm's message.
    async fn explain(&self, message: String, deadline: Instant) -> HelmError {
        if let Some((_, names)) = message.split_once("missing in charts/ directory: ") {
            return HelmError::Dependencies { names: names.lines().next().unwrap_or_default().to_owned() };
        }
        if self.confined && message.contains(REMOTE_SCHEMA) {
            return HelmError::RemoteSchema { message };
        }
        if !message.starts_with("unknown flag: ") {
            return HelmError::Failed { message };
        }
        let version = self.ask_version(deadline).await.unwrap_or_else(|_| "an unknown version".to_owned());
        let path = self.path.clone();
        if message.contains(NEWEST_FLAG) {
            HelmError::TooOld { path, version }
        } else {
            HelmError::Flag { path, version, message }
        }
    }
}

/// How helm says which schema it cannot load.
const REMOTE_SCHEMA: &str = "failing loading \"https://";

/// What helm is started with.
struct Arguments {
    args: Vec<OsString>,
    files: Vec<MemoryFile>,
    /// Paths of memory files, and what messages call them.
    names: Vec<(String, String)>,
}

impl Arguments {
    fn push(&mut self, flag: &str, value: &str) {
        self.args.push(format!("{flag}={value}").into());
    }

    /// A memory file with `content`; its path.
    fn file(&mut self, name: &str, content: &[u8]) -> Result<String, MemoryFileError> {
        let file = MemoryFile::new(content)?;
        let path = file.path();
        self.names.push((path.clone(), name.to_owned()));
        self.files.push(file);
        Ok(path)
    }
}

fn arguments(call: &HelmCall) -> Result<Arguments, HelmError> {
    let mut all = Arguments { args: vec!["template".into()], files: Vec::new(), names: Vec::new() };
    all.push(NEWEST_FLAG, "100");
    for (flag, value) in [("--namespace", &call.namespace), ("--kube-version", &call.kube_version)] {
        if let Some(value) = value {
            all.push(flag, value);
        }
    }
    for values in &call.values {
        let path = all.file(&values.name, values.text.expose().as_bytes())?;
        all.push("--values", &path);
    }
    let sets = call.sets.render()?;
    for document in &sets.documents {
        let path = all.file("parameters", document.expose().as_bytes())?;
        all.push("--values", &path);
    }
    for (flag, value) in &sets.flags {
        all.push(flag, value);
    }
    for (key, content) in &sets.files {
        let path = all.file(key, content.expose())?;
        all.push("--set-file", &format!("{key}={path}"));
    }
    for version in &call.api_versions {
        all.push("--api-versions", version);
    }
    for (flag, given) in [
        ("--include-crds", call.include_crds),
        ("--skip-tests", call.skip_tests),
        ("--skip-schema-validation", call.skip_schema_validation),
    ] {
        if given {
            all.args.push(flag.into());
        }
    }
    // After `--` no name can be taken for a flag. Not `--name-template`, which would execute what it is given.
    all.args.extend(["--".into(), OsString::from(&call.release_name), ".".into()]);
    Ok(all)
}

/// Helm's message as a person may see it.
fn message(output: &Output, call: &HelmCall, names: &[(String, String)]) -> String {
    if output.stderr_cut {
        return format!("a message of more than {} KiB, which is not shown", STDERR_LIMIT >> 10);
    }
    let text = output.stderr.expose();
    if output.code != 0 && text.trim().is_empty() {
        return format!("it failed with exit code {} and said nothing", output.code);
    }
    let start = text.find("Error: ").filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    let text = start.map_or(text.as_str(), |at| &text[at + "Error: ".len()..]);
    let text = text.replace("\n\nUse --debug flag to render out invalid YAML", "");
    let clean = call.redactor.redact(&named(&text, call, names));
    cut(clean.trim())
}

/// `text` with the names a reader knows in place of our paths.
fn named(text: &str, call: &HelmCall, names: &[(String, String)]) -> String {
    // The longest first, because fd/1 begins fd/12.
    let mut names: Vec<_> = names.iter().collect();
    names.sort_unstable_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    let mut text = text.to_owned();
    for (path, name) in names {
        text = text.replace(path.as_str(), name);
    }
    let chart = call.chart.display().to_string();
    text.replace(&format!("{chart}/"), "").replace(&chart, ".")
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_LIMIT);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

/// The same bytes as text, without a copy that nobody wipes.
fn into_text(mut bytes: Secret<Vec<u8>>) -> Option<Secret<String>> {
    String::from_utf8(std::mem::take(bytes.expose_mut()))
        .map(Secret::new)
        .map_err(|error| drop(Secret::new(error.into_bytes())))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::fault::report;
    use crate::render::set::Flags;

    /// A chart directory whose file `template` is what `sh template …`, in place of helm, runs.
    struct Fake {
        directory: TempDir,
        call: HelmCall,
    }

    impl Fake {
        fn new(script: &str) -> Self {
            let directory = TempDir::new().unwrap();
            std::fs::write(directory.path().join("template"), script).unwrap();
            let call = HelmCall {
                repository: PathBuf::from("/"),
                chart: directory.path().to_owned(),
                release_name: "hello".to_owned(),
                namespace: Some("apps".to_owned()),
                kube_version: None,
                api_versions: vec!["v1".to_owned(), "apps/v1".to_owned()],
                values: vec![values("a.yaml", "a: STRONGROOM-MARKER\n"), values("values", "b: 1\n")],
                sets: Sets::default(),
                include_crds: true,
                skip_tests: false,
                skip_schema_validation: false,
                deadline: Instant::now() + Duration::from_secs(20),
                redactor: Redactor::new(&[Secret::new("STRONGROOM-MARKER".to_owned())]),
            };
            Self { directory, call }
        }

        async fn run(&self) -> Result<String, String> {
            let helm = HelmCli { path: "/bin/sh".into(), memory_limit: "1GiB".to_owned(), confined: false };
            let result = helm.template(&self.call).await;
            result.map(|text| text.expose().clone()).map_err(|error| report(&error))
        }
    }

    fn values(name: &str, text: &str) -> Values {
        Values { name: name.to_owned(), text: Secret::new(text.to_owned()) }
    }

    #[tokio::test]
    async fn helm_gets_values_in_files_and_nothing_else_of_ours() {
        let script =
            r#"for a in "$@"; do case $a in --values=*) cat "${a#--values=}";; esac; done; /usr/bin/env"#;
        let text = Fake::new(script).run().await.unwrap();
        let (values, environment) = text.split_at("a: STRONGROOM-MARKER\nb: 1\n".len());
        assert_eq!(values, "a: STRONGROOM-MARKER\nb: 1\n");
        let shells = ["PWD", "OLDPWD", "_", "SHLVL", "GOGC", "GOMEMLIMIT", "HELM_NO_PLUGINS"];
        for line in environment.lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert!(shells.contains(&name) || (HOMES.contains(&name) && value == NOWHERE), "{line}");
        }
        assert!(environment.contains("GOGC=400\n") && environment.contains("GOMEMLIMIT=1GiB\n"));
    }

    #[tokio::test]
    async fn arguments_hold_no_value() {
        let mut fake = Fake::new(r#"for a in "$@"; do echo "$a"; done"#);
        let mut flags = Flags::default();
        flags.parameter("password", "STRONGROOM-MARKER", false);
        flags.parameter("list[0]", "STRONGROOM-MARKER", false);
        flags.parameter("n", "5", false);
        fake.call.sets = Sets::parse(&flags).unwrap();
        let text = fake.run().await.unwrap();
        let clean = regex::Regex::new("/fd/[0-9]+").unwrap().replace_all(&text, "/fd/N").replace('\n', " ");
        let file = "/proc/self/fd/N";
        assert_eq!(
            clean,
            format!(
                "--qps=100 --namespace=apps --values={file} --values={file} --values={file} --set=n=5 \
                 --set-file=list[0]={file} --api-versions=v1 --api-versions=apps/v1 --include-crds -- hello . "
            )
        );
    }

    #[tokio::test]
    async fn messages_name_value_files_and_hide_secrets() {
        let script = r#"
            for a in "$@"; do case $a in --values=*) f="${a#--values=}"; break;; esac; done
            echo "level=WARN STRONGROOM-MARKER" >&2
            echo "Error: failed to parse $f: near \"STRONGROOM-MARKER\" in $PWD/templates/a.yaml" >&2
            echo >&2; echo "Use --debug flag to render out invalid YAML" >&2
            echo "password: STRONGROOM-MARKER"; exit 1"#;
        assert_eq!(
            Fake::new(script).run().await.unwrap_err(),
            "render the chart with helm: failed to parse a.yaml: near \"<redacted>\" in templates/a.yaml"
        );
    }

    #[tokio::test]
    async fn long_messages_are_cut_and_endless_ones_are_not_shown() {
        let long =
            Fake::new("echo 'Error: bad' >&2; head -c 200000 /dev/zero | tr '\\0' x >&2; exit 1").run().await;
        let long = long.unwrap_err();
        assert!(long.starts_with("render the chart with helm: bad\nxxx") && long.ends_with("x…"), "{long}");
        assert_eq!(long.len(), "render the chart with helm: ".len() + MESSAGE_LIMIT + "…".len());
        let endless = Fake::new("head -c 300000 /dev/zero >&2; exit 1").run().await.unwrap_err();
        assert_eq!(endless, "render the chart with helm: a message of more than 256 KiB, which is not shown");
    }

    #[tokio::test]
    async fn known_failures_are_explained() {
        for (message, expected) in [
            (
                "unknown flag: --qps",
                "/bin/sh is an unknown version, which is too old\n\
                 help: strongroom works with helm 3.14 or newer and helm 4",
            ),
            (
                "unknown flag: --skip-schema-validation",
                "/bin/sh (an unknown version): unknown flag: --skip-schema-validation\nhelp: use a newer helm",
            ),
            (
                "An error occurred while checking for chart dependencies. You may need to run `helm dependency \
                 build` to fetch missing dependencies: found in Chart.yaml, but missing in charts/ directory: a, b",
                "the chart's dependencies are not in its charts/ directory: a, b\n\
                 help: run `helm dependency build` and commit charts/",
            ),
        ] {
            let script = format!("echo 'Error: {message}' >&2; exit 1");
            assert_eq!(Fake::new(&script).run().await.unwrap_err(), expected);
        }
    }

    #[tokio::test]
    async fn a_missing_silent_or_killed_helm_is_named() {
        let fake = Fake::new("kill -KILL $$");
        let missing =
            HelmCli { path: "/nowhere/helm".into(), memory_limit: "1GiB".to_owned(), confined: false };
        let error = missing.template(&fake.call).await.unwrap_err();
        assert_eq!(error.class(), Class::Internal);
        assert_eq!(
            error.to_string(),
            "/nowhere/helm not found\nhelp: install helm 3.14 or newer, or set STRONGROOM_HELM to its path"
        );
        assert_eq!(
            fake.run().await.unwrap_err(),
            "run helm: /bin/sh was killed by SIGKILL, which the kernel also sends when memory runs out"
        );
        let mut silent = Fake::new("sleep 86421");
        silent.call.deadline = Instant::now() + Duration::from_millis(100);
        let message = silent.run().await.unwrap_err();
        assert!(message.starts_with("run helm: /bin/sh was still running after 0."), "{message}");
        let left: Vec<_> = std::fs::read_dir(silent.directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[tokio::test]
    async fn output_that_is_not_text_is_refused() {
        let message = Fake::new("printf '\\377'").run().await.unwrap_err();
        assert_eq!(message, "helm's output is not UTF-8");
    }
}
