//! References to stores that take their time: moto and OpenBao, each behind a proxy.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::support::MARKER;
use super::support::delay::Delay;
use super::support::moto::{Moto, REGION};
use super::support::openbao::Openbao;
use super::support::process::Run;
use super::support::product::shipped;
use super::support::tools::tool;
use super::table::{AtMost, Table, median, milliseconds, peak, time_each};

const LATENCY: Duration = Duration::from_millis(30);
const ROUNDS: usize = 5;
const NAMES: usize = 100;
const PATHS: usize = 5;
const KEYS: usize = 10;

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn references() {
    let stores = Stores::start();
    let mut table = Table::of_rounds(ROUNDS);
    let secret = |number: usize| format!("ref+awssecrets://bench/{number}#/a");
    let parameter = |number: usize| format!("ref+awsssm://bench/{number}");
    let field = |number: usize| format!("ref+vault://secret/bench/{}/k{}", number % PATHS, number / PATHS);
    let key = |number: usize| format!("ref+vault://secret/bench/{}#/k{}", number % PATHS, number / PATHS);
    let mixed = |number: usize| match number {
        0..75 => secret(number),
        75..150 => parameter(number - 75),
        _ => field(number - 150),
    };
    stores.compare(&mut table, "100 secrets of Secrets Manager", NAMES, secret, PROMISED);
    stores.compare(&mut table, "100 parameters of SSM", NAMES, parameter, PROMISED);
    stores.compare(&mut table, "50 keys of 5 paths of Vault, as `path/key`", PATHS * KEYS, field, PROMISED);
    stores.compare(&mut table, "the same, as `path#/key`", PATHS * KEYS, key, AtMost(1.0));
    stores.compare(&mut table, "200 of these, mixed", 200, mixed, PROMISED);

    let many = stores.values("many", 10_000, |number| secret(number % NAMES));
    table.note_bytes("peak memory with 10,000 references to 100 secrets", peak(stores.strongroom(&many)));
    let plain = |number: usize| format!("ref+echo://{MARKER}/{number}");
    let files = [1_000, 10_000].map(|count| stores.values(&format!("plain{count}"), count, plain));
    let [few, all] = &files;
    let times = time_each(ROUNDS, &[&|| vec![stores.strongroom(few)], &|| vec![stores.strongroom(all)]]);
    let [few, all] = [0, 1].map(|way| milliseconds(median(&times[way])));
    table.hold("10,000 references, against 1,000", all, few, AtMost(12.0));
    table.print();
    table.assert_kept();
}

/// A twentieth of the time of vals.
const PROMISED: AtMost = AtMost(0.05);

/// What the references point to, and the values files that are full of them.
struct Stores {
    aws: Delay,
    vault: Delay,
    folder: tempfile::TempDir,
    _servers: (Moto, Openbao),
}

impl Stores {
    fn start() -> Self {
        let (moto, openbao) = (Moto::start(), Openbao::start());
        for number in 0..NAMES {
            moto.create_secret(&format!("bench/{number}"), &json!({ "a": MARKER }).to_string());
            moto.create_parameter(&format!("/bench/{number}"), MARKER);
        }
        for path in 0..PATHS {
            let keys: Map<String, Value> = (0..KEYS).map(|key| (format!("k{key}"), MARKER.into())).collect();
            openbao.write(&format!("secret/data/bench/{path}"), &json!({ "data": keys }));
        }
        let (aws, vault) = (Delay::before(&moto.url(), LATENCY), Delay::before(&openbao.url(), LATENCY));
        Self { aws, vault, folder: tempfile::TempDir::new().unwrap(), _servers: (moto, openbao) }
    }

    fn compare(
        &self,
        table: &mut Table,
        name: &str,
        count: usize,
        reference: impl Fn(usize) -> String,
        promise: AtMost,
    ) {
        let file = self.values("values", count, reference);
        let requests = |mut command: Command| {
            self.asked();
            let output = command.output().unwrap();
            assert!(output.status.success());
            assert_eq!(String::from_utf8(output.stdout).unwrap().matches(MARKER).count(), count, "{name}");
            self.asked()
        };
        let (ours, theirs) = (requests(self.strongroom(&file)), requests(self.vals(&file)));
        let name = format!("{name}: {ours} requests, {theirs} by `vals eval`");
        table.compare(&name, &|| vec![self.strongroom(&file)], &|| vec![self.vals(&file)], promise);
    }

    fn asked(&self) -> usize {
        self.aws.asked() + self.vault.asked()
    }

    fn values(&self, name: &str, count: usize, reference: impl Fn(usize) -> String) -> String {
        let mut values = String::new();
        for number in 0..count {
            writeln!(values, "value{number}: {}", reference(number)).unwrap();
        }
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, values).unwrap();
        file.display().to_string()
    }

    fn strongroom(&self, file: &str) -> Command {
        self.with_stores(Run::new(shipped()).args(["resolve", "-f", file]))
    }

    fn vals(&self, file: &str) -> Command {
        self.with_stores(Run::new(tool("vals")).args(["eval", "-f", file]))
    }

    fn with_stores(&self, run: Run) -> Command {
        run.env("AWS_ENDPOINT_URL", self.aws.url())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("VAULT_ADDR", self.vault.url())
            .env("VAULT_TOKEN", MARKER)
            .env("HOME", self.folder.path())
            .into_command()
    }
}
