//! OpenPGP keys of every algorithm, made by gpg: what the real sops seals to them, the product opens, and what the product
//! seals, sops opens with gpg. What cannot be used is refused by its name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sequoia_openpgp::Profile;
use sequoia_openpgp::cert::CertBuilder;
use sequoia_openpgp::serialize::MarshalInto;
use strongroom::document::value::Value;
use strongroom::document::{Format, parse};
use strongroom::secret::Secret;
use strongroom::sops::cipher::Cipher;
use strongroom::sops::file::FileFormat;
use strongroom::sops::keys::SealedKey;
use strongroom::sops::seal::{Envelope, Indent, seal};
use support::MARKER;
use support::keys::{GpgHome, KeysFolder};
use support::process::Run;
use support::product::strongroom;
use support::repository::Repository;
use support::sops::{encrypt_by, sops};
use support::tools::{on_path, top};

const PLAIN: &str = "password: STRONGROOM-MARKER\n";

/// A home of gpg, and a folder for files.
struct Desk {
    gpg: GpgHome,
    repository: Repository,
}

impl Desk {
    fn new() -> Self {
        Self { gpg: GpgHome::new(), repository: Repository::new() }
    }

    fn sops(&self) -> Run {
        sops().env("GNUPGHOME", self.gpg.path()).directory(self.repository.path())
    }

    /// sops, whose gpg gets these arguments first.
    fn sops_by_gpg_with(&self, arguments: &str) -> Run {
        let gpg = on_path("gpg");
        let wrapper = format!("#!/bin/sh\nexec {} {arguments} \"$@\"\n", gpg.display());
        let wrapper = self.repository.write("gpg", wrapper);
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        self.sops().env("SOPS_GPG_EXEC", wrapper)
    }

    fn product(&self, keys: &KeysFolder) -> Run {
        strongroom().env("STRONGROOM_KEYS_DIR", keys.path()).directory(self.repository.path())
    }

    fn write(&self, name: &str) -> PathBuf {
        self.repository.write(name, PLAIN)
    }

    /// A file that sops sealed to the key `fingerprint`.
    fn sealed_to(&self, fingerprint: &str) -> PathBuf {
        let file = self.write(&format!("{fingerprint}.yaml"));
        encrypt_by(self.sops(), &file, &["--pgp", fingerprint])
    }

    fn folder_of(&self, fingerprint: &str) -> KeysFolder {
        KeysFolder::new().with("key.asc", self.gpg.export(fingerprint))
    }

    /// Asserts that the product opens `file` to what sops opens.
    fn assert_opens(&self, file: &PathBuf, keys: &KeysFolder) {
        let opened = self.product(keys).arg("decrypt").arg(file).ok();
        assert_eq!(opened.replace('"', ""), PLAIN);
        assert_eq!(self.sops().arg("decrypt").arg(file).ok(), PLAIN);
    }

    /// Asserts that sops opens what the product seals to `fingerprint`.
    fn assert_seals(&self, fingerprint: &str, keys: &KeysFolder) {
        let file = self.write("ours.yaml");
        self.product(keys).args(["encrypt", "--in-place", "--pgp", fingerprint]).arg(&file).ok();
        assert!(fs::read_to_string(&file).unwrap().starts_with("password: ENC["));
        self.assert_opens(&file, keys);
    }
}

#[test]
fn keys_of_every_algorithm_open_what_sops_sealed_and_sops_opens_what_is_sealed_here() {
    let desk = Desk::new();
    for algorithm in ["rsa2048", "rsa4096", "cv25519", "nistp256", "nistp384", "nistp521"] {
        let fingerprint = match algorithm {
            "cv25519" => desk
                .gpg
                .generate_with_subkeys("cv25519 x", "ed25519", &[algorithm], &UNPROTECTED)
                .swap_remove(0),
            curve if curve.starts_with("nistp") => {
                let user = format!("{curve} x");
                desk.gpg.generate_with_subkeys(&user, curve, &[curve], &UNPROTECTED).swap_remove(0)
            }
            rsa => desk.gpg.generate(rsa),
        };
        let keys = desk.folder_of(&fingerprint);
        desk.assert_opens(&desk.sealed_to(&fingerprint), &keys);
        desk.assert_seals(&fingerprint, &keys);
    }
}

const UNPROTECTED: [&str; 2] = ["--passphrase", ""];

#[test]
fn a_key_of_an_algorithm_that_is_not_supported_is_named() {
    let desk = Desk::new();
    let curves = ["brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1", "secp256k1"];
    let made = curves.map(|curve| {
        let named = if curve == "secp256k1" { "1.3.132.0.10" } else { curve };
        (named, desk.gpg.generate_with_subkeys(curve, curve, &[curve], &UNPROTECTED))
    });
    for (named, fingerprints) in made.into_iter().chain([("ElGamal", elgamal(&desk))]) {
        let [primary, subkey] = fingerprints.as_slice() else { panic!("{fingerprints:?}") };
        let keys = desk.folder_of(primary);
        let message = desk.product(&keys).arg("decrypt").arg(desk.sealed_to(primary)).fails();
        assert!(message.contains(&format!("pgp {primary}: OpenPGP key {subkey} is of a kind")), "{message}");
        assert!(message.contains(named), "{named}: {message}");
        assert!(message.contains("help: RSA, Curve25519 and the NIST curves are"), "{message}");
        let refused =
            desk.product(&keys).args(["encrypt", "--pgp", primary]).arg(desk.write("a.yaml")).fails();
        assert!(refused.contains("has no usable key for encryption"), "{refused}");
        assert!(refused.contains("of a kind that is not supported"), "{refused}");
    }
}

fn elgamal(desk: &Desk) -> Vec<String> {
    let wanted = "%no-protection\nKey-Type: DSA\nKey-Length: 2048\nSubkey-Type: ELG-E\nSubkey-Length: 2048\n\
                  Name-Real: elgamal\nExpire-Date: 0\n%commit\n";
    desk.gpg.gpg().arg("--gen-key").stdin(wanted).ok();
    desk.gpg.fingerprints("elgamal")
}

#[test]
fn each_of_several_subkeys_opens_what_was_sealed_to_it() {
    let desk = Desk::new();
    let kinds = ["rsa2048", "cv25519", "nistp256"];
    let fingerprints = desk.gpg.generate_with_subkeys("several", "ed25519", &kinds, &UNPROTECTED);
    let keys = desk.folder_of(&fingerprints[0]);
    assert_eq!(fingerprints.len(), 1 + kinds.len());
    for subkey in &fingerprints[1..] {
        let exactly = format!("{subkey}!");
        desk.assert_opens(&desk.sealed_to(&exactly), &keys);
        desk.assert_seals(&exactly, &keys);
    }
}

#[test]
fn a_key_that_has_expired_opens_and_is_not_sealed_to() {
    let desk = Desk::new();
    let then = ["--faked-system-time", "20200101T000000", "--passphrase", ""];
    desk.gpg
        .gpg()
        .args(then)
        .args(["--quick-gen-key", "expired", "future-default", "default", "2020-06-01"])
        .ok();
    let fingerprint = desk.gpg.fingerprints("expired").swap_remove(0);
    let keys = desk.folder_of(&fingerprint);
    let sops = desk.sops_by_gpg_with("--faked-system-time 20200201T000000");
    let file = encrypt_by(sops, &desk.write("a.yaml"), &["--pgp", &fingerprint]);
    desk.assert_opens(&file, &keys);
    assert_refused_by_both(&desk, &fingerprint, &keys);
}

#[test]
fn a_subkey_that_was_revoked_opens_and_is_not_sealed_to() {
    let desk = Desk::new();
    let fingerprints = desk.gpg.generate_with_subkeys("revoked", "ed25519", &["cv25519"], &UNPROTECTED);
    let file = desk.sealed_to(&fingerprints[0]);
    let revoke = desk.gpg.gpg().args(["--no-tty", "--command-fd", "0", "--edit-key", &fingerprints[0]]);
    revoke.stdin("key 1\nrevkey\ny\n0\n\ny\nsave\n").ok();
    let keys = desk.folder_of(&fingerprints[0]);
    desk.assert_opens(&file, &keys);
    assert_refused_by_both(&desk, &fingerprints[0], &keys);
}

fn assert_refused_by_both(desk: &Desk, fingerprint: &str, keys: &KeysFolder) {
    for run in [desk.sops(), desk.product(keys)] {
        let message = run.args(["encrypt", "--pgp", fingerprint]).arg(desk.write("b.yaml")).fails();
        assert!(message.contains(fingerprint), "{message}");
        assert!(!message.contains(MARKER), "{message}");
    }
}

#[test]
fn a_key_with_a_passphrase_opens_by_the_passphrase_of_a_file_only() {
    let desk = Desk::new();
    let passphrase = format!("{MARKER} passphrase");
    for primary in ["rsa2048", "ed25519"] {
        let subkey = if primary == "ed25519" { "cv25519" } else { primary };
        let protection = ["--passphrase", &passphrase];
        let fingerprints =
            desk.gpg.generate_with_subkeys(&format!("locked {primary}"), primary, &[subkey], &protection);
        let fingerprint = &fingerprints[0];
        let export =
            desk.gpg.gpg().args(protection).args(["--armor", "--export-secret-keys", fingerprint]).ok();
        let keys = KeysFolder::new().with("key.asc", export);
        let file = desk.sealed_to(fingerprint);
        let decrypt = |passphrase: Option<&str>| {
            let named = passphrase.map(|text| desk.repository.write("passphrase", format!("{text}\n")));
            let run = desk.product(&keys).arg("decrypt").arg(&file);
            run.envs(named.map(|path| ("STRONGROOM_PASSPHRASE_FILE", path)))
        };
        assert_eq!(decrypt(Some(&passphrase)).ok(), "password: \"STRONGROOM-MARKER\"\n");
        for (given, expected) in [
            (None, "is protected by a passphrase\nhelp: "),
            (Some("STRONGROOM-MARKER other"), "the passphrase does not unlock OpenPGP key"),
        ] {
            let message = decrypt(given).fails();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains(MARKER), "{message}");
        }
        let quoted = format!("--batch --pinentry-mode loopback --passphrase '{passphrase}'");
        assert_eq!(desk.sops_by_gpg_with(&quoted).arg("decrypt").arg(&file).ok(), PLAIN);
    }
}

/// Messages that this gpg opens and does not write: OCB of GnuPG 2.3, and what sops wrote before 3.7.3.
#[test]
fn messages_of_newer_gpg_and_of_older_sops_open() {
    let desk = Desk::new();
    let fixture = |name: &str| fs::read_to_string(top().join("e2e/fixtures/keys").join(name)).unwrap();
    let key = fixture("pgp-rsa2048.key.asc");
    desk.gpg.gpg().arg("--import").stdin(key.as_str()).ok();
    let keys = KeysFolder::new().with("key.asc", &key);
    for kind in ["aead", "old", "short"].map(|kind| format!("pgp-{kind}.sealed.asc")) {
        let sealed_key = SealedKey::Pgp {
            fingerprint: fixture("pgp-rsa2048.fingerprint").trim().to_owned(),
            enc: fixture(&kind),
        };
        let envelope = Envelope {
            groups: vec![vec![sealed_key]],
            threshold: None,
            rule: None,
            mac_only_encrypted: false,
            indent: Indent::default(),
            ..Envelope::default()
        };
        let cipher = Cipher::new(&Secret::new(b"STRONGROOM-MARKER-0123456789abcd".to_vec())).unwrap();
        let sealed = seal(PLAIN.as_bytes(), FileFormat::Document(Format::Yaml), &cipher, &envelope).unwrap();
        let file = desk.repository.write(format!("{kind}.yaml"), sealed.expose());
        if kind.contains("short") {
            let message = desk.product(&keys).arg("decrypt").arg(&file).fails();
            assert!(message.contains("it holds 17 bytes, not the 32 of a data key"), "{message}");
        } else {
            desk.assert_opens(&file, &keys);
        }
    }
}

/// sops 1.x was written in Python. Later ones open its files too, but for bytes, at which they panic.
#[test]
fn files_of_the_first_sops_open() {
    let desk = Desk::new();
    let key = fs::read_to_string(top().join("e2e/fixtures/keys/pgp-rsa2048.key.asc")).unwrap();
    desk.gpg.gpg().arg("--import").stdin(key.as_str()).ok();
    let keys = KeysFolder::new().with("key.asc", &key);
    let folder = top().join("e2e/fixtures/sops-1");
    for file in ["1.9.yaml", "1.18.yaml", "1.9.json", "1.18.json"].map(|name| folder.join(name)) {
        let opened = [desk.product(&keys), desk.sops()].map(|run| run.arg("decrypt").arg(&file).ok());
        let [ours, theirs] = opened.map(|text| {
            let stream = parse(&text, Format::of_name(&file.display().to_string())).unwrap();
            Value::of(&stream.documents[0], &stream.anchors()).unwrap()
        });
        assert_eq!(ours, theirs, "{}", file.display());
        assert_eq!(ours.pick(&["password"]).unwrap(), &Value::from(MARKER));
    }
    let binary = desk.product(&keys).arg("decrypt").arg(folder.join("1.18.binary"));
    assert_eq!(binary.ok(), format!("{MARKER}\nand more\n"));
}

/// No gpg makes them yet. sequoia does, and sops's own library, which takes keys of a file that gpg does not.
#[test]
fn a_key_of_version_6_opens_what_sops_sealed() {
    let desk = Desk::new();
    let builder = CertBuilder::new().set_profile(Profile::RFC9580).unwrap();
    let (cert, _) = builder.add_userid("six").add_storage_encryption_subkey().generate().unwrap();
    let fingerprint = cert.fingerprint().to_hex();
    assert_eq!(fingerprint.len(), 64);
    let keys = KeysFolder::new().with("key.asc", cert.as_tsk().armored().to_vec().unwrap());
    let file = desk.write("ours.yaml");
    desk.product(&keys).args(["encrypt", "--in-place", "--pgp", &fingerprint]).arg(&file).ok();
    assert_eq!(desk.product(&keys).arg("decrypt").arg(&file).ok(), "password: \"STRONGROOM-MARKER\"\n");
    fs::write(desk.gpg.path().join("secring.gpg"), cert.as_tsk().to_vec().unwrap()).unwrap();
    assert_eq!(desk.sops().arg("decrypt").arg(&file).ok(), PLAIN);
}
