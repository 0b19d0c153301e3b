//! A client that speaks to the sidecar as Argo CD's repo-server does: the Go module in `e2e/grpcgo`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Run;
use super::tools;

/// A call about the app in `app` of `repository`, to the plugin on `socket`.
pub fn grpc_go(socket: &Path, repository: &Path, app: &str) -> Run {
    Run::new(program()).arg("-socket").arg(socket).arg("-dir").arg(repository).args(["-app", app])
}

/// What a call says of the application, `NAME=VALUE` each: what Argo CD put into the environment of `generate`.
pub fn told(generate: Run) -> Vec<String> {
    let command = generate.into_command();
    let told = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    let told = told.filter(|(name, _)| name.starts_with("ARGOCD_") || name.starts_with("KUBE_"));
    told.map(|(name, value)| format!("{name}={value}")).collect()
}

/// Builds the client; only the first build takes its time.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("grpcgo");
    let built = Command::new(tools::on_path("go"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(tools::top().join("e2e/grpcgo"))
        .env("CGO_ENABLED", "0")
        .status()
        .unwrap();
    assert!(built.success(), "go build of e2e/grpcgo failed; its messages are above");
    program
}
