//! One render at a terminal's or Argo CD's command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::support::process::Run;
use super::support::product::{generate_with, shipped};
use super::support::repository::Repository;
use super::support::sops::sops;
use super::support::tools::{tool, top};
use super::table::{AtMost, Table, median, milliseconds, peak, time_each};

const ROUNDS: usize = 21;
const FILES: [&str; 3] = ["database", "mail", "session"];

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn render() {
    let mut table = Table::of_rounds(ROUNDS);
    let render = Render::new();
    table.compare(
        "`generate`, 3 age files, against `helm template` of the plaintext",
        &|| vec![render.strongroom()],
        &|| vec![render.helm()],
        AtMost(1.0),
    );
    table.compare(
        "the same, against `sops decrypt` per file and `helm template`",
        &|| vec![render.strongroom()],
        &|| render.sops_and_helm(),
        AtMost(0.5),
    );
    let version = median(&time_each(ROUNDS, &[&|| vec![version()]])[0]);
    table.note_bytes("size of the program", fs::metadata(shipped()).unwrap().len());
    table.note("`strongroom --version`", &format!("{:.1} ms, of 15 allowed", milliseconds(version)));
    table.note_bytes("peak memory of that `generate`, without helm", peak(render.strongroom()));
    table.note_bytes("peak memory of that `helm template`", peak(render.helm()));
    table.print();
    assert!(version <= Duration::from_millis(15), "--version took {version:?}");
    table.assert_kept();
}

/// The example, encrypted for us and sops, in plaintext for helm.
struct Render {
    repository: Repository,
    plain: tempfile::TempDir,
}

impl Render {
    fn new() -> Self {
        let repository = Repository::with_example("hello");
        // Helm alone cannot resolve references, so neither side has any.
        let values = fs::read_to_string(repository.path().join("app/values.yaml")).unwrap();
        repository.write("app/values.yaml", values.replace("ref+", "no-ref-"));
        let plain = tempfile::TempDir::new().unwrap();
        for name in FILES {
            let file = repository.path().join(format!("app/secrets/{name}.yaml"));
            let text = sops().env("SOPS_AGE_KEY_FILE", age_key()).arg("decrypt").arg(file).ok();
            fs::write(plain.path().join(format!("{name}.yaml")), text).unwrap();
        }
        Self { repository, plain }
    }

    fn strongroom(&self) -> Command {
        let files: Vec<_> = FILES.iter().map(|name| format!("secrets/{name}.yaml")).collect();
        let parameters = serde_json::json!([{"name": "valueFiles", "array": files}]);
        generate_with(&shipped(), &self.repository, "app")
            .env("STRONGROOM_KEYS_DIR", top().join("examples/keys"))
            .env("ARGOCD_APP_PARAMETERS", parameters.to_string())
            .into_command()
    }

    fn helm(&self) -> Command {
        let files = FILES.map(|name| self.plain.path().join(format!("{name}.yaml")));
        let chart = self.repository.path().join("app");
        Run::new(tool("helm"))
            .args(["template", "hello"])
            .arg(chart)
            .args(["--namespace", "demo", "--include-crds"])
            .args(["--kube-version", "1.33.0", "--api-versions", "v1", "--api-versions", "apps/v1"])
            .args(files.iter().flat_map(|file| [Path::new("--values"), file.as_path()]))
            .env("HOME", self.plain.path())
            .into_command()
    }

    /// What helm-secrets does at its core, without its shell.
    fn sops_and_helm(&self) -> Vec<Command> {
        let decrypt = |name: &&str| {
            let from = self.repository.path().join(format!("app/secrets/{name}.yaml"));
            let to = self.plain.path().join(format!("{name}.yaml"));
            let run =
                sops().env("SOPS_AGE_KEY_FILE", age_key()).args(["decrypt", "--output"]).arg(to).arg(from);
            run.into_command()
        };
        FILES.iter().map(decrypt).chain([self.helm()]).collect()
    }
}

fn version() -> Command {
    Run::new(shipped()).arg("--version").into_command()
}

fn age_key() -> PathBuf {
    top().join("examples/keys/test-only.agekey")
}
