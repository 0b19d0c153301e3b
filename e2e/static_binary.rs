//! The shipped file runs where there is nothing else: an empty, read-only root with only itself, `helm`, CA certificates
//! and `/etc/resolv.conf`, and what every container runtime adds: `/proc`, `/dev/null` and a `/tmp`. As uid 999 there, it
//! finds a name through DNS, speaks TLS to a server whose authority only that root knows, and renders a chart.
//!
//! The DNS server and the TLS server are this test's own. They listen in a network namespace that holds nothing else.
#![allow(clippy::disallowed_methods, reason = "a test passes its own environment on")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use support::MARKER;
use support::fake_aws::{FakeSecretsManager, OverTls};
use support::fake_dns;
use support::process::Run;
use support::product::shipped;
use support::repository::copy;
use support::tools::{on_path, tool, top};

const NAME: &str = "secretsmanager.strongroom.test";
/// Set by the test that makes the namespaces, for the one that runs in them.
const ROOT: &str = "STRONGROOM_TEST_ROOT";

#[test]
fn it_is_a_static_position_independent_executable() {
    let path = shipped();
    let kind = Run::new(on_path("file")).arg("--brief").arg(&path).ok();
    assert!(kind.contains("static-pie linked"), "{}: {kind}", path.display());
}

/// Two folders give the same program, `make reproducible` says; this is what could differ.
#[test]
fn it_does_not_say_where_it_was_built() {
    let program = fs::read(shipped()).unwrap();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    for folder in [top(), &cargo] {
        let folder = folder.as_os_str().as_encoded_bytes();
        let found = memchr::memmem::find(&program, folder);
        let around = found.map(|at| String::from_utf8_lossy(&program[at..program.len().min(at + 200)]));
        assert_eq!(around, None);
    }
}

#[test]
fn it_needs_nothing_but_helm_certificates_and_a_resolver() {
    let root = TempDir::new().unwrap();
    furnish(root.path());
    let this_test = std::env::current_exe().unwrap();
    Run::new(on_path("unshare"))
        .args(["--net", "--mount", "--pid", "--fork", "--propagation", "private"])
        .arg(this_test)
        .args(["--exact", "inside_the_empty_root", "--ignored", "--nocapture"])
        .envs(std::env::vars_os())
        .env(ROOT, root.path())
        .ok();
}

#[test]
#[ignore = "runs in the namespaces that it_needs_nothing_but_helm_certificates_and_a_resolver makes"]
fn inside_the_empty_root() {
    let root = PathBuf::from(std::env::var_os(ROOT).expect("the other test starts this one"));
    Run::new(on_path("ip")).args(["link", "set", "lo", "up"]).ok();
    let trusted = server();
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), trusted.authority()).unwrap();
    fake_dns::start((Ipv4Addr::LOCALHOST, 53), NAME, Ipv4Addr::LOCALHOST);
    seal(&root);

    it_says_its_version(&root);
    it_renders_a_chart_with_encrypted_files(&root);
    it_gets_a_secret_by_name_over_tls(&root, &trusted);
    it_refuses_a_server_of_another_authority(&root);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0, "something was left in /tmp");
}

fn it_says_its_version(root: &Path) {
    let said = inside(root).arg("--version").ok();
    assert_eq!(said, format!("strongroom {}\n", env!("CARGO_PKG_VERSION")));
}

fn it_renders_a_chart_with_encrypted_files(root: &Path) {
    let manifests = inside(root)
        .args(["template", "hello", "/app", "--repository", "/app", "--namespace", "demo", "--reveal"])
        .args(["-f", "/app/secrets/database.yaml", "-f", "/app/secrets/mail.yaml"])
        .ok();
    assert!(
        manifests.contains("DATABASE_PASSWORD: \"U1RST05HUk9PTS1NQVJLRVItZGF0YWJhc2UtcGFzc3dvcmQ=\""),
        "{manifests}"
    );
}

fn it_gets_a_secret_by_name_over_tls(root: &Path, server: &OverTls) {
    let secret = inside(root).envs(aws(server.port())).args(["get", "ref+awssecrets://team/database"]).ok();
    assert_eq!(secret.trim_end(), MARKER);
}

fn it_refuses_a_server_of_another_authority(root: &Path) {
    let stranger = server();
    let message =
        inside(root).envs(aws(stranger.port())).args(["get", "ref+awssecrets://team/database"]).fails();
    assert!(message.contains("ref+awssecrets://team/database"), "{message}");
    assert_eq!(stranger.answered(), 0, "a request went to a server that nothing vouches for");
}

fn server() -> OverTls {
    FakeSecretsManager::start_tls(NAME, &[("team/database".to_owned(), MARKER.to_owned())])
}

/// What the root holds before it is sealed. `make test` built the program; nothing here comes from the machine.
fn furnish(root: &Path) {
    for folder in ["etc/ssl/certs", "keys", "app", "proc", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(shipped(), root.join("strongroom")).unwrap();
    fs::copy(tool("helm"), root.join("helm")).unwrap();
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    copy(&top().join("examples/hello"), &root.join("app"));
    copy(&top().join("examples/keys"), &root.join("keys"));
    fs::create_dir(root.join("dev")).unwrap();
    fs::write(root.join("dev/null"), "").unwrap();
    allow_everyone_in(root);
}

/// A temporary folder is its owner's alone; the program runs as somebody else.
fn allow_everyone_in(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes the root read-only, with `/proc`, `/dev/null` and an empty `/tmp` as a container runtime gives them.
fn seal(root: &Path) {
    let mount = |options: &[&str], at: &Path| Run::new(on_path("mount")).args(options).arg(at).ok();
    let itself = root.to_str().expect("a temporary folder's name is UTF-8");
    mount(&["--bind", itself], root);
    mount(&["-o", "remount,bind,ro,nosuid,nodev"], root);
    mount(&["-t", "proc", "-o", "nosuid,nodev,noexec", "proc"], &root.join("proc"));
    mount(&["--bind", "/dev/null"], &root.join("dev/null"));
    mount(&["-t", "tmpfs", "-o", "nosuid,nodev,noexec,mode=1777", "tmpfs"], &root.join("tmp"));
}

/// `/strongroom …` as uid 999 in the root.
fn inside(root: &Path) -> Run {
    Run::new(on_path("chroot"))
        .arg("--userspec=999:999")
        .arg(root)
        .arg("/strongroom")
        .env("STRONGROOM_HELM", "/helm")
        .env("STRONGROOM_KEYS_DIR", "/keys")
}

fn aws(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("https://{NAME}:{port}")),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_MAX_ATTEMPTS", "1".to_owned()),
    ]
}
