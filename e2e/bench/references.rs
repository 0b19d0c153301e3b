//! References to stores that take their time.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::support::MARKER;
use super::support::fake_aws::FakeSecretsManager;
use super::support::process::Run;
use super::support::product::shipped;
use super::support::tools::tool;
use super::table::{AtMost, Table};

const LATENCY: Duration = Duration::from_millis(30);
const SECRETS: usize = 20;
const REFERENCES: usize = 50;

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn references() {
    let mut table = Table::default();
    let references = References::new();
    table.compare(
        "50 references to 20 secrets at 30 ms latency, against `vals eval`",
        &|| vec![references.strongroom()],
        &|| vec![references.vals()],
        AtMost(0.1),
    );
    table.print();
    table.assert_kept();
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
