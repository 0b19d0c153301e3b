//! `make bench`: the shipped program against what people use today, in one run on one machine.
//!
//! The ways that are compared take turns, so that whatever else the machine does hits them alike; a row shows medians
//! and their ratio. Only ratios are promised; the test fails when one of them is not kept.

#![allow(clippy::disallowed_methods, reason = "a benchmark starts the programs that it measures itself")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::MARKER;
use support::fake_aws::FakeSecretsManager;
use support::process::Run;
use support::product::{generate_with, shipped};
use support::repository::Repository;
use support::sops::sops;
use support::tools::{tool, top};

const ROUNDS: usize = 21;
const LATENCY: Duration = Duration::from_millis(30);
const SECRETS: usize = 20;
const REFERENCES: usize = 50;
const FILES: [&str; 3] = ["database", "mail", "session"];

/// One way of doing a thing: commands that run one after the other.
type Way<'a> = &'a dyn Fn() -> Vec<Command>;

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn compare() {
    let mut table = Table::default();
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
    let references = References::new();
    table.compare(
        "50 references to 20 secrets at 30 ms latency, against `vals eval`",
        &|| vec![references.strongroom()],
        &|| vec![references.vals()],
        AtMost(0.1),
    );
    let version = median(&time_each(&[&|| vec![version()]])[0]);
    table.note(
        "size of the program",
        &format!("{:.1} MiB", mebibytes(fs::metadata(shipped()).unwrap().len())),
    );
    table.note("`strongroom --version`", &format!("{:.1} ms, of 15 allowed", milliseconds(version)));
    table.note("peak memory of that `generate`, without helm", &peak(render.strongroom()));
    table.note("peak memory of that `helm template`", &peak(render.helm()));
    table.print();
    assert!(version <= Duration::from_millis(15), "--version took {version:?}");
    assert!(table.broken.is_empty(), "not kept: {}", table.broken.join("; "));
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

/// A values file full of references, and the store that they point to.
struct References {
    store: FakeSecretsManager,
    folder: tempfile::TempDir,
}

impl References {
    fn new() -> Self {
        let document =
            |number| (format!("bench/{number}"), format!(r#"{{"a":"{MARKER}-{number}","b":"{MARKER}"}}"#));
        let store = FakeSecretsManager::start(&(0..SECRETS).map(document).collect::<Vec<_>>(), LATENCY);
        let folder = tempfile::TempDir::new().unwrap();
        let mut values = String::new();
        for number in 0..REFERENCES {
            let key = if number < SECRETS { "a" } else { "b" };
            let secret = number % SECRETS;
            writeln!(values, "value{number}: ref+awssecrets://bench/{secret}#/{key}").unwrap();
        }
        fs::write(folder.path().join("values.yaml"), values).unwrap();
        Self { store, folder }
    }

    fn strongroom(&self) -> Command {
        self.with_store(Run::new(shipped()).args(["resolve", "-f"]))
    }

    fn vals(&self) -> Command {
        self.with_store(Run::new(tool("vals")).args(["eval", "-f"]))
    }

    fn with_store(&self, run: Run) -> Command {
        run.arg(self.folder.path().join("values.yaml"))
            .env("AWS_ENDPOINT_URL", self.store.url())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "eu-west-1")
            .env("HOME", self.folder.path())
            .into_command()
    }
}

fn version() -> Command {
    Run::new(shipped()).arg("--version").into_command()
}

fn age_key() -> PathBuf {
    top().join("examples/keys/test-only.agekey")
}

/// The promise of a row: our median, divided by theirs, is no greater.
#[derive(Clone, Copy)]
struct AtMost(f64);

#[derive(Default)]
struct Table {
    rows: String,
    notes: String,
    broken: Vec<String>,
}

impl Table {
    /// Measures one row.
    fn compare(&mut self, name: &str, ours: Way<'_>, theirs: Way<'_>, promise: AtMost) {
        let times = time_each(&[ours, theirs]);
        let (ours, theirs) = (milliseconds(median(&times[0])), milliseconds(median(&times[1])));
        let ratio = ours / theirs;
        writeln!(self.rows, "| {name} | {ours:.1} | {theirs:.1} | {ratio:.2} | {:.2} |", promise.0).unwrap();
        if ratio > promise.0 {
            self.broken.push(format!("{name}: {ratio:.2}"));
        }
    }

    fn note(&mut self, name: &str, value: &str) {
        writeln!(self.notes, "| {name} | {value} |").unwrap();
    }

    fn print(&self) {
        println!("\nMedians of {ROUNDS} rounds, taking turns, in milliseconds.\n");
        println!("| | Strongroom | the other | ratio | at most |\n|---|---|---|---|---|\n{}", self.rows);
        println!("| | |\n|---|---|\n{}", self.notes);
    }
}

/// Runs the ways in turns, and returns the times of each. The first round warms caches and is not counted.
fn time_each(ways: &[Way<'_>]) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for (way, times) in ways.iter().zip(&mut times) {
            let commands = way();
            let begun = Instant::now();
            commands.into_iter().for_each(run);
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
    }
    times
}

/// What a program prints goes where Argo CD's would: into a pipe that somebody reads.
fn run(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", command.get_program().display());
}

/// The kernel's own record of the peak, read until the process ends: the last reading is at most 1 ms old.
fn peak(mut command: Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|kilobytes| kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()).max(peak);
        std::thread::sleep(Duration::from_millis(1));
    }
    format!("{:.1} MiB", mebibytes(peak.expect("a process runs for longer than a millisecond") * 1024))
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "it is printed with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
