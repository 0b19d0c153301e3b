//! The real helm, to compare with.

use std::path::Path;

use super::process::Run;
use super::tools::tool;

/// The helms that the product works with: the newest of both majors, and the oldest.
pub const HELMS: [&str; 3] = ["helm", "helm3", "helm-min"];

/// `helm template` of the chart in `directory`, as Argo CD's own Helm source calls it for the application that
/// [`super::product::generate`] renders. Value flags are the caller's.
pub fn helm_template(helm: &str, directory: impl AsRef<Path>) -> Run {
    helm_bare(helm, directory)
        .args(["--namespace", "demo", "--kube-version", "1.33.0", "--include-crds"])
        .args(["--api-versions", "v1", "--api-versions", "apps/v1"])
}

/// `helm template hello .` in `directory`, with no other flag.
pub fn helm_bare(helm: &str, directory: impl AsRef<Path>) -> Run {
    Run::new(tool(helm)).env("HOME", "/nonexistent").directory(directory).args(["template", "hello", "."])
}
