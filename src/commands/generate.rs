//! `strongroom generate`: the command contract of an Argo CD Config Management Plugin.

use std::path::Path;

use crate::commands::{Failure, directory};
use crate::config::Generate;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::observe::Observer;
use crate::render::{Renderer, repository};
use crate::secret::Secret;

/// Renders the app in the current directory.
pub(super) async fn run(
    args: &Generate,
    renderer: &Renderer,
    environment: &Environment,
) -> Result<Secret<Vec<u8>>, Failure> {
    if is_hydrator(environment) && !args.allow_hydrator {
        return Err(HydratorError.into());
    }
    let app_dir = directory(Path::new("."))?;
    let root = match &args.repository {
        Some(root) => directory(root)?,
        None => repository::root_of(&app_dir, environment.get("ARGOCD_APP_SOURCE_PATH").map(Path::new))
            .unwrap_or_else(|| app_dir.clone()),
    };
    let deadline = renderer.deadline();
    let rendered = renderer.render_app(environment, &root, &app_dir, deadline, Observer::default()).await?;
    Ok(Secret::new(rendered.manifests.expose().as_bytes().to_vec()))
}

/// Argo CD's source hydrator would commit opened secrets to git.
#[derive(Debug, thiserror::Error)]
#[error(
    "render for the source hydrator, which commits opened secrets to git (KUBE_VERSION and KUBE_API_VERSIONS are both empty)\n\
     help: render this app without the hydrator, or set STRONGROOM_ALLOW_HYDRATOR"
)]
struct HydratorError;

impl Fault for HydratorError {
    fn class(&self) -> Class {
        Class::Denied
    }
}

/// Set but empty: the hydrator. Not set at all: a person or a script.
fn is_hydrator(environment: &Environment) -> bool {
    let empty = |name: &str| environment.get_raw(name).is_some_and(|value| value.is_empty());
    empty("KUBE_VERSION") && empty("KUBE_API_VERSIONS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_versions_are_the_hydrator_s() {
        let hydrator = [("KUBE_VERSION", ""), ("KUBE_API_VERSIONS", "")];
        assert!(is_hydrator(&hydrator.into_iter().collect()));
        let person: [(&str, &str); 0] = [];
        assert!(!is_hydrator(&person.into_iter().collect()));
        let controller = [("KUBE_VERSION", "1.36.0"), ("KUBE_API_VERSIONS", "")];
        assert!(!is_hydrator(&controller.into_iter().collect()));
    }
}
