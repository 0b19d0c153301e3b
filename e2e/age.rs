//! age's post-quantum keys, against the real age and the real sops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use support::MARKER;
use support::keys::{AgeKey, KeysFolder};
use support::process::Run;
use support::product::strongroom;
use support::repository::Repository;
use support::sops::sops;

/// A folder in which commands run, with an identity that both programs have.
struct Desk {
    repository: Repository,
    keys: KeysFolder,
    identity: String,
}

impl Desk {
    fn with(identity: &str) -> Self {
        let keys = KeysFolder::new().with("key.txt", identity);
        Self { repository: Repository::new(), keys, identity: identity.to_owned() }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.repository.write(name, content);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.repository.path().join(name)).unwrap()
    }

    fn product(&self) -> Run {
        strongroom().env("STRONGROOM_KEYS_DIR", self.keys.path()).directory(self.repository.path())
    }

    fn sops(&self) -> Run {
        sops().env("SOPS_AGE_KEY", &self.identity).directory(self.repository.path())
    }
}

#[test]
fn post_quantum_keys_open_and_seal_as_those_of_sops() {
    let (own, other, plain) = (AgeKey::post_quantum(), AgeKey::post_quantum(), format!("a: {MARKER}\n"));
    let desk = Desk::with(&own.identity);
    desk.write("ours.yaml", &plain);
    desk.write("theirs.yaml", &plain);
    // As sops, each key has a sealed data key of its own, so an older key may stand beside it.
    let recipients = format!("{},{}", own.recipient, AgeKey::new().recipient);
    desk.product().args(["encrypt", "-i", "--age", &recipients, "ours.yaml"]).ok();
    desk.sops().args(["encrypt", "-i", "--age", &recipients, "theirs.yaml"]).ok();
    for name in ["ours.yaml", "theirs.yaml"] {
        assert!(desk.read(name).contains(&own.recipient) && !desk.read(name).contains(MARKER));
        assert_eq!(desk.sops().args(["decrypt", name]).ok(), plain, "{name}");
        assert_eq!(desk.product().args(["decrypt", name]).ok().replace('"', ""), plain, "{name}");
        let keys = KeysFolder::new().with("key.txt", &other.identity);
        let output = desk.product().env("STRONGROOM_KEYS_DIR", keys.path()).args(["decrypt", name]).output();
        assert_eq!(output.status.code(), Some(128), "{name}: {}", output.stderr);
        assert!(output.stderr.contains("no age identity for it is loaded"), "{}", output.stderr);
    }
    let sealed = desk.read("theirs.yaml");
    let armor = sealed.find("-----BEGIN AGE").unwrap();
    for (at, c) in sealed.char_indices().skip(armor + 120).step_by(97).take(16) {
        if c.is_ascii_alphanumeric() {
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, if c == 'A' { "B" } else { "A" });
            desk.write("changed.yaml", changed);
            for run in [desk.product(), desk.sops()] {
                let output = run.args(["decrypt", "changed.yaml"]).output();
                assert_eq!(output.status.code(), Some(128), "byte {at}: {}", output.stderr);
            }
        }
    }
}
