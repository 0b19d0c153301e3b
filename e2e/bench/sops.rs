//! Opening SOPS files, against `sops decrypt`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::MARKER;
use super::support::delay::Delay;
use super::support::keys::{AgeKey, GpgHome, KeysFolder};
use super::support::moto::Moto;
use super::support::process::Run;
use super::support::product::shipped;
use super::support::repository::Repository;
use super::support::sops::{encrypt, encrypt_by, sops};
use super::table::{AtMost, Table, mebibytes, peak};

const ROUNDS: usize = 5;
const LATENCY: Duration = Duration::from_millis(30);
const LEAVES: usize = 100_000;
const FILES: usize = 200;
const SHARED: usize = 50;

#[test]
#[ignore = "run by make bench, on a machine that does nothing else"]
fn sops_files() {
    let mut table = Table::of_rounds(ROUNDS);
    let (repository, age) = (Repository::new(), AgeKey::new());
    let keys = KeysFolder::new().with("key.txt", &age.identity);
    let product = || Run::new(shipped()).env("STRONGROOM_KEYS_DIR", keys.path()).directory(repository.path());
    let theirs = || sops().env("SOPS_AGE_KEY_FILE", keys.path().join("key.txt")).directory(repository.path());
    let seal = |name: &str, plain: &str| encrypt(&repository.write(name, plain), &["--age", &age.recipient]);

    let small = seal("small.yaml", &secrets(4));
    table.compare(
        &format!("a file of {}, one age key", size(&small)),
        &|| vec![product().arg("decrypt").arg(&small).into_command()],
        &|| vec![theirs().arg("decrypt").arg(&small).into_command()],
        AtMost(0.2),
    );
    by_pgp(&mut table, &repository);

    let large = seal("large.yaml", &secrets(LEAVES));
    let name = format!("a file of {} with {LEAVES} values", size(&large));
    let ours = || product().arg("decrypt").arg(&large).into_command();
    let other = || theirs().arg("decrypt").arg(&large).into_command();
    table.compare(&name, &|| vec![ours()], &|| vec![other()], AtMost(1.0));
    table.hold("peak memory of that, in MiB", mebibytes(peak(ours())), mebibytes(peak(other())), AtMost(0.5));
    fs::remove_file(large).unwrap();

    let files: Vec<_> = (0..FILES).map(|number| seal(&format!("{number}.yaml"), &secrets(4))).collect();
    let values = repository.write("values.yaml", references(FILES));
    assert_resolves(resolve(product(), &values), FILES);
    table.compare(
        &format!("{FILES} files, one age key"),
        &|| vec![resolve(product(), &values)],
        &|| files.iter().map(|file| theirs().arg("decrypt").arg(file).into_command()).collect(),
        AtMost(0.05),
    );
    by_kms(&mut table);
    table.print();
    table.assert_kept();
}

fn by_pgp(table: &mut Table, repository: &Repository) {
    let gpg = GpgHome::new();
    let fingerprint = gpg.generate("rsa4096");
    let keys = KeysFolder::new().with("key.asc", gpg.export(&fingerprint));
    let theirs = || sops().env("GNUPGHOME", gpg.path());
    let file = repository.write("pgp.yaml", secrets(2));
    encrypt_by(theirs(), &file, &["--pgp", &fingerprint]);
    let ours = || Run::new(shipped()).env("STRONGROOM_KEYS_DIR", keys.path()).arg("decrypt").arg(&file);
    table.compare(
        &format!("a file of {}, OpenPGP, RSA-4096", size(&file)),
        &|| vec![ours().into_command()],
        &|| vec![theirs().arg("decrypt").arg(&file).into_command()],
        AtMost(1.0 / 3.0),
    );
}

/// Files that were made from one another with sops, and so have one data key.
fn by_kms(table: &mut Table) {
    let (moto, repository) = (Moto::start(), Repository::new());
    let arn = moto.create_key();
    let far = Delay::before(&moto.url(), LATENCY);
    let near = || sops().envs(moto.environment());
    let first = repository.write("0.yaml", secrets(4));
    encrypt_by(near(), &first, &["--kms", &arn]);
    for number in 1..SHARED {
        let copy = repository.path().join(format!("{number}.yaml"));
        fs::copy(&first, &copy).unwrap();
        near().arg("set").arg(&copy).args(["[\"password0\"]", &format!("\"{MARKER}-{number}\"")]).ok();
    }
    let values = repository.write("values.yaml", references(SHARED));
    let product = || {
        Run::new(shipped())
            .envs(moto.environment())
            .env("AWS_ENDPOINT_URL", far.url())
            .directory(repository.path())
    };
    let theirs = || near().env("AWS_ENDPOINT_URL", far.url()).arg("decrypt");
    far.asked();
    assert_resolves(resolve(product(), &values), SHARED);
    let ours = far.asked();
    assert_eq!(ours, 1, "requests for {SHARED} files with one data key");
    table.compare(
        &format!("{SHARED} files, one data key of KMS that is 30 ms away: {ours} request, {SHARED} by sops"),
        &|| vec![resolve(product(), &values)],
        &|| {
            (0..SHARED)
                .map(|number| theirs().arg(repository.path().join(format!("{number}.yaml"))).into_command())
                .collect()
        },
        AtMost(1.0 / 40.0),
    );
}

/// One process that opens every file.
fn resolve(run: Run, values: &Path) -> Command {
    run.args(["resolve", "-f"]).arg(values).into_command()
}

fn assert_resolves(mut command: Command, files: usize) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches(MARKER).count(), files);
}

fn references(files: usize) -> String {
    (0..files).map(|number| format!("file{number}: ref+sops://{number}.yaml#/password0\n")).collect()
}

fn secrets(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "password{number}: {MARKER}-{number}").unwrap();
    }
    text
}

fn size(file: &Path) -> String {
    let bytes = fs::metadata(file).unwrap().len();
    if bytes < 1 << 20 {
        format!("{} KB", bytes.div_ceil(1024))
    } else {
        format!("{:.0} MB", mebibytes(bytes))
    }
}
