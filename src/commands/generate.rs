//! `strongroom generate`: the command contract of an Argo CD Config Management Plugin.

use std::path::Path;

use crate::commands::{Failure, directory};
use crate::config::Generate;
use crate::environment::Environment;
use crate::render::{Renderer, repository};
use crate::secret::Secret;

/// Renders the app in the current directory.
pub(super) async fn run(
    args: &Generate,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    let app_dir = directory(Path::new("."))?;
    let root = match &args.repository {
        Some(root) => directory(root)?,
        None => repository::root_of(&app_dir, environment.get("ARGOCD_APP_SOURCE_PATH").map(Path::new))
            .unwrap_or_else(|| app_dir.clone()),
    };
    let rendered = renderer.render_app(environment, &root, &app_dir, renderer.deadline()).await?;
    Ok(Secret::new(rendered.manifests.expose().as_bytes().to_vec()))
}
