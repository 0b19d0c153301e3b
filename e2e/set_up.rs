//! What the other tests stand on: every pinned tool runs, and says the version that it was pinned at.

mod support;

use support::MARKER;
use support::keys::{AgeKey, GpgHome};
use support::moto::moto;
use support::openbao::Openbao;
use support::process::Run;
use support::repository::Repository;
use support::sops::{encrypt, encrypt_by, sops};
use support::tools::tool;

#[test]
fn the_pinned_helms_are_of_both_majors_and_the_oldest_supported() {
    for (name, version) in [("helm", "v4."), ("helm3", "v3.18."), ("helm-min", "v3.14.")] {
        let said = Run::new(tool(name)).env("HOME", "/nonexistent").args(["version", "--short"]).ok();
        assert!(said.starts_with(version), "{name} says {said}");
    }
}

#[test]
fn sops_opens_with_age_what_it_sealed() {
    let repository = Repository::new();
    let key = AgeKey::new();
    let file =
        encrypt(&repository.write("a.yaml", format!("password: {MARKER}\n")), &["--age", &key.recipient]);
    assert!(!std::fs::read_to_string(&file).unwrap().contains(MARKER));
    let opened = sops().env("SOPS_AGE_KEY", &key.identity).arg("decrypt").arg(&file).ok();
    assert_eq!(opened, format!("password: {MARKER}\n"));
}

#[test]
fn sops_opens_with_gpg_what_it_sealed() {
    let repository = Repository::new();
    let home = GpgHome::new();
    let fingerprint = home.generate("rsa2048");
    assert!(home.export(&fingerprint).starts_with("-----BEGIN PGP PRIVATE KEY BLOCK-----"));
    let file = repository.write("a.yaml", format!("password: {MARKER}\n"));
    encrypt_by(sops().env("GNUPGHOME", home.path()), &file, &["--pgp", &fingerprint]);
    let opened = sops().env("GNUPGHOME", home.path()).arg("decrypt").arg(&file).ok();
    assert_eq!(opened, format!("password: {MARKER}\n"));
}

#[test]
fn moto_keeps_secrets_parameters_and_keys() {
    let repository = Repository::new();
    assert!(moto().create_secret("set-up/secret", MARKER).starts_with("arn:aws:secretsmanager:eu-west-1:"));
    moto().create_parameter("/set-up/parameter", MARKER);
    let arn = moto().create_key();
    let file = repository.write("a.yaml", format!("password: {MARKER}\n"));
    encrypt_by(sops().envs(moto().environment()), &file, &["--kms", &arn]);
    let opened = sops().envs(moto().environment()).arg("decrypt").arg(&file).ok();
    assert_eq!(opened, format!("password: {MARKER}\n"));
}

#[test]
fn a_server_takes_its_folder_with_it() {
    let server = Openbao::start();
    let home = server.home().to_owned();
    assert!(home.join("log").exists());
    drop(server);
    assert!(!home.exists(), "{} is left behind", home.display());
}
