//! `strongroom template`: the same render from a terminal, secrets masked.

use std::path::{Path, PathBuf};

use crate::commands::{Failure, directory, input};
use crate::config::{Chart, Template, application};
use crate::document;
use crate::observe::Observer;
use crate::policy::Who;
use crate::redact::Redactor;
use crate::render::explain::Explanation;
use crate::render::plan::{self, Base, Plan, PlanError, ValueFile, ValueSource};
use crate::render::set::Flags;
use crate::render::{AppError, RenderError, Rendered, Renderer, mask, plan_app, repository};
use crate::scope::Scope;
use crate::secret::Secret;

/// Renders a chart by helm's flags, or an Application as the sidecar would.
pub(super) async fn run(
    args: &Template,
    renderer: &Renderer,
    observer: &Observer,
) -> Result<Secret<Vec<u8>>, Failure> {
    let mut output = Secret::<Vec<u8>>::default();
    for job in jobs(&args.chart, renderer, observer)? {
        let rendered = job.render(renderer).await?;
        let text = if args.reveal {
            rendered.manifests
        } else {
            mask::mask(rendered.manifests.expose(), &Redactor::new(&rendered.opened))?.into()
        };
        output.expose_mut().extend_from_slice(text.expose().as_bytes());
    }
    Ok(output)
}

/// One render that a person asks for.
pub(super) struct Job {
    /// The Application, where it is of one.
    app: Option<String>,
    /// What to render.
    pub(super) plan: Plan,
    /// Within which bounds.
    pub(super) scope: Scope,
}

impl Job {
    /// Renders it.
    pub(super) async fn render(&self, renderer: &Renderer) -> Result<Rendered, Failure> {
        renderer.render(&self.plan, &self.scope).await.map_err(|source| self.failed(source))
    }

    /// Says where its values come from.
    pub(super) async fn explain(&self, renderer: &Renderer) -> Result<Explanation, Failure> {
        let single = if self.app.is_some() { "parameters" } else { "--set" };
        renderer.explain(&self.plan, &self.scope, single).await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: RenderError) -> Failure {
        match &self.app {
            Some(app) => AppError::new(app, source).into(),
            None => source.into(),
        }
    }
}

/// A chart is one, an Application one for each of its sources.
pub(super) fn jobs(args: &Chart, renderer: &Renderer, observer: &Observer) -> Result<Vec<Job>, Failure> {
    if let Some(file) = &args.application {
        return application(args, file, renderer, observer);
    }
    let (Some(name), Some(chart)) = (&args.name, &args.chart) else {
        unreachable!("clap requires NAME and CHART without --application");
    };
    let chart = directory(chart)?;
    let scope = Scope {
        who: Who { app: name.clone(), ..Who::default() },
        repository: Some(root(args, &chart)?),
        directory: Some(chart),
        deadline: Some(renderer.deadline()),
        observer: observer.clone(),
        ..Scope::default()
    };
    Ok(vec![Job { app: None, plan: plan(args, name)?, scope }])
}

fn application(
    args: &Chart,
    file: &Path,
    renderer: &Renderer,
    observer: &Observer,
) -> Result<Vec<Job>, Failure> {
    let bytes = input(file)?;
    let doing = || format!("read {}", file.display());
    let text = document::text_of(bytes.expose()).map_err(|error| Failure::of(doing(), &error))?;
    let sources = application::sources(text).map_err(|error| Failure::of(doing(), &error))?;
    let root = if let Some(root) = &args.repository {
        directory(root)?
    } else {
        let here = directory(Path::new("."))?;
        repository::root_of(&here, None).unwrap_or(here)
    };
    let mut jobs = Vec::new();
    for source in sources {
        let app_dir = directory(&root.join(&source.path))?;
        let cluster = [("KUBE_VERSION", args.kube_version.clone()), ("KUBE_API_VERSIONS", versions(args))];
        let environment = source
            .environment
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .chain(cluster.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))))
            .collect();
        let app = plan::who(&environment).app;
        let planned = plan_app(&environment, &root, &app_dir, renderer.deadline(), observer.clone());
        let (plan, scope) = planned.map_err(|source| AppError::new(&app, source))?;
        jobs.push(Job { app: Some(app), plan, scope });
    }
    Ok(jobs)
}

fn versions(args: &Chart) -> Option<String> {
    (!args.api_versions.is_empty()).then(|| args.api_versions.join(","))
}

/// A person's own files may lie anywhere; what the chart itself reads stays in this directory.
fn root(args: &Chart, chart: &Path) -> Result<PathBuf, Failure> {
    match &args.repository {
        Some(root) => Ok(directory(root)?),
        None => Ok(repository::root_of(chart, None).unwrap_or_else(|| chart.to_owned())),
    }
}

fn plan(args: &Chart, name: &str) -> Result<Plan, PlanError> {
    let file = |spelled: &String| ValueFile::parse(spelled, false, Base::Terminal);
    let values = args.values.iter().map(|spelled| file(spelled).map(ValueSource::File));
    let set_file = |flag: &String| {
        let (path, spelled) = flag.split_once('=').ok_or_else(|| PlanError::Spelling {
            spelled: flag.clone(),
            reason: "is not of the form `PATH=FILE`",
        })?;
        Ok::<_, PlanError>((path.to_owned(), file(&spelled.to_owned())?))
    };
    let secrets = |flags: &[String]| flags.iter().cloned().map(Secret::new).collect();
    let sets = Flags {
        json: secrets(&args.set_json),
        set: secrets(&args.set),
        string: secrets(&args.set_string),
        literal: secrets(&args.set_literal),
        file: Vec::new(),
    };
    Ok(Plan {
        release_name: name.to_owned(),
        namespace: args.namespace.clone(),
        kube_version: args.kube_version.clone(),
        api_versions: args.api_versions.clone(),
        include_crds: args.include_crds,
        skip_tests: args.skip_tests,
        skip_schema_validation: args.skip_schema_validation,
        values: values.collect::<Result<_, _>>()?,
        sets,
        set_files: args.set_file.iter().map(set_file).collect::<Result<_, _>>()?,
        allow_empty: true,
        allow_unresolved: false,
        resolve_manifests: args.resolve_manifests,
    })
}
