//! Files whose data keys the product seals at key services: the real sops opens them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use support::MARKER;
use support::keys::AgeKey;
use support::moto::{REGION, moto};
use support::openbao::Openbao;
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::sops::{encrypt_by, key_service, sops_of};

const PLAIN: &str = "password: STRONGROOM-MARKER\n";

/// A folder in which commands run, with the variables that bring them to a service.
struct Desk {
    repository: Repository,
    environment: Vec<(&'static str, String)>,
}

impl Desk {
    fn new(environment: Vec<(&'static str, String)>) -> Self {
        let repository = Repository::new();
        repository.write("a.yaml", PLAIN);
        repository.write("keys/none", "");
        Self { repository, environment }
    }

    fn in_place(&self, run: Run) -> Run {
        run.directory(self.repository.path()).env("HOME", self.repository.path())
    }

    fn product(&self) -> Run {
        let run = self.in_place(strongroom()).envs(self.environment.iter().cloned());
        run.env("STRONGROOM_KEYS_DIR", self.repository.path().join("keys"))
    }

    fn sops(&self, version: &str) -> Run {
        self.in_place(sops_of(version)).envs(self.environment.iter().cloned())
    }

    /// What the product makes of the file, once both versions of sops and itself have opened that.
    fn sealed(&self, encrypt: Run) -> String {
        let sealed = encrypt.ok();
        assert!(!sealed.contains(MARKER), "{sealed}");
        self.repository.write("sealed.yaml", &sealed);
        for version in ["sops", "sops-min"] {
            assert_eq!(
                self.sops(version).args(["decrypt", "sealed.yaml"]).ok(),
                PLAIN,
                "{version}: {sealed}"
            );
        }
        let opened = self.product().env("STRONGROOM_ALLOW_ADDRESSES", self.addresses());
        assert_eq!(opened.args(["decrypt", "sealed.yaml"]).ok().replace('"', ""), PLAIN);
        sealed
    }

    fn addresses(&self) -> String {
        let address = self.environment.iter().find(|(name, _)| *name == "VAULT_ADDR");
        address.map(|(_, address)| address.clone()).unwrap_or_default()
    }

    fn encrypt(&self, arguments: &[&str]) -> Run {
        self.product().arg("encrypt").args(arguments).arg("a.yaml")
    }

    /// The metadata that sops writes for the same arguments, and that of the product, but for what differs each time and for
    /// their layout.
    fn assert_metadata_as_of_sops(&self, arguments: &[&str]) {
        let metadata = |sealed: String| {
            let left_out = ["enc:", "mac:", "lastmodified:", "created_at:", ": []"];
            let lines = sealed.lines().skip_while(|line| *line != "sops:");
            let lines =
                lines.filter(|line| line.contains(": ") && !left_out.iter().any(|name| line.contains(name)));
            let mut fields: Vec<_> =
                lines.map(|line| line.trim_start_matches([' ', '-']).to_owned()).collect();
            fields.sort();
            fields
        };
        let theirs = self.sops("sops").arg("encrypt").args(arguments).arg("a.yaml").ok();
        assert_eq!(metadata(self.sealed(self.encrypt(arguments))), metadata(theirs), "{arguments:?}");
    }
}

#[test]
fn sops_opens_what_the_product_sealed_at_moto_by_flags_variables_and_rules() {
    let desk = Desk::new(moto().environment());
    let (home, far) = (moto().create_key(), moto().create_key_in("us-east-1"));
    let role = "arn:aws:iam::123456789012:role/sops";
    let (with_role, both) = (format!("{home}+{role}"), format!("{home}, {far}"));
    let profiles = format!("[team]\naws_access_key_id = a\naws_secret_access_key = {MARKER}\n");
    let profiles = desk.repository.write("credentials", profiles).display().to_string();
    let desk = Desk {
        environment: desk
            .environment
            .iter()
            .cloned()
            .chain([("AWS_SHARED_CREDENTIALS_FILE", profiles)])
            .collect(),
        ..desk
    };
    for arguments in [
        &["--kms", &home][..],
        &["-k", &both],
        &["--kms", &with_role],
        &["--kms", &home, "--encryption-context", "team:a,app:b"],
        &["--kms", &home, "--aws-profile", "team"],
    ] {
        desk.assert_metadata_as_of_sops(arguments);
    }
    let by_variable = desk.sealed(desk.encrypt(&[]).env("SOPS_KMS_ARN", &home));
    assert!(by_variable.contains(&format!("arn: {home}\n")), "{by_variable}");

    let rules = format!(
        "creation_rules:\n  - path_regex: ^b\n    kms: [{far}]\n    aws_profile: team\n  \
         - key_groups:\n      - kms:\n          - arn: {home}\n            role: {role}\n            context: {{team: a}}\n            \
         aws_profile: team\n      - kms: [{{arn: {far}}}]\n    shamir_threshold: 2\n"
    );
    desk.repository.write(".sops.yaml", rules);
    desk.repository.write("b.yaml", PLAIN);
    desk.assert_metadata_as_of_sops(&[]);
    let one = desk.product().args(["encrypt", "--encryption-context", "team:a", "b.yaml"]);
    let one = desk.sealed(one);
    for line in [&format!("arn: {far}"), "aws_profile: team", "team: a"] {
        assert!(one.contains(line), "{one}");
    }
}

#[test]
fn what_aws_refuses_is_told_and_nothing_is_written() {
    let desk = Desk::new(moto().environment());
    let absent = format!("arn:aws:kms:{REGION}:123456789012:key/11111111-2222-3333-4444-555555555555");
    for (arguments, code, expected) in [
        (&["--kms", &*absent][..], 1, format!("kms {absent}: AWS says NotFoundException")),
        (&["--kms", "alias/x"], 1, "kms alias/x: not the ARN of an AWS KMS key or alias".to_owned()),
        (
            &["--kms", &absent, "--encryption-context", "a=b"],
            6,
            "\"a=b\" is not of the form name:value,name:value".to_owned(),
        ),
    ] {
        let output = desk.encrypt(arguments).arg("--in-place").output();
        assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
        assert!(
            output.stderr.contains(&expected) && !output.everything().contains(MARKER),
            "{}",
            output.stderr
        );
        assert_eq!(fs::read_to_string(desk.repository.path().join("a.yaml")).unwrap(), PLAIN);
    }
    let theirs =
        desk.sops("sops").args(["encrypt", "--kms", &absent, "--encryption-context", "a=b", "a.yaml"]);
    assert_eq!(theirs.output().status.code(), Some(6));
}

#[test]
fn sops_opens_what_the_product_sealed_at_openbao_which_a_rule_names_only_if_the_operator_does() {
    let server = Openbao::start();
    server.write("transit/keys/apps", &json!({}));
    server.write("sys/mounts/team/transit", &json!({"type": "transit"}));
    server.write("team/transit/keys/apps", &json!({}));
    let desk = Desk::new(server.environment());
    let (key, deep) = ("v1/transit/keys/apps", "v1/team/transit/keys/apps");
    let (key, deep) = (format!("{}/{key}", server.url()), format!("{}/{deep}", server.url()));
    desk.assert_metadata_as_of_sops(&["--hc-vault-transit", &key]);
    desk.assert_metadata_as_of_sops(&["--hc-vault-transit", &format!("{key},{deep}")]);
    let by_variable = desk.sealed(desk.encrypt(&[]).env("SOPS_VAULT_URIS", &deep));
    assert!(by_variable.contains("engine_path: team/transit\n"), "{by_variable}");

    // A flag is the person's own word, a rule that of whoever wrote the repository.
    let elsewhere = |run: Run| run.env("VAULT_ADDR", "http://127.0.0.1:1");
    desk.sealed(elsewhere(desk.encrypt(&["--hc-vault-transit", &key])));
    desk.repository.write(".sops.yaml", format!("creation_rules: [{{hc_vault_transit_uri: '{key}'}}]\n"));
    desk.assert_metadata_as_of_sops(&[]);
    let message = elsewhere(desk.encrypt(&[])).fails();
    let why = format!("{} is not an address that the operator names", server.url());
    assert!(message.contains(&why), "{message}");
    let listed = elsewhere(desk.encrypt(&[])).env("STRONGROOM_ALLOW_ADDRESSES", server.url());
    desk.sealed(listed);

    server.policy("other", &["transit/encrypt/other"]);
    let message = desk.encrypt(&[]).env("VAULT_TOKEN", server.token("other", "1h")).fails();
    assert!(message.contains("Vault says HTTP 403 for transit/encrypt/apps: permission denied"), "{message}");
    assert!(!message.contains(MARKER), "{message}");
}

#[test]
fn shares_of_one_data_key_are_sealed_to_keys_of_several_kinds() {
    let server = Openbao::start();
    server.write("transit/keys/apps", &json!({}));
    let (arn, age) = (moto().create_key(), AgeKey::new());
    let rules = format!(
        "creation_rules:\n  - shamir_threshold: 2\n    key_groups:\n      - kms: [{{arn: {arn}}}]\n      \
         - hc_vault: ['{}/v1/transit/keys/apps']\n      - age: [{}]\n",
        server.url(),
        age.recipient
    );
    let desk = Desk::new([moto().environment(), server.environment()].concat());
    desk.repository.write(".sops.yaml", rules);
    desk.assert_metadata_as_of_sops(&[]);
    for (missing, opens) in [("AWS_ENDPOINT_URL", true), ("VAULT_TOKEN", true), ("SOPS_AGE_KEY", false)] {
        let run = desk.sops("sops").args(["decrypt", "sealed.yaml"]).env("SOPS_AGE_KEY", &age.identity);
        let run = if opens { run } else { run.env("VAULT_TOKEN", "none") };
        let output = run.env(missing, "http://127.0.0.1:1").output();
        assert_eq!(output.status.success(), opens, "{missing}: {}", output.stderr);
    }
}

/// The key service of sops on a unix socket; it ends with the test.
struct OnSocket(Child);

impl OnSocket {
    fn start(path: &Path, identity: &Path) -> Self {
        let run = sops_of("sops").env("SOPS_AGE_KEY_FILE", identity);
        let run = run.args(["keyservice", "--network", "unix", "--address"]).arg(path);
        let child = run.into_command().stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for OnSocket {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_key_service_of_sops_opens_what_this_process_cannot_and_only_where_the_operator_names_it() {
    let (age, folder) = (AgeKey::new(), Repository::new());
    let identity = folder.write("identity", &age.identity);
    let held = [("SOPS_AGE_KEY_FILE", identity.display().to_string())];
    let service = key_service(&[&held[..], &moto().environment()].concat());
    let tcp = format!("tcp://{}", service.address);
    let arn = moto().create_key();

    let repository = Repository::with_secret_chart();
    let seal = |name: &str, keys: &[&str]| {
        let file = repository.write(format!("app/{name}"), "password: test\n");
        encrypt_by(sops_of("sops").envs(moto().environment()), &file, keys);
    };
    seal("age.yaml", &["--age", &age.recipient]);
    seal("kms.yaml", &["--kms", &arn]);
    seal("other.yaml", &["--age", &AgeKey::new().recipient]);
    let socket = folder.path().join("keys.sock");
    let _on_socket = OnSocket::start(&socket, &identity);

    let decrypt = |name: &str| strongroom().arg("decrypt").arg(name).directory(repository.path().join("app"));
    let message = decrypt("age.yaml").fails();
    assert!(message.contains("no age identity for it is loaded"), "{message}");
    let by_socket = decrypt("age.yaml").env("SOPS_KEYSERVICE", format!("unix://{}", socket.display()));
    assert_eq!(by_socket.ok(), "password: \"test\"\n");
    for name in ["age.yaml", "kms.yaml"] {
        let run = decrypt(name).args(["--keyservice", &tcp, "--enable-local-keyservice=false"]);
        assert_eq!(run.ok(), "password: \"test\"\n", "{name}");
    }
    // The first one that opens it is enough, and what this process has needs no other.
    let both = decrypt("age.yaml").args(["--keyservice", "tcp://127.0.0.1:1", "--keyservice", &tcp]);
    assert_eq!(both.ok(), "password: \"test\"\n");
    let own = decrypt("age.yaml").env("SOPS_AGE_KEY", &age.identity);
    assert_eq!(own.env("SOPS_KEYSERVICE", "tcp://127.0.0.1:1").ok(), "password: \"test\"\n");

    for (arguments, expected) in [
        (
            &["other.yaml", "--keyservice", &tcp][..],
            format!("the key service {tcp} says: identity did not match any of the recipients"),
        ),
        (
            &["age.yaml", "--keyservice", "tcp://127.0.0.1:1"],
            "the key service tcp://127.0.0.1:1 cannot be reached".to_owned(),
        ),
        (
            &["age.yaml", "--keyservice", &format!("tcp://{}", moto().url().trim_start_matches("http://"))],
            " cannot be reached".to_owned(),
        ),
    ] {
        let run = strongroom().arg("decrypt").args(arguments).directory(repository.path().join("app"));
        let output = run.output();
        assert_eq!(output.status.code(), Some(128), "{}", output.stderr);
        assert!(output.stderr.contains(&expected), "{}", output.stderr);
    }

    let files = r#"[{"name":"valueFiles","array":["age.yaml"]}]"#;
    let story = || generate(&repository, "app").env("ARGOCD_APP_PARAMETERS", files);
    let manifests = story().env("SOPS_KEYSERVICE", &tcp).ok();
    assert!(manifests.contains("password: \"dGVzdA==\""), "{manifests}");
    let message = story().env("ARGOCD_ENV_SOPS_KEYSERVICE", &tcp).fails();
    assert!(message.contains("no age identity for it is loaded"), "{message}");
    let denied = story().env("SOPS_KEYSERVICE", &tcp).env("STRONGROOM_ALLOW_KEYS", "kms").fails();
    let why = format!("may not open SOPS key age {}", age.recipient);
    assert!(denied.contains(&why), "{denied}");
}

#[test]
fn the_key_service_of_sops_seals_what_this_process_cannot() {
    let server = Openbao::start();
    server.write("transit/keys/apps", &json!({}));
    let (age, folder) = (AgeKey::new(), Repository::new());
    let service = key_service(&[("VAULT_TOKEN", MARKER.to_owned())]);
    let tcp = format!("tcp://{}", service.address);
    let key = format!("{}/v1/transit/keys/apps", server.url());
    folder.write("a.yaml", PLAIN);
    let encrypt = |arguments: &[&str]| {
        let run = strongroom().args(["encrypt", "--keyservice", &tcp]).args(arguments);
        run.arg("a.yaml").directory(folder.path())
    };
    let off = "--enable-local-keyservice=false";
    for arguments in [
        // Without a token it is refused here, and then sealed there.
        &["--hc-vault-transit", &*key][..],
        &["--hc-vault-transit", &key, off],
        &["--hc-vault-transit", &key, "--age", &age.recipient, off],
    ] {
        folder.write("sealed.yaml", encrypt(arguments).ok());
        let open = sops_of("sops").directory(folder.path()).env("VAULT_TOKEN", MARKER);
        assert_eq!(open.args(["decrypt", "sealed.yaml"]).ok(), PLAIN, "{arguments:?}");
    }
    let message =
        encrypt(&["--hc-vault-transit", &format!("{}/v1/transit/keys/x/y", server.url()), off]).fails();
    assert!(message.contains(&format!("the key service {tcp} ")) && !message.contains(MARKER), "{message}");
}
