//! The product as a user starts it.

use std::path::{Path, PathBuf};

use super::process::Run;
use super::repository::Repository;
use super::tools::tool;

/// The program that cargo built for these tests.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_strongroom"))
}

/// The static file that users get, built by `make build`.
pub fn shipped() -> PathBuf {
    let path = std::env::var_os("STRONGROOM_SHIPPED").map(PathBuf::from);
    path.filter(|path| path.exists()).expect("STRONGROOM_SHIPPED names no file\nhelp: run `make test`")
}

/// `strongroom …` with the default helm and nothing else in its environment.
pub fn strongroom() -> Run {
    strongroom_with_helm("helm")
}

/// `strongroom …` with one of the pinned helms.
pub fn strongroom_with_helm(helm: &str) -> Run {
    Run::new(program()).env("STRONGROOM_HELM", tool(helm))
}

/// `strongroom generate` as `argocd-cmp-server` runs it for application `hello` in namespace `demo`, whose source is
/// `directory` of `repository`.
pub fn generate(repository: &Repository, directory: impl AsRef<Path>) -> Run {
    generate_with(&program(), repository, directory)
}

/// As [`generate`], by another build of the product.
pub fn generate_with(program: &Path, repository: &Repository, directory: impl AsRef<Path>) -> Run {
    let directory = directory.as_ref();
    Run::new(program)
        .env("STRONGROOM_HELM", tool("helm"))
        .arg("generate")
        .directory(repository.path().join(directory))
        .env("ARGOCD_APP_NAME", "hello")
        .env("ARGOCD_APP_NAMESPACE", "demo")
        .env("ARGOCD_APP_PROJECT_NAME", "default")
        .env("ARGOCD_APP_SOURCE_REPO_URL", "https://git.example/team/apps.git")
        .env("ARGOCD_APP_SOURCE_PATH", directory)
        .env("ARGOCD_APP_SOURCE_TARGET_REVISION", "main")
        .env("ARGOCD_APP_REVISION", "0123456789abcdef0123456789abcdef01234567")
        .env("ARGOCD_APP_REVISION_SHORT", "0123456")
        .env("ARGOCD_APP_PARAMETERS", "null")
        .env("KUBE_VERSION", "1.33.0")
        .env("KUBE_API_VERSIONS", "v1,apps/v1")
}
