//! One render: from a plan to finished manifests.
//!
//! Value sources are opened, their references resolved, helm is run on the result, and what helm printed is checked.
//! Plaintext passes through memory only. A render either gives everything or an error.

pub mod cache;
pub mod check;
pub mod defaults;
pub mod explain;
pub mod helm;
pub mod leaks;
pub mod manifests;
pub mod mask;
pub mod output;
pub mod overrides;
pub mod parameters;
pub mod plan;
pub mod repository;
pub mod set;
pub mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chart::{self, Chart, ChartError, Contents};
use crate::confine::{self, ConfineError};
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::observe::{Observer, Stage};
use crate::redact::Redactor;
use crate::render::check::{Allow, CheckError};
use crate::render::explain::{ExplainError, Explanation};
use crate::render::helm::{Helm, HelmCall, HelmError};
use crate::render::parameters::FILE_NAME;
use crate::render::plan::{Base, Plan, PlanError, ValueFile, ValueSource};
use crate::render::set::{SetError, Sets};
use crate::render::values::{Defaults, Opener, ReferencesError, Resolved, Values, ValuesError};
use crate::scope::Scope;
use crate::secret::Secret;

/// A settings file has no reason to be larger, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// What renders, and keeps what is worth keeping from one render to the next.
#[derive(Debug)]
pub struct Renderer {
    /// Opens value sources.
    pub opener: Opener,
    /// Renders templates.
    pub helm: Arc<dyn Helm>,
    /// How long one render may take where nobody says otherwise.
    pub timeout: Duration,
}

/// A finished render.
#[derive(Debug)]
pub struct Rendered {
    /// The manifests: helm's output, byte for byte.
    pub manifests: Secret<String>,
    /// Every secret that was opened on the way, for masking.
    pub opened: Vec<Secret<String>>,
    /// References that are meant to be text; sorted.
    literals: Vec<Secret<String>>,
}

/// One app cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[error("render {}", if app.is_empty() { "an app without a name".to_owned() } else { format!("app {app:?}") })]
pub struct AppError {
    app: String,
    source: RenderError,
}

impl AppError {
    /// `source` happened to `app`.
    pub fn new(app: impl Into<String>, source: RenderError) -> Self {
        Self { app: app.into(), source }
    }
}

impl Fault for AppError {
    fn class(&self) -> Class {
        self.source.class()
    }
}

/// Why a render failed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The app's own settings file cannot be read.
    #[error(transparent)]
    Settings(ConfineError),
    /// The settings file is not text.
    #[error("{FILE_NAME} is not UTF-8")]
    SettingsText,
    /// The settings do not make a plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The app directory holds nothing to render, or something unfit.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// Values were given to a directory of manifests.
    #[error("values are given, but the app directory has no Chart.yaml")]
    ValuesWithoutChart,
    /// A value source does not open.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// References do not resolve.
    #[error(transparent)]
    References(#[from] ReferencesError),
    /// A single value is malformed.
    #[error("set values")]
    Set(#[from] SetError),
    /// Helm did not render the chart.
    #[error(transparent)]
    Helm(#[from] HelmError),
    /// The result cannot be let out.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The values have no origin to tell.
    #[error(transparent)]
    Explain(#[from] ExplainError),
}

impl Fault for RenderError {
    fn class(&self) -> Class {
        match self {
            Self::Settings(error) => error.class(),
            Self::SettingsText | Self::ValuesWithoutChart => Class::Invalid,
            Self::Plan(error) => error.class(),
            Self::Chart(error) => error.class(),
            Self::Values(error) => error.class(),
            Self::References(error) => error.class(),
            Self::Set(error) => error.class(),
            Self::Helm(error) => error.class(),
            Self::Check(error) => error.class(),
            Self::Explain(error) => error.class(),
        }
    }
}

impl Renderer {
    /// When a render that begins now has to be done.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Renders the app in `app_dir` of the repository at `root` (both absolute, without symlinks) as Argo CD asks in
    /// `environment`, and tells `observer`.
    pub async fn render_app(
        &self,
        environment: &Environment,
        root: &Path,
        app_dir: &Path,
        deadline: Instant,
        observer: Observer,
    ) -> Result<Rendered, AppError> {
        let app = plan::who(environment).app;
        let render = async {
            let (plan, scope) = plan_app(environment, root, app_dir, deadline, observer)?;
            self.render(&plan, &scope).await
        };
        render.await.map_err(|source| AppError::new(app, source))
    }

    /// Renders a plan inside of `scope`, which names a repository and a directory.
    pub async fn render(&self, plan: &Plan, scope: &Scope) -> Result<Rendered, RenderError> {
        let (root, directory) = bounds(scope);
        let contents = scope.observer.step(Stage::Plan, || {
            let contents = chart::classify(root, directory)?;
            if let Contents::Chart(chart) = &contents {
                chart.confine(root)?;
            }
            Ok::<_, RenderError>(contents)
        })?;
        let mut rendered = match contents {
            Contents::Chart(chart) => self.render_chart(plan, &chart, scope).await?,
            Contents::Manifests(_) if plan.has_values() => {
                return Err(RenderError::ValuesWithoutChart);
            }
            Contents::Manifests(files) => self.render_manifests(&files, scope).await?,
        };
        if plan.resolve_manifests {
            let resolving = self.resolve_output(rendered, scope);
            rendered = scope.observer.stage(Stage::Resolve, resolving).await?;
        }
        let allow = Allow {
            empty: plan.allow_empty,
            unresolved: plan.allow_unresolved,
            literals: &rendered.literals,
        };
        let checked = scope.observer.step(Stage::Check, || check::check(rendered.manifests.expose(), allow));
        checked.map_err(|error| error.redacted(&Redactor::new(&rendered.opened)))?;
        Ok(rendered)
    }

    async fn render_chart(&self, plan: &Plan, chart: &Chart, scope: &Scope) -> Result<Rendered, RenderError> {
        let observer = &scope.observer;
        let (documents, sets) = observer.stage(Stage::Open, self.open(plan, scope)).await?;
        let defaults = self.opener.open_defaults(scope);
        let resolving = self.resolve(plan, chart, (defaults, documents, sets), scope);
        let (call, Resolved { opened, literals }) = observer.stage(Stage::Resolve, resolving).await?;
        let manifests = observer.stage(Stage::Helm, self.helm.template(&call)).await?;
        Ok(Rendered { manifests, opened, literals })
    }

    /// What helm is asked for `chart` once the references are resolved, and what was opened for it.
    async fn resolve(
        &self,
        plan: &Plan,
        chart: &Chart,
        (defaults, mut documents, mut sets): (Vec<Defaults>, Vec<Values>, Sets),
        scope: &Scope,
    ) -> Result<(HelmCall, Resolved), RenderError> {
        let mut resolved = self.opener.resolve(defaults, &mut documents, &mut sets, scope).await?;
        resolved.opened.extend(documents.iter_mut().flat_map(|values| std::mem::take(&mut values.opened)));
        let call = HelmCall {
            chart: chart.directory.clone(),
            repository: bounds(scope).0.to_owned(),
            release_name: plan.release_name.clone(),
            namespace: plan.namespace.clone(),
            kube_version: plan.kube_version.clone(),
            api_versions: plan.api_versions.clone(),
            include_crds: plan.include_crds,
            skip_tests: plan.skip_tests,
            skip_schema_validation: plan.skip_schema_validation,
            values: documents
                .into_iter()
                .map(|Values { name, text, .. }| helm::Values { name, text })
                .collect(),
            sets,
            deadline: scope.deadline.unwrap_or_else(|| self.deadline()),
            redactor: Redactor::new(&resolved.opened),
        };
        Ok((call, resolved))
    }

    /// Where each final value of the chart comes from. Errors and places call what is set one by one `single`.
    pub async fn explain(
        &self,
        plan: &Plan,
        scope: &Scope,
        single: &'static str,
    ) -> Result<Explanation, RenderError> {
        let (root, directory) = bounds(scope);
        let observer = &scope.observer;
        let Contents::Chart(chart) = observer.step(Stage::Plan, || chart::classify(root, directory))? else {
            return Err(ExplainError::NoChart.into());
        };
        chart.confine(root)?;
        let sources = self.opener.read_all(&plan.values, scope)?;
        let opening =
            async { Ok((self.opener.open_all(&sources, scope).await?, self.sets(plan, scope).await?)) };
        let (documents, sets) = observer.stage::<Result<_, RenderError>>(Stage::Open, opening).await?;
        documents.iter().try_for_each(Values::require_mapping)?;
        let defaults = self.opener.open_defaults(scope);
        let charts = values::charts(scope);
        let mut layers = explain::layers(&charts, sources.iter().zip(&documents), &sets, single)?;
        let folder = explain::folder(&chart)?;
        let bare = Chart { directory: folder.path().to_owned(), ..chart };
        let resolving = self.resolve(plan, &bare, (defaults, documents, sets), scope);
        let (call, _) = observer.stage(Stage::Resolve, resolving).await?;
        explain::resolved(&mut layers, &call.values)?;
        let printed = observer.stage(Stage::Helm, self.helm.template(&call)).await?;
        let values = explain::explain(&bare, &printed, &layers)?;
        Ok(Explanation { values, opened: call.redactor })
    }

    /// The render with the references resolved that templates built.
    async fn resolve_output(&self, rendered: Rendered, scope: &Scope) -> Result<Rendered, RenderError> {
        let Rendered { manifests, opened, literals } = rendered;
        let mut all = Resolved { opened, literals };
        let (manifests, more) = manifests::resolve(&self.opener.resolver, &manifests, &all, scope).await?;
        all.extend(more);
        Ok(Rendered { manifests, opened: all.opened, literals: all.literals })
    }

    /// The value documents and single values of a plan, opened, their references not yet resolved.
    async fn open(&self, plan: &Plan, scope: &Scope) -> Result<(Vec<Values>, Sets), RenderError> {
        let documents = self.opener.open(&plan.values, scope).await?;
        documents.iter().try_for_each(Values::require_mapping)?;
        Ok((documents, self.sets(plan, scope).await?))
    }

    async fn sets(&self, plan: &Plan, scope: &Scope) -> Result<Sets, RenderError> {
        let mut flags = plan.sets.clone();
        flags.file.extend(self.opener.open_contents(&plan.set_files, scope).await?);
        Ok(Sets::parse(&flags)?)
    }

    /// Manifests as they are, opened and resolved, in one stream.
    async fn render_manifests(&self, files: &[PathBuf], scope: &Scope) -> Result<Rendered, RenderError> {
        let (root, directory) = bounds(scope);
        let source = |file: &PathBuf| {
            let path = match file.strip_prefix(directory) {
                Ok(path) => path.display().to_string(),
                // A link led elsewhere in the repository.
                Err(_) => format!("/{}", file.strip_prefix(root).unwrap_or(file).display()),
            };
            ValueSource::File(ValueFile {
                spelled: path.clone(),
                path,
                optional: false,
                key: None,
                base: Base::App,
            })
        };
        let sources: Vec<_> = files.iter().map(source).collect();
        let observer = &scope.observer;
        let mut documents = observer.stage(Stage::Open, self.opener.open(&sources, scope)).await?;
        let resolving = self.opener.resolve_each(&mut documents, scope);
        let Resolved { mut opened, literals } = observer.stage(Stage::Resolve, resolving).await?;
        let mut manifests = Secret::<String>::default();
        for document in &mut documents {
            opened.append(&mut document.opened);
            append(&mut manifests, document);
        }
        Ok(Rendered { manifests, opened, literals })
    }
}

/// What Argo CD asks for the app in `app_dir` of the repository at `root`, and the bounds of its render.
pub fn plan_app(
    environment: &Environment,
    root: &Path,
    app_dir: &Path,
    deadline: Instant,
    observer: Observer,
) -> Result<(Plan, Scope), RenderError> {
    let scope = Scope {
        who: plan::who(environment),
        repository: Some(root.to_owned()),
        directory: Some(app_dir.to_owned()),
        deadline: Some(deadline),
        observer,
        ..Scope::default()
    };
    let plan = scope.observer.step(Stage::Plan, || {
        let settings = settings(root, app_dir)?;
        Ok::<_, RenderError>(Plan::from_argocd(environment, settings.as_deref())?)
    })?;
    Ok((plan, scope))
}

fn append(manifests: &mut Secret<String>, document: &Values) {
    let text = document.text.expose();
    let all = manifests.expose_mut();
    all.push_str("---\n# Source: ");
    all.push_str(&document.name);
    all.push('\n');
    all.push_str(text.strip_prefix("---\n").unwrap_or(text));
    if !text.ends_with('\n') {
        all.push('\n');
    }
}

/// A render always has both; a scope without them holds no file.
fn bounds(scope: &Scope) -> (&Path, &Path) {
    let nowhere = Path::new("/nonexistent");
    (scope.repository.as_deref().unwrap_or(nowhere), scope.directory.as_deref().unwrap_or(nowhere))
}

/// The text of the app's settings file, where there is one.
fn settings(root: &Path, app_dir: &Path) -> Result<Option<String>, RenderError> {
    let path = match confine::resolve(root, app_dir, FILE_NAME) {
        Ok(path) => path,
        Err(error) if error.class() == Class::NotFound => return Ok(None),
        Err(error) => return Err(RenderError::Settings(error)),
    };
    let bytes = confine::read(&path, FILE_NAME, MAX_SETTINGS).map_err(RenderError::Settings)?;
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| RenderError::SettingsText)?;
    Ok(Some(text.to_owned()))
}
